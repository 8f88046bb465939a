"""What single predictions notice of other work: of trainings, and of callers who are slow on purpose.

One web worker, nothing pinned; every round measures without the disturbance, then with it.
"""

import resource
import socket
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from environments import CACHE
from files import ROWS
from serve import Server, arrays, load, ours, running, what_is_missing

BODY = arrays([[75, 63, 44]])
SLOW_SOCKETS = 1000
# Connected and silent, half of the headers, half of a body.
BEGINNINGS = [
    b"",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
]


def compare_disturbed(rounds: int) -> Iterator[str]:
    if missing := what_is_missing():
        yield missing
        return
    with tempfile.TemporaryDirectory() as name:
        yield from _while_training(Path(name), 2 * rounds + 1)
        yield from _beside_slow_sockets(Path(name), 2 * rounds + 1)


def _while_training(folder: Path, rounds: int) -> Iterator[str]:
    data = CACHE / "data" / "rows.parquet"
    if not data.exists():
        return
    served = ours(folder)
    served.environment["LINSERVE_TRAINER"] = "embedded"
    idle, training = [], []
    with running(served, BODY, pinned=False):
        time.sleep(3)  # for the trainer to be there
        for _ in range(rounds):
            idle.append(load(served, BODY, 1, seconds=5, pinned=False).p99)
            for _ in range(5):  # so that the load does not outlive them
                _train(served, data)
            training.append(load(served, BODY, 1, seconds=5, pinned=False).p99)
            while b'"queued"' in (jobs := _get(served, "/jobs?limit=5")) or b'"running"' in jobs:
                time.sleep(0.2)
    yield f"\nsingle predictions at 1 connection, while {ROWS:,} rows train again and again"
    yield from _beside_idle("training", idle, training)


def _beside_slow_sockets(folder: Path, rounds: int) -> Iterator[str]:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    served = ours(folder)
    idle, slow = [], []
    with running(served, BODY, pinned=False):
        for _ in range(rounds):
            idle.append(load(served, BODY, 4, pinned=False).p99)
            with ExitStack() as held:
                for number in range(SLOW_SOCKETS):
                    caller = held.enter_context(socket.create_connection(("127.0.0.1", served.port)))
                    caller.sendall(BEGINNINGS[number % len(BEGINNINGS)])
                slow.append(load(served, BODY, 4, pinned=False).p99)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    yield f"\nsingle predictions at 4 connections, beside {SLOW_SOCKETS:,} sockets silent or half way through a request"
    yield from _beside_idle("slow sockets", idle, slow)


def _beside_idle(name: str, idle: list[float], disturbed: list[float]) -> Iterator[str]:
    for which, runs in (("idle", idle), (name, disturbed)):
        ratio = statistics.median(runs) / statistics.median(idle)
        yield f"  {which:26} p99 {1e3 * statistics.median(runs):7.2f} ms   {ratio:6.2f} x idle"


def _train(server: Server, data: Path) -> None:
    url = f"http://127.0.0.1:{server.port}/train?model=bench&targets=y&promote=never"
    headers = {"Content-Type": "application/vnd.apache.parquet"}
    with urllib.request.urlopen(urllib.request.Request(url, data.read_bytes(), headers)):
        pass


def _get(server: Server, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as answer:
        content: bytes = answer.read()
        return content
