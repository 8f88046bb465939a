"""The latency of single predictions during other work: uploads and trainings, and clients that are slow on purpose.

The service has one web worker, and no process is pinned to a core. Each round measures first without, then with the
other work.
"""

import multiprocessing
import resource
import socket
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from environments import CACHE
from files import ROWS
from paced import RATE, p99_at_rate
from serve import Server, arrays, load, missing_tools, ours, running

BODY = arrays([[75, 63, 44]])
SECONDS = 5.0  # Length of one measurement, in seconds.
SLOW_SOCKETS = 1000
# Bytes that a slow client sends before it stops: none, half of the headers, half of a body.
BEGINNINGS = [
    b"",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
]


def compare_disturbed(rounds: int) -> Iterator[str]:
    if missing := missing_tools():
        yield missing
        return
    with tempfile.TemporaryDirectory() as name:
        yield from _while_training(Path(name), 2 * rounds + 1)
        yield from _next_to_slow_sockets(Path(name), 2 * rounds + 1)


def _while_training(folder: Path, rounds: int) -> Iterator[str]:
    data = CACHE / "data" / "rows.parquet"
    if not data.exists():
        return
    served = ours(folder)
    served.environment["LINSERVE_TRAINER_MODE"] = "embedded"
    idle, training = [], []
    with running(served, BODY, pinned=False):
        time.sleep(3)  # until the trainer has started
        for _ in range(rounds):
            idle.append(p99_at_rate(served, BODY, SECONDS))
            with _uploading(served, data):
                training.append(p99_at_rate(served, BODY, SECONDS))
            while b'"queued"' in (jobs := _get(served, "/jobs?limit=20")) or b'"running"' in jobs:
                time.sleep(0.2)
    yield f"\n{RATE} single predictions a second, while {ROWS:,} rows are uploaded and trained again and again"
    yield from _compared_with_idle("upload and training", idle, training)


@contextmanager
def _uploading(server: Server, data: Path) -> Iterator[None]:
    """Upload the file and train from it, again and again, in a separate process until the block ends."""
    context = multiprocessing.get_context("spawn")
    uploading = context.Process(target=_train_for_ever, args=(server, data))
    uploading.start()
    try:
        yield
    finally:
        uploading.kill()
        uploading.join()


def _train_for_ever(server: Server, data: Path) -> None:
    while True:
        _train(server, data)


def _next_to_slow_sockets(folder: Path, rounds: int) -> Iterator[str]:
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
    yield f"\nsingle predictions at 4 connections next to {SLOW_SOCKETS:,} silent or half-way sockets"
    yield from _compared_with_idle("slow sockets", idle, slow)


def _compared_with_idle(name: str, idle: list[float], disturbed: list[float]) -> Iterator[str]:
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
