"""Request predictions at a steady rate from a separate process, and measure how late the responses are."""

import multiprocessing
import socket
import statistics
import time
from contextlib import suppress
from multiprocessing.connection import Connection

from serve import Server

RATE = 500  # Predictions per second.
_CONTEXT = multiprocessing.get_context("spawn")


def p99_at_rate(server: Server, body: bytes, seconds: float) -> float:
    """Return the 99th percentile of the time from when a request was due until its response, in seconds."""
    ours, theirs = _CONTEXT.Pipe()
    asking = _CONTEXT.Process(target=_ask, args=(theirs, server.port, server.path, body, seconds))
    asking.start()
    late: list[float] = ours.recv()
    asking.join()
    return statistics.quantiles(late, n=100)[98]


def _ask(result: Connection, port: int, path: str, body: bytes, seconds: float) -> None:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    late = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin = time.perf_counter() + 0.1
        for number in range(int(RATE * seconds)):
            due = begin + number / RATE
            with suppress(ValueError):  # the request is late already
                time.sleep(due - time.perf_counter())
            connection.sendall(request)
            answer = connection.recv(1 << 16)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError("A prediction was refused.")
            while not answer.endswith(b"}"):
                answer += connection.recv(1 << 16)
            late.append(time.perf_counter() - due)
    result.send(late)
