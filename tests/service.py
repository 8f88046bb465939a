"""A real service in its own processes, as an operator runs it, for tests to use and to kill."""

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
from ports import hold_port

from app.failpoints import Step

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
# Imported first by each process of a service, because it contains a module `sitecustomize`.
RECORDER = ROOT / "chaos" / "recorder"
MAX_SECONDS = 120.0  # Longest wait for a condition. It matters only if a test fails.
JOB_SECONDS = 900.0  # Longest wait for the end of a job.
POLL_SECONDS = 0.02
# Time limits of uvicorn that a busy machine could exceed, in seconds.
PATIENT = {"UVICORN_TIMEOUT_KEEP_ALIVE": "120", "UVICORN_TIMEOUT_WORKER_HEALTHCHECK": "60"}

# For clients of http:// addresses. With the default, each client would load the certificates of all authorities, which
# costs as much as a hundred requests.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

INPUTS: list[list[float]] = [
    [73, 67, 43], [91, 88, 64], [87, 134, 58], [102, 43, 37], [69, 96, 70],
    [74, 66, 43], [91, 87, 65], [88, 134, 59], [101, 44, 37], [68, 96, 71],
    [73, 66, 44], [92, 87, 64], [87, 135, 57], [103, 43, 36], [68, 97, 70],
]  # fmt: skip
TARGETS: list[list[float]] = [
    [56, 70], [81, 101], [119, 133], [22, 37], [103, 119],
    [57, 69], [80, 102], [118, 132], [21, 38], [104, 118],
    [57, 69], [82, 100], [118, 134], [20, 38], [102, 120],
]  # fmt: skip
NOTEBOOK: dict[str, Any] = {"instances": INPUTS, "targets": TARGETS}


def copy_models(folder: Path) -> Path:
    """Copy only the shipped version, without versions that were published since. Return the models folder."""
    target = folder / "models" / "crop-yield"
    target.mkdir(parents=True)
    shutil.copy(MODELS / "crop-yield" / "000001.safetensors", target)
    (target / "current").symlink_to("000001.safetensors")
    return target.parent


def wait_for(condition: Callable[[], object]) -> None:
    """Poll until the condition holds, if there is no event to wait for."""
    deadline = time.monotonic() + MAX_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


def written_lines(log: Path) -> list[str]:
    """Return the complete lines of a log to which a process may still be writing."""
    *lines, _ = log.read_text().split("\n")  # after the last line break, an incomplete line or nothing
    return lines


def arm(folder: Path, step: Step, action: signal.Signals = signal.SIGKILL) -> Path:
    """Arm a step of `app.failpoints`, with this folder. Return the file that is there once a process has reached it."""
    reached = folder / f"{step}.reached"
    reached.unlink(missing_ok=True)
    hidden = folder / f".{step}"
    hidden.write_text(action.name)
    hidden.rename(folder / step)
    return reached


def python_path() -> str:
    return os.pathsep.join([str(RECORDER), str(ROOT)])


class Service:
    """`linserve-server` on a free port, with its own folders."""

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        graceful_seconds: int = 30,
        environment: dict[str, str] | None = None,
        **settings: str,
    ) -> None:
        """Configure a service with these settings, and with `environment` in addition to that of this process.

        When it is stopped, it cancels the requests that are incomplete after `graceful_seconds`.
        """
        self.state = folder / "state"
        self.models = folder / "models"
        if not self.models.exists():
            copy_models(folder)
        self.log = folder / "service.log"
        self.workers = workers
        self._settings = {f"LINSERVE_{name.upper()}": value for name, value in settings.items()}
        self._settings |= PATIENT | {"PYTHONPATH": python_path()} | (environment or {})
        self._graceful_seconds = graceful_seconds
        self._port = hold_port(self)
        self._process: subprocess.Popen[bytes] | None = None
        self.client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the service, which also suits an external trainer."""
        folders = {"LINSERVE_MODELS_DIR": str(self.models), "LINSERVE_STATE_DIR": str(self.state)}
        return os.environ | self._settings | folders

    def start(self, probe: str = "/health/ready") -> Self:
        """Start the service and wait until it answers the probe."""
        command = [sys.executable, "-m", "app.serve"]
        command += ["--port", str(self._port), "--workers", str(self.workers)]
        command += ["--timeout-graceful-shutdown", str(self._graceful_seconds)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True
            )
        self.client = httpx.Client(base_url=self.url, timeout=MAX_SECONDS, verify=NO_TLS)
        try:
            wait_for(lambda: self._answers(probe))
        except AssertionError:
            self.kill()  # The caller gets no object to stop the service with.
            raise AssertionError(self.log.read_text()) from None
        return self

    def _answers(self, probe: str) -> bool:
        assert self._process is not None
        assert self._process.poll() is None
        with contextlib.suppress(httpx.TransportError):
            return self.client.get(probe).status_code == httpx.codes.OK
        return False

    def stop(self) -> int:
        """Stop the service as an operator does. Return the exit status."""
        assert self._process is not None
        self.client.close()
        self._process.terminate()
        return self._process.wait(MAX_SECONDS)

    def ended(self) -> int:
        """Wait until the service exits by itself. Return the exit status."""
        assert self._process is not None
        self.client.close()
        return self._process.wait(MAX_SECONDS)

    def kill(self) -> None:
        """Kill all processes of the service, and wait until they have exited."""
        assert self._process is not None
        self.client.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

        def are_gone() -> bool:
            left = self._processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        wait_for(are_gone)

    def records(self) -> list[dict[str, Any]]:
        """Return the records in the log. That of the latest request may not be written yet."""
        return [json.loads(line) for line in written_lines(self.log)]

    def request_record(self, response: httpx.Response) -> dict[str, Any]:
        """Return the log record of a request, which the service writes after the response."""
        identity = response.headers["x-request-id"]

        def matches() -> list[dict[str, Any]]:
            requests = [record for record in self.records() if record["message"] == "request"]
            return [record for record in requests if record["request_id"] == identity]

        wait_for(matches)
        return matches()[0]

    def memory(self, field: str) -> int:
        """Return the memory of a worker in bytes: VmRSS now, or VmHWM at most so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) << 10

    def reset_peak(self) -> int:
        """Reset the peak of a worker's memory to its current use, and return that."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.memory("VmRSS")

    @contextlib.contextmanager
    def growing_by_less_than(self, most: int) -> Iterator[None]:
        """Assert that the memory of the worker grows by less than `most` bytes in the block."""
        self.client.get("/jobs")  # A new worker loads the libraries for jobs in a thread, and this waits for it.
        before = self.reset_peak()
        yield
        assert self.memory("VmHWM") - before < most

    def trainers(self) -> list[int]:
        """Return the process ids of the trainers in this service's state folder."""
        return [pid for pid, words in self._processes().items() if b"app.trainer" in words]

    def _processes(self) -> dict[int, list[bytes]]:
        """Return the command lines of the processes with this service's state folder, by process id."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if f"LINSERVE_STATE_DIR={self.state}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = words
        return found

    def web_workers(self) -> list[int]:
        """Return the process ids of the web workers."""
        if self.workers == 1:
            return [self.pid]
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        pids = []
        for pid in children:
            with contextlib.suppress(OSError):  # The process may have ended.
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    pids.append(int(pid))
        return pids

    @contextlib.contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Stop the other web workers for the block, so that this one answers on new connections."""
        others = [pid for pid in self.web_workers() if pid != worker]
        try:
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
                wait_for(lambda: "\nState:\tT" in Path(f"/proc/{pid}/status").read_text())  # noqa: B023 - called at once
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def train(self, **body: Any) -> dict[str, Any]:
        """Train from JSON, wait for the end, and return the job."""
        return self.ended_job(self.client.post("/train", json=body, headers={"Prefer": "wait=60"}))

    def post_training(self, *, headers: dict[str, str] | None = None, **request: Any) -> httpx.Response:
        """Post to `/train`, and return the job as a response once it has ended, or the refusal."""
        response = self.client.post("/train", headers={**(headers or {}), "prefer": "wait=60"}, **request)
        if response.status_code != httpx.codes.ACCEPTED:
            return response
        return self.client.get(f"/jobs/{self.ended_job(response)['id']}")  # a busy machine took longer

    def ended_job(self, response: httpx.Response) -> dict[str, Any]:
        """Return the job of an answer to `/train`, once it has ended."""
        assert response.status_code in (httpx.codes.OK, httpx.codes.ACCEPTED), response.text
        job: dict[str, Any] = response.json()
        return job if job["finished_at"] else self.end_of(job["id"])

    def submit(self, **body: Any) -> str:
        """Train from JSON without waiting. Return the id of the job."""
        response = self.client.post("/train", json=body)
        assert response.status_code == httpx.codes.ACCEPTED, response.text
        return str(response.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        response = self.client.get(f"/jobs/{job_id}")
        assert response.status_code == httpx.codes.OK, response.text
        job: dict[str, Any] = response.json()
        return job

    def finish_jobs(self) -> None:
        """Wait until every job has ended and the rows of all are removed, so that only the test changes anything."""

        def are_finished() -> bool:
            pages = [self.client.get(f"/jobs?status={status}").json() for status in ("queued", "running")]
            return not any(page["items"] for page in pages) and not list((self.state / "spool").glob("*"))

        wait_for(are_finished)

    def follow(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Yield the job whenever it changes, until it ends."""
        deadline = time.monotonic() + JOB_SECONDS
        with self.client.stream("GET", f"/jobs/{job_id}/events") as response:
            for line in response.iter_lines():
                assert time.monotonic() < deadline
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def end_of(self, job_id: str) -> dict[str, Any]:
        *_, last = self.follow(job_id)
        return last

    def predict(self, *rows: list[float], **options: Any) -> dict[str, Any]:
        response = self.client.post("/predict", json={"instances": list(rows), **options})
        assert response.status_code == httpx.codes.OK, response.text
        result: dict[str, Any] = response.json()
        return result
