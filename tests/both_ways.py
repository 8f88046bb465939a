"""Requests to the service's protocol class in this process, with the fast path and without it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
from threaded_service import kept_logging
from uvicorn import Config
from uvicorn.server import ServerState

from app.main import app as application
from app.server.protocol import BoundedHttpProtocol

JSON_TYPE = (b"content-type", b"application/json")
OWN = b"/predict"


class Running(NamedTuple):
    """The started app, on an event loop that the tests share."""

    config: Config
    state: dict[str, Any]
    runner: asyncio.Runner


def started(folder: Path) -> Iterator[Running]:
    config = Config(application, log_config=None, access_log=False)
    config.load()
    with asyncio.Runner() as runner:
        lifespan = application.router.lifespan_context(application)
        with kept_logging(), pytest.MonkeyPatch.context() as environment:
            environment.setenv("LINSERVE_MODELS_DIR", str(folder / "models"))
            environment.setenv("LINSERVE_STATE_DIR", str(folder / "state"))
            environment.setenv("LINSERVE_TRAINER_MODE", "external")
            state = runner.run(lifespan.__aenter__())
        yield Running(config, dict(state or {}), runner)
        runner.run(lifespan.__aexit__(None, None, None))


class Wire(asyncio.Transport):
    """Keeps the bytes that are written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 80)})
        self.written = b""
        self.unread = 0
        self.on_write: Callable[[], None] | None = None
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        if self.on_write is not None:
            self.on_write()

    def close(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self._closing = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def named_version(document: dict[str, Any]) -> int | str | None:
    """Return the version that the body of a response names."""
    found: int | str | None = document.get("version", document.get("model_version"))
    return found


class Answer:
    """A response without its request id."""

    def __init__(self, written: bytes) -> None:
        head, _, body = written.partition(b"\r\n\r\n")
        self.status, *fields = head.decode().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        assert headers.pop("x-request-id")
        assert int(headers["content-length"]) == len(body)
        self.headers = list(headers.items())  # in their order
        if self.status == "HTTP/1.1 200 OK" and headers["content-type"] == "application/json":
            assert int(headers["linserve-version"]) == int(named_version(json.loads(body)) or 1)
        problem = headers["content-type"] == "application/problem+json"
        self.body: Any = {**json.loads(body), "request_id": None} if problem else body

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))

    __hash__ = None  # type: ignore[assignment]


Request: TypeAlias = tuple[list[bytes], list[tuple[bytes, bytes]]]  # parts of the body, headers


def written_of(parts: list[bytes], headers: list[tuple[bytes, bytes]], path: bytes = OWN) -> list[bytes]:
    """Return a request in the parts in which it arrives."""
    head = b"POST %b HTTP/1.1\r\nhost: here\r\n" % path
    head += b"".join(b"%b: %b\r\n" % header for header in headers)
    if len(parts) == 1:
        return [head + b"content-length: %d\r\n\r\n" % len(parts[0]) + parts[0]]
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part]
    return [head + b"transfer-encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"]


def connect(running: Running, *, fast_path: bool) -> tuple[BoundedHttpProtocol, Wire]:
    state = running.state if fast_path else {**running.state, "fast_paths": {}}
    connection = BoundedHttpProtocol(running.config, ServerState(), state)
    wire = Wire()
    connection.connection_made(wire)
    return connection, wire


async def ask(running: Running, pieces: list[bytes], *, fast_path: bool) -> tuple[Answer, bool]:
    """Return the response, and whether the fast path gave it."""
    connection, wire = connect(running, fast_path=fast_path)
    for piece in pieces:
        connection.data_received(piece)
    while tasks := list(connection.tasks):
        await asyncio.wait(tasks)
    by_fast_path = connection.cycle is None
    connection.connection_lost(None)
    return Answer(wire.written), by_fast_path


def both(running: Running, *requests: Request, path: bytes = OWN) -> list[tuple[Answer, Answer, bool]]:
    """Return the responses with and without the fast path, and whether the fast path gave the first."""

    async def answers() -> list[tuple[Answer, Answer, bool]]:
        found = []
        for parts, headers in requests:
            pieces = written_of(parts, headers, path)
            with_fast_path, by_fast_path = await ask(running, pieces, fast_path=True)
            without, _ = await ask(running, pieces, fast_path=False)
            found.append((with_fast_path, without, by_fast_path))
        return found

    return running.runner.run(answers())
