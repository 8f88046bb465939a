"""The interface between connections and the application. The server knows nothing else of the application."""

import asyncio
from typing import Protocol, TypeAlias, TypedDict

from app.server.admission import ConnectionAdmission
from app.server.rejections import ProtocolError

Headers: TypeAlias = list[tuple[bytes, bytes]]


class FastPath(Protocol):
    """Answers one kind of POST request without ASGI."""

    target: bytes  # the path, without a query
    max_bytes: int  # longest body
    is_open: bool

    def match(self, headers: Headers) -> bytes | None:
        """Return the request id of a request with these headers, or None if it is not eligible."""

    def answer(
        self, body: bytes, request_id: bytes, started: float, default_headers: Headers
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

    def reject(self, error: ProtocolError, client: str | None) -> tuple[Headers, bytes]:
        """Log and count a rejected request. Return the headers and the body of the response."""


class ConnectionState(TypedDict):
    """The part of the lifespan state that connections use."""

    hooks: ConnectionHooks
    admission: ConnectionAdmission
    fast_path: FastPath | None
