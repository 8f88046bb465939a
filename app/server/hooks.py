"""The interface between connections and the application. The server knows nothing else of the application."""

import asyncio
from collections.abc import Mapping
from typing import Protocol, TypeAlias, TypedDict

from app.server.admission import ConnectionAdmission

MAX_TARGET_BYTES = 8 << 10
MAX_HEAD_BYTES = 32 << 10
MAX_HEADERS = 100

# Requests that a connection rejects before the application sees them: status and detail by the name of the problem.
REJECTIONS = {
    "MalformedRequest": (400, "The bytes received are not an HTTP/1.1 request."),
    "UpgradeRefused": (400, "A request with a body cannot upgrade to another protocol."),
    "TooSlow": (408, "The request was sent too slowly."),
    "TargetTooLong": (414, f"The path and query of a request have at most {MAX_TARGET_BYTES} bytes."),
    "HeadersTooLarge": (431, f"A request has at most {MAX_HEADERS} headers with {MAX_HEAD_BYTES} bytes in all."),
    "WorkerBusy": (503, "Other requests use the memory of this worker. Send this one again later."),
    "TooManyConnections": (503, "There are too many connections. Try again later."),
}

Headers: TypeAlias = list[tuple[bytes, bytes]]
# A request id, and the length of the JSON at the beginning of the body if other bytes follow it, otherwise 0.
Match: TypeAlias = tuple[bytes, int]


class ProtocolError(Exception):
    """Ends the connection with a response. `name` is a key of REJECTIONS."""

    def __init__(self, name: str, detail: str | None = None) -> None:
        """Replace the usual detail by `detail` if it is given."""
        self.name = name
        self.status, usual_detail = REJECTIONS[name]
        self.detail = detail or usual_detail
        super().__init__(self.detail)


class FastPath(Protocol):
    """Answers one kind of POST request without ASGI."""

    max_bytes: int  # longest body

    def match(self, headers: Headers) -> Match | None:
        """Return the values of a request with these headers that `answer` needs, or None if it is not eligible."""

    def answer(
        self, body: bytes, request_id: bytes, started: float, default_headers: Headers, json_bytes: int
    ) -> tuple[bytes, bytes] | None:
        """Return the head of the response, with its final blank line, and its body; or None if it is not eligible.

        `started` is the time at which the headers were complete, by `time.perf_counter`.
        """


class ConnectionHooks(Protocol):
    """Settings, memory and error responses of the application."""

    header_timeout: float  # seconds within which the headers of a request have to arrive
    transfer_grace: float  # seconds that a transfer may fall behind MIN_BYTES_PER_SECOND
    stopping: asyncio.Event  # set when the worker begins to stop

    def reserve(self, before: int, now: int) -> bool:
        """Change the memory reservation of a connection. Return False if too little memory is left."""

    def reject(self, error: ProtocolError, client: str | None, target: bytes) -> tuple[Headers, bytes]:
        """Log and count a rejected request. Return the headers and the body of the response.

        `target` is empty if it has not arrived.
        """


class ConnectionState(TypedDict):
    """The part of the lifespan state that connections use."""

    hooks: ConnectionHooks
    admission: ConnectionAdmission
    fast_paths: Mapping[bytes, FastPath]  # by their targets: paths without a query
