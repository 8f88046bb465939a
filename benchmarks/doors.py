"""The speed of other servers' wire formats, compared with this service's own format and with MLServer.

One process answers all formats, and each round sends them in turn. Figures are medians of the rounds, and of the ratios
to this service's own format in the same round.

Both this service and MLServer run while they are compared, on one core, and each round measures them in turn. The
default model has 10 features and 2 targets, as MLServer's. It gets the tensor of 1,000 x 10 numbers in JSON, because it
takes binary tensors over gRPC only.
"""

import json
import statistics
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from serve import Server, arrays, load, missing_tools, mlserver, ours, running, v2

ROW = [[75.5, 63.25, 44.0]]
OWN = "own format"
# One row of each format for the default model.
FORMATS = {
    OWN: ("/predict", arrays(ROW)),
    "KServe v1": ("/v1/models/crop-yield:predict", arrays(ROW)),
    "Open Inference Protocol": ("/v2/models/crop-yield/infer", v2(ROW)),
}
CONNECTIONS = (32, 1)
ROWS, COLUMNS, TARGETS = 1000, 10, 2
TENSOR_CONNECTIONS = 4
LENGTH = "Inference-Header-Content-Length"


class Request(NamedTuple):
    server: Server
    body: bytes


def compare_doors(rounds: int) -> Iterator[str]:
    if missing := missing_tools():
        yield missing
        return
    with tempfile.TemporaryDirectory() as name:
        yield from _one_row(Path(name), 2 * rounds + 1)
        yield from _with_mlserver(Path(name), 2 * rounds + 1)


def _one_row(folder: Path, rounds: int) -> Iterator[str]:
    service = ours(folder)
    requests = {title: Request(replace(service, path=path), body) for title, (path, body) in FORMATS.items()}
    with running(service, FORMATS[OWN][1]):
        for connections in CONNECTIONS:
            measured = _alternating(requests, connections, rounds)
            yield f"\none row a request, {connections} connection(s)"
            for title, rates in measured.items():
                ratio = statistics.median(rate / own for rate, own in zip(rates, measured[OWN], strict=True))
                yield f"  {title:26} {statistics.median(rates):9,.0f} requests/s   {ratio:6.3f} of the own format"


def _with_mlserver(folder: Path, rounds: int) -> Iterator[str]:
    """Compare a service whose default model has COLUMNS features with MLServer, while both run."""
    service, other = _service_of_columns(folder), mlserver(folder)
    if other is None:
        yield "\nMLServer cannot be installed here."
        return
    x = np.random.default_rng(0).uniform(40, 130, size=(ROWS, COLUMNS)).round(2)
    row, (body, head) = v2(x[:1].tolist()), binary(x)
    in_json = replace(service, path="/v2/models/wide/infer")
    in_binary = replace(in_json, media_type="application/octet-stream", headers={LENGTH: str(head)})
    kinds = {
        "one row of 10 numbers, both in JSON": (Request(in_json, row), Request(other, row)),
        "a tensor of 1,000 x 10 FP64, in binary and in JSON": (
            Request(in_binary, body),
            Request(other, v2(x.tolist())),
        ),
    }
    with running(service, row), running(other, row):
        for title, (mine, theirs) in kinds.items():
            requests = {service.name: mine, other.name: theirs}
            measured = _alternating(requests, TENSOR_CONNECTIONS, rounds)
            yield f"\n{title}, {TENSOR_CONNECTIONS} connections"
            for name, rates in measured.items():
                yield f"  {name:26} {statistics.median(rates):9,.0f} requests/s"
            ratios = [own / foreign for own, foreign in zip(*measured.values(), strict=True)]
            middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
            yield f"  {middle:.1f} times MLServer's throughput ({low:.1f} to {high:.1f} in {rounds} rounds)"


def _alternating(requests: dict[str, Request], connections: int, rounds: int) -> dict[str, list[float]]:
    """Return the requests per second of each round. Every second round has the opposite order."""
    measured: dict[str, list[float]] = {title: [] for title in requests}
    for number in range(rounds):
        for title in requests if number % 2 else reversed(requests):
            server, body = requests[title]
            load(server, body, connections, seconds=1)
            measured[title].append(load(server, body, connections).requests)
    return measured


def _service_of_columns(folder: Path) -> Server:
    """Return the service with a default model of COLUMNS features and random coefficients."""
    service = ours(folder)
    with running(service, FORMATS[OWN][1]):
        _import_model(service)
    settings = service.environment | {"LINSERVE_DEFAULT_MODEL": "wide"}
    return replace(service, path="/v2/models/wide/infer", environment=settings)


def binary(x: np.ndarray) -> tuple[bytes, int]:
    """Return a request whose tensor and results are binary, and the length of its JSON."""
    content = x.astype("<f8").tobytes()
    tensor = {
        "name": "x",
        "shape": x.shape,
        "datatype": "FP64",
        "parameters": {"binary_data_size": len(content)},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + content, len(head)


def _import_model(server: Server) -> None:
    """Publish a model of random coefficients, unless there is one."""
    url = f"http://127.0.0.1:{server.port}/models/wide"
    random = np.random.default_rng(0)
    model = {
        "features": [f"x{index}" for index in range(COLUMNS)],
        "targets": [f"y{index}" for index in range(TARGETS)],
        "coefficients": random.normal(size=(TARGETS, COLUMNS)).tolist(),
        "intercept": [0.0] * TARGETS,
    }
    body = json.dumps(model).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": "wide"}
    request = urllib.request.Request(f"{url}/versions?promote=always", body, headers)  # noqa: S310
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
