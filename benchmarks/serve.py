"""The speed of predictions over HTTP, compared with other servers and with a floor.

The floor is a bare ASGI application on uvicorn. It reads the same body, and responds with fixed bytes of the same
length as the service's response. Every server has one process on one core, and `wrk` (https://github.com/wg/wrk) sends
requests from another core. In each round every server is started, warmed up, measured and stopped in turn. The results
are medians of the rounds, and the share of the floor's throughput. One-row predictions from a bucket are compared with
those from the models folder.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from environments import environment

HERE = Path(__file__).parent
ROOT = HERE.parent
SERVER_CORE, LOAD_CORE = "0", "1"
SECONDS = 3
START_SECONDS = 60.0
NAMES = ("temp", "rainfall", "humidity")
ARROW = "application/vnd.apache.arrow.stream"
UVICORN = [sys.executable, "-m", "uvicorn", "--log-level", "warning", "--no-access-log", "--port"]

Body = Callable[[list[list[float]]], bytes]


def arrays(rows: list[list[float]]) -> bytes:
    return json.dumps({"instances": rows}).encode()


def objects(rows: list[list[float]]) -> bytes:
    return json.dumps({"instances": [dict(zip(NAMES, row, strict=True)) for row in rows]}).encode()


def inputs(rows: list[list[float]]) -> bytes:
    return json.dumps({"inputs": rows}).encode()


def v2(rows: list[list[float]]) -> bytes:
    flat = [value for row in rows for value in row]
    tensor = {"name": "x", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": flat}
    return json.dumps({"inputs": [tensor]}).encode()


def arrow(rows: list[list[float]]) -> bytes:
    table = pa.table(dict(zip(NAMES, np.array(rows).T, strict=True)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


@dataclass(frozen=True)
class Server:
    name: str
    command: list[str]
    port: int
    path: str = "/predict"
    body: Body = arrays
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = HERE / "contenders"
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)  # in addition to the Content-Type


@dataclass(frozen=True)
class Load:
    title: str
    rows: int
    connections: int
    body: Body | None = None  # of the service and the floor; the other servers have their own formats
    media_type: str = "application/json"
    alone: bool = False  # True if only the service and the floor take part


LOADS = [
    Load("one row a request, 32 connections", 1, 32),
    Load("one row a request, as an object, 32 connections", 1, 32, body=objects, alone=True),
    Load("one row a request, 1 connection", 1, 1),
    Load("1,000 rows a request, 4 connections", 1000, 4),
    Load("1,000 rows a request, as objects, 4 connections", 1000, 4, body=objects, alone=True),
    Load("100,000 rows a request as Arrow, 1 connection", 100_000, 1, body=arrow, media_type=ARROW, alone=True),
]


def ours(folder: Path, port: int = 8301) -> Server:
    models = folder / "models"
    if not models.exists():
        shutil.copytree(ROOT / "models", models, symlinks=True)
    settings = {"MODELS_DIR": str(models), "STATE_DIR": str(folder / "state"), "TRAINER_MODE": "external"}
    environment_ = {f"LINSERVE_{name}": value for name, value in settings.items()}
    command = [str(Path(sys.executable).with_name("linserve-server")), "--log-level", "warning", "--port", str(port)]
    return Server("linserve", command, port, environment=environment_, folder=ROOT)


def floor(answer: int) -> Server:
    return Server("floor", [*UVICORN, "8302", "floor:app"], 8302, environment={"FLOOR_ANSWER": str(answer)})


def others(folder: Path) -> Iterator[Server | str]:
    """Yield the other servers, or their names if they cannot be installed."""
    yield Server("FastAPI tutorial, torch", [*UVICORN, "8303", "tutorial:app"], 8303)
    if found := environment("litserve", "numpy"):
        yield Server("LitServe", [str(found / "python"), "litserve_app.py", "8304"], 8304)
    else:
        yield "LitServe"
    if found := environment("bentoml", "numpy"):
        command = [str(found / "bentoml"), "serve", "bento_service:Linear", "-p", "8305", "--api-workers", "1"]
        yield Server("BentoML", command, 8305)
    else:
        yield "BentoML"
    yield mlserver(folder) or "MLServer"
    if found := environment("mlflow", "numpy"):
        model_ = str(folder / "mlflow")
        subprocess.run([found / "python", "mlflow_model.py", model_], cwd=HERE / "contenders", check=True)
        command = [str(found / "mlflow"), "models", "serve", "-m", model_, "-p", "8307", "--env-manager", "local"]
        path = {"PATH": f"{found}:{os.environ['PATH']}"}
        yield Server("MLflow", [*command, "--workers", "1"], 8307, "/invocations", inputs, environment=path)
    else:
        yield "MLflow"


def mlserver(folder: Path) -> Server | None:
    """Return MLServer with a model of ours, or None if it cannot be installed."""
    found = environment("mlserver", "numpy")
    if found is None:
        return None
    settings = {"http_port": 8306, "grpc_port": 8316, "metrics_port": 8326, "host": "127.0.0.1"}
    served = folder / "mlserver"
    served.mkdir()
    (served / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0}))
    model = {"name": "linear", "implementation": "mlserver_runtime.Linear"}
    (served / "model-settings.json").write_text(json.dumps(model))
    return Server("MLServer", [str(found / "mlserver"), "start", str(served)], 8306, "/v2/models/linear/infer", v2)


@contextlib.contextmanager
def running(server: Server, body: bytes, *, pinned: bool = True) -> Iterator[int]:
    """Start the server, and yield its process id when it answers."""
    command = ["taskset", "-c", SERVER_CORE, *server.command] if pinned else server.command
    python_path = {"PYTHONPATH": str(HERE / "contenders")}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=server.folder,
            env=os.environ | python_path | server.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(server, body)
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.5)  # until the port is free again


def _wait(server: Server, body: bytes) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ask(server, body)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def ask(server: Server, body: bytes) -> bytes:
    url = f"http://127.0.0.1:{server.port}{server.path}"
    request = urllib.request.Request(url, body, {"Content-Type": server.media_type, **server.headers})
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        content: bytes = answer.read()
        return content


@dataclass(frozen=True)
class Measured:
    requests: float  # per second
    median: float  # seconds
    p99: float


def load(server: Server, body: bytes, connections: int, *, seconds: int = SECONDS, pinned: bool = True) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body").write_bytes(body)
        (Path(folder) / "post.lua").write_text(
            f'local file = io.open("{folder}/body", "rb"); wrk.body = file:read("*all"); file:close()\n'
            f'wrk.method = "POST"; wrk.headers["Content-Type"] = "{server.media_type}"\n'
            + "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in server.headers.items())
        )
        url = f"http://127.0.0.1:{server.port}{server.path}"
        options = ["-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", f"{folder}/post.lua"]
        pin = ["taskset", "-c", LOAD_CORE] if pinned else []
        said = subprocess.run([*pin, "wrk", *options, url], capture_output=True, text=True, check=True).stdout
    if refused := re.search(r"Non-2xx or 3xx responses: (\d+)", said):
        raise RuntimeError(f"{server.name} refused {refused[1]} requests.")
    quantiles = {name: _seconds(value) for name, value in re.findall(r"(50|99)%\s+([\d.]+\w+)", said)}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate
    return Measured(float(rate[1]), quantiles["50"], quantiles["99"])


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s)", text)
    assert match
    return float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[match[2]]


def missing_tools() -> str | None:
    if shutil.which("wrk") is None or (os.cpu_count() or 1) < 2:  # noqa: PLR2004 - one for the server, one for the load
        return "\nServing was not measured: this needs wrk (in Debian: apt install wrk) and two cores."
    return None


def compare_servers(rounds: int) -> Iterator[str]:
    if missing := missing_tools():
        yield missing
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entries = list(others(folder))
        for absent in (entry for entry in entries if isinstance(entry, str)):
            yield f"\n{absent} cannot be installed here."
        contenders = [entry for entry in entries if isinstance(entry, Server)]
        for load_ in LOADS:
            yield from _compare(load_, ours(folder), contenders, rounds)
        yield from _compare_storage(folder, rounds)


def _compare_storage(folder: Path, rounds: int) -> Iterator[str]:
    """Compare predictions from the models folder with those from a bucket, whose pointer is polled meanwhile."""
    body = arrays([[75.0, 63.0, 44.0]])
    with _bucket() as settings:
        from_folder = ours(folder)
        from_bucket = replace(from_folder, name="bucket", environment=from_folder.environment | settings)
        for connections in (32, 1):
            ratios = []
            for _ in range(rounds):
                measured = []
                for server in (from_folder, from_bucket):
                    with running(server, body):
                        load(server, body, connections, seconds=1)
                        measured.append(load(server, body, connections))
                ratios.append((measured[1].requests / measured[0].requests, measured[1].p99 / measured[0].p99))
            rate, p99 = (statistics.median(values) for values in zip(*ratios, strict=True))
            yield f"\none row a request, {connections} connection(s), versions from a bucket"
            yield f"  {rate:.3f} of the requests/s with a models folder, {p99:.2f} x its p99"


@contextlib.contextmanager
def _bucket(port: int = 8308) -> Iterator[dict[str, str]]:
    """Start a server of S3's API, and yield the variables of a service over a new bucket."""
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{url}/linserve", method="PUT")).close()  # noqa: S310
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield {
            "LINSERVE_STORAGE": "s3://linserve/models",
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",  # pragma: allowlist secret
            "AWS_REGION": "us-east-1",
        }
    finally:
        process.kill()
        process.wait()


def _compare(kind: Load, mine: Server, contenders: list[Server], rounds: int) -> Iterator[str]:
    rows = np.random.default_rng(0).uniform(40, 130, size=(kind.rows, 3)).round(2).tolist()
    mine = _asked(mine, kind)
    with running(mine, (kind.body or arrays)(rows)):
        answer = len(ask(mine, (kind.body or arrays)(rows)))
    servers = [_asked(floor(answer), kind), mine, *([] if kind.alone else contenders)]
    measured: dict[str, list[Measured]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            body = server.body(rows)
            with running(server, body):
                load(server, body, kind.connections, seconds=1)
                measured[server.name].append(load(server, body, kind.connections))
    yield f"\n{kind.title}"
    least = measured["floor"]
    for name, runs in measured.items():
        share = statistics.median(run.requests / base.requests for run, base in zip(runs, least, strict=True))
        slower = statistics.median(run.median / base.median for run, base in zip(runs, least, strict=True))
        rate = statistics.median(run.requests for run in runs)
        middle, p99 = (statistics.median(getattr(run, which) for run in runs) for which in ("median", "p99"))
        yield (
            f"  {name:26} {rate:9,.0f} requests/s   {share:6.3f} of the floor   {rate * kind.rows:12,.0f} rows/s   "
            f"p50 {1e3 * middle:7.2f} ms ({slower:.2f} x)   p99 {1e3 * p99:7.2f} ms"
        )


def _asked(server: Server, kind: Load) -> Server:
    return replace(server, body=kind.body or server.body, media_type=kind.media_type)
