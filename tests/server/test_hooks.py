"""The server with another application than this service: it knows only the hooks."""

import asyncio
import logging
import socket
from typing import Any

import pytest
from uvicorn import Config, Server

from app.server.admission import ConnectionAdmission
from app.server.hooks import ConnectionState, Headers, Match, ProtocolError
from app.server.protocol import BoundedHttpProtocol


class EchoPath:
    """Answers POST /echo with the body."""

    max_bytes = 10

    def match(self, headers: Headers) -> Match | None:
        identity = dict(headers).get(b"x-id")
        return None if identity is None else (identity, 0)

    def answer(
        self, body: bytes, request_id: bytes, started: float, default_headers: Headers, json_bytes: int
    ) -> tuple[bytes, bytes] | None:
        if body == b"decline" or not started or json_bytes:
            return None
        own = b"".join(b"%b: %b\r\n" % header for header in default_headers)
        return b"HTTP/1.1 200 OK\r\n%bx-id: %b\r\ncontent-length: %d\r\n\r\n" % (own, request_id, len(body)), body


class Hooks:
    def __init__(self) -> None:
        self.header_timeout, self.transfer_grace = 10.0, 20.0
        self.stopping = asyncio.Event()

    def reserve(self, before: int, now: int) -> bool:
        return now - before < 1 << 20

    def reject(self, error: ProtocolError, client: str | None, target: bytes) -> tuple[Headers, bytes]:
        assert client == "127.0.0.1"
        body = b"%b %b" % (error.name.encode(), target)
        return [(b"content-length", b"%d" % len(body))], body


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        hooks, admission = Hooks(), ConnectionAdmission(10, set())
        state: ConnectionState = {"hooks": hooks, "admission": admission, "fast_paths": {b"/echo": EchoPath()}}
        scope["state"].update(state)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def request(body: bytes, head: bytes = b"") -> bytes:
    return b"POST /echo HTTP/1.1\r\nhost: here\r\n%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (request(b"fast", b"x-id: 1\r\n"), b"HTTP/1.1 200 OK\r\nx-id: 1\r\ncontent-length: 4\r\n\r\nfast"),
        (request(b"no id"), b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nno id"),
        (request(b"decline", b"x-id: 1\r\n"), b"HTTP/1.1 201 Created\r\ncontent-length: 7\r\n\r\ndecline"),
        (request(b"a longer body", b"x-id: 1\r\n"), b"HTTP/1.1 201 Created\r\ncontent-length: 13\r\n\r\na longer body"),
        (
            request(b"fast", b"x-id: 1\r\n") * 2,
            b"HTTP/1.1 200 OK\r\nx-id: 1\r\ncontent-length: 4\r\nconnection: close\r\n\r\nfast",
        ),
        (
            b"GET /x HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 19\r\nconnection: close\r\n\r\nMalformedRequest /x",
        ),
    ],
    ids=["fast path", "not eligible", "declined", "too long", "pipelined", "rejected"],
)
def test_fast_path_application_and_rejections_answer(content: bytes, expected: bytes) -> None:
    async def exchange() -> bytes:
        config = Config(
            application,
            http=BoundedHttpProtocol,
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            date_header=False,
            server_header=False,
        )
        server = Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            serving = asyncio.create_task(server.serve([listener]))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(content)
            received = await reader.readexactly(len(expected))
            writer.close()
            server.should_exit = True
            await serving
        return received

    assert asyncio.run(exchange()) == expected
