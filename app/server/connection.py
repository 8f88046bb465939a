"""uvicorn's HTTP/1.1 protocol with bounds on a connection's time and memory, for which uvicorn has no settings."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.server.clocks import MIN_BYTES_PER_SECOND, Awaiting, RequestClock, TransferClock
from app.server.hooks import ConnectionState, ProtocolError

# Bytes drained between pause_writing() and resume_writing() at asyncio's default water marks.
BUFFERED_BYTES = 48 << 10
# Smallest change of a connection's memory reservation, in bytes.
PAGE_BYTES = 4 << 10
# Seconds between two checks of a connection's deadlines.
CHECK_SECONDS = 1.0
# Seconds in which a stopping worker still answers a request on an idle connection.
LAST_SECONDS = 1.0
# Header timeout of connections above the limit, in seconds.
EXCESS_HEADER_TIMEOUT = 1.0

CLOSE = (b"connection", b"close")


class BoundedConnection(HttpToolsProtocol):
    """A connection with deadlines, a memory reservation and a defined end.

    The subclass parses requests, and keeps `_clock` and the counts of the current request up to date.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        state = cast("ConnectionState", self.app_state)
        self._hooks, self._admission = state["hooks"], state["admission"]
        self._stopping = self._hooks.stopping
        # Per connection
        self._clock = RequestClock(self.timeout_keep_alive, self._hooks.header_timeout, time.perf_counter())
        self._body_clock = TransferClock(self._hooks.transfer_grace)
        self._response_clock = TransferClock(self._hooks.transfer_grace)
        self._check: asyncio.TimerHandle | None = None
        self._is_excess = False  # above the connection limit when it was accepted
        self._reserved = 0  # bytes of the memory budget, in whole PAGE_BYTES
        self._early_input = bytearray()  # arrived after a response had begun and before its end
        self._is_closing = False  # further input is discarded
        self._has_ended = False  # the client has sent EOF
        # Per request
        self.url = b""  # the target, also before the first request
        self._overhead_bytes = 0  # bytes of an incomplete head, or bytes since the last part of the body
        self._body_bytes = 0
        self._checked_bytes = 0  # bytes of the body at the last check of the deadlines
        self._kept = bytearray()  # the part of the body that uvicorn does not have

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self._clock.since = time.perf_counter()
        self._check = self.loop.call_later(CHECK_SECONDS, self._check_deadlines)
        if not self._admission.accept(self, len(self.connections)):
            self._is_excess = True
            self._clock.header_timeout = EXCESS_HEADER_TIMEOUT

    def connection_lost(self, exc: Exception | None) -> None:
        if self._check is not None:
            self._check.cancel()
        self._admission.forget(self)
        super().connection_lost(exc)
        self._drop_input()
        self._reserve(0)

    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio's
        """Keep the connection open for the response to a complete request, and close it otherwise."""
        self._has_ended = True
        if self.is_answering() and self.cycle.more_body:
            self._mark_disconnected()
            return False
        return self.is_answering()

    def pause_writing(self) -> None:
        self._response_clock.start(time.perf_counter())
        super().pause_writing()
        self._count_buffers()

    def resume_writing(self) -> None:
        self._response_clock.advance(time.perf_counter(), BUFFERED_BYTES)
        self._response_clock.stop()
        super().resume_writing()
        if self._reserved:
            self._count_buffers()

    def shutdown(self) -> None:
        """Answer the current request, and one that is on its way, which closing at once would lose."""
        if self.is_answering():
            super().shutdown()
        else:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(LAST_SECONDS, self.timeout_keep_alive_handler)

    def is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def evict(self) -> None:
        self._reject(ProtocolError("TooManyConnections"))

    def _reject(self, error: ProtocolError) -> None:
        """Answer the request that is being received with an error, and close."""
        self._is_closing = True
        self._drop_input()
        if self.is_answering():
            self._mark_disconnected()
            if self.cycle.response_started:
                self.transport.close()
                return
        headers, body = self._hooks.reject(error, self.client[0] if self.client else None, self.url)
        lines = [b"%b: %b\r\n" % header for header in [*self.server_state.default_headers, *headers, CLOSE]]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))
        self.transport.close()

    def _drop_input(self) -> None:
        self._early_input.clear()
        self._kept.clear()

    def _mark_disconnected(self) -> None:
        """Drop the rest of the response: uvloop treats a write to a closed connection as an error."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _drop_response(self) -> None:
        if self.is_answering():
            self._mark_disconnected()
        self.transport.abort()

    def _close_after_response(self) -> None:
        """Make the current response the last, and discard all further input."""
        self._is_closing = True
        self._early_input.clear()
        if self.is_answering():
            self.flow.pause_reading()
            self.cycle.keep_alive = False
            own = self.transport
            gentle = SimpleNamespace(write=own.write, is_closing=own.is_closing, close=self._close_gently)
            self.cycle.transport = cast("asyncio.Transport", gentle)

    def _close_gently(self) -> None:
        """Send FIN and discard input for a while: closing with unread input would reset the connection.

        A reset can destroy the part of the response that is still on its way (RFC 9112, section 9.6).
        """
        if self._has_ended or self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._clock.start(Awaiting.END, time.perf_counter())
        self.transport.write_eof()
        self.flow.resume_reading()

    def _check_deadlines(self) -> None:
        now = time.perf_counter()
        self._count_buffers()
        if self._response_clock.is_late(now):
            self._drop_response()
        elif self._clock.awaiting is Awaiting.BODY:
            self._body_clock.advance(now, self._body_bytes - self._checked_bytes)
            self._checked_bytes = self._body_bytes
            if self._body_clock.is_late(now):
                most = f"{self._hooks.transfer_grace:g} s behind {MIN_BYTES_PER_SECOND} bytes per second"
                self._reject(ProtocolError("TooSlow", f"The body arrived too slowly. It may fall {most}."))
        elif self._clock.awaiting is Awaiting.END and self.transport.get_write_buffer_size():
            self._clock.since = now  # FIN is not sent yet.
        elif self._clock.is_overdue(now):
            self._end_wait()
        if not self.transport.is_closing():
            self._check = self.loop.call_later(CHECK_SECONDS, self._check_deadlines)

    def _end_wait(self) -> None:
        if self._clock.awaiting is Awaiting.HEADERS and self._overhead_bytes:
            self._reject(ProtocolError("TooSlow", f"The headers took longer than {self._clock.header_timeout:g} s."))
        else:
            self.transport.close()

    def _count_buffers(self) -> None:
        """Reserve memory for everything that is buffered for this connection."""
        size = len(self._early_input) + len(self._kept) + self.transport.get_write_buffer_size()
        if self._clock.awaiting is Awaiting.HEADERS:
            size += self._overhead_bytes
        if self.cycle is not None:
            size += len(self.cycle.body)
        if size >= PAGE_BYTES or self._reserved:
            self._reserve(size)

    def _reserve(self, size: int) -> None:
        """Reserve `size` bytes instead of those reserved now; end the request or the response if none are left."""
        size -= size % PAGE_BYTES
        if size == self._reserved:
            return
        if self._hooks.reserve(self._reserved, size):
            self._reserved = size
        elif self.transport.get_write_buffer_size() > PAGE_BYTES:
            self._drop_response()  # The client does not read it.
        elif self._clock.awaiting is Awaiting.NOTHING:
            self._close_after_response()
        elif not self._is_closing:
            self._reject(ProtocolError("WorkerBusy"))
