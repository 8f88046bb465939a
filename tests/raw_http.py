"""HTTP over plain sockets, for requests that an HTTP client library would not send."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httptools
from service import MAX_SECONDS, Service

# States of a connection in /proc/net/tcp. Half-closed: the service has sent FIN, and the client has not. Abandoned: the
# client has sent FIN, and the service has not.
ESTABLISHED, HALF_CLOSED, ABANDONED = "01", "05", "08"

BODY = b'{"instances": [[75, 63, 44]]}'
HEAD = b"POST /predict HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
GOOD = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
WITH_OPTIONS = b'{"instances": [[75, 63, 44]], "interval": 0.9}'
OPTIONED = HEAD + b"content-length: %d\r\n\r\n" % len(WITH_OPTIONS) + WITH_OPTIONS
PROBE = b"GET /health/live HTTP/1.1\r\nhost: here\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n"


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        return json.loads(self.body)


class _Parsed:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


@contextlib.contextmanager
def connect(service: Service) -> Iterator[socket.socket]:
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=MAX_SECONDS) as connection:
        yield connection


@contextlib.contextmanager
def half_sent(service: Service, headers: dict[str, str], body: bytes) -> Iterator[socket.socket]:
    """Send half of a request to /train. Yield its connection once the service reads it, and close that."""
    with connect(service) as connection:
        named = {"host": service.url.removeprefix("http://"), "expect": "100-continue", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        connection.sendall(f"POST /train HTTP/1.1\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode())
        # The service sends 100 Continue when it begins to read the body.
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body[: len(body) // 2])
        yield connection


def read_response(connection: socket.socket) -> Response | None:
    """Return the next response, or None if the connection is closed without one."""
    parsed = _Parsed()
    parser = httptools.HttpResponseParser(parsed)
    while not parsed.is_complete:
        try:
            received = connection.recv(1 << 16)
        except ConnectionResetError:
            return None
        if not received:
            return None
        parser.feed_data(received)
    return Response(parser.get_status_code(), parsed.headers, parsed.body)


def exchange(service: Service, *pieces: bytes) -> Response | None:
    with connect(service) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return read_response(connection)


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(1 << 20):
        received += part
    return received


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def count_connections(service: Service, *states: str) -> int:
    """Return the number of the service's connections in these states, according to the kernel.

    By default, these are the states of connections that the service has not closed.
    """
    sockets = {columns[9] for columns in list_sockets(service) if columns[3] in (states or (ESTABLISHED, ABANDONED))}
    links = []
    for descriptor in Path(f"/proc/{service.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(descriptor.readlink()))
    return sum(f"socket:[{inode}]" in links for inode in sockets)


def count_unread_bytes(service: Service) -> int:
    """Return the number of bytes on their way to the service and from it, according to the kernel."""
    return sum(int(count, 16) for columns in list_sockets(service) for count in columns[4].split(":"))


def list_sockets(service: Service) -> Iterator[list[str]]:
    """Yield both ends of the service's connections, as columns of /proc/net/tcp."""
    port = f":{int(service.url.rpartition(':')[2]):04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1].endswith(port) or columns[2].endswith(port):
            yield columns
