"""A connection: uvicorn's, with limits and deadlines it has no settings for, and the lane of ordinary predictions."""

import asyncio
import logging
import re
import time
from enum import Enum, auto
from functools import lru_cache
from typing import Any, cast

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.logs import request_id
from app.web.fast_path import PredictFastPath
from app.web.middleware import REQUEST_ID, SECURITY_HEADERS, new_id
from app.web.problems import problem_response
from app.web.state import Services

MAX_TARGET_BYTES = 8 << 10
MAX_HEAD_BYTES = 32 << 10
MAX_HEADERS = 100
MIN_BYTES_PER_SECOND = 10_000  # of a body, or of a long answer, but for the seconds that it may fall behind
BUFFERED_BYTES = 48 << 10  # that asyncio lets go of, by default, between a stall's beginning and its end
SLICE_BYTES = 16 << 10  # that are parsed at once, so that few requests wait behind one that is being answered
PAGE_BYTES = 4 << 10  # Smallest change of what is buffered for a connection that is counted.
CHECK_SECONDS = 1.0  # between looks at a connection's deadline
SPARE_CONNECTIONS = 256  # beyond the limit, for probes and for the news that there are too many; then the oldest go
LAST_SECONDS = 1.0  # in which a stopping worker still answers a request on a connection that was idle
HURRIED_SECONDS = 1.0  # that those have to come up with a request
PROBES = {b"/health/live", b"/health/ready", b"/metrics"}

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%-]*(?::\d{0,5})?|\[[0-9A-Fa-f:.]+\](?::\d{0,5})?")
_OF_BODIES = {b"content-length", b"transfer-encoding"}
_log = logging.getLogger("app.requests")


class _Awaiting(Enum):
    """What a caller has to send next."""

    REQUEST = auto()
    HEADERS = auto()
    BODY = auto()
    NOTHING = auto()  # it is our turn


class _ProtocolError(Exception):
    """Raised while a request is parsed, which ends the connection."""

    def __init__(self, status: int, name: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.name, self.detail = status, name, detail


class Connection(HttpToolsProtocol):
    """A request that may be ordinary waits here for its body; any other is uvicorn's as soon as its headers are there.

    Deadlines are absolute: a caller that sends a byte now and then gains nothing.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._services: Services = self.app_state["services"]
        self._stopping = self._services.stopping
        lane: PredictFastPath | None = self.app_state.get("lane")
        logs_each = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        self._lane = lane if lane is not None and lane.is_open and not logs_each else None
        self._watching: asyncio.TimerHandle | None = None
        self._over_limit = False  # beyond the limit when it came
        self._excess_connections: dict[Connection, None] = self.app_state.setdefault(
            "latecomers", {}
        )  # of all those, in turn
        self._expected = _Awaiting.HEADERS
        self._since = 0.0  # by time.perf_counter
        self._stalled: float | None = None  # since when the caller does not take its answer
        self._answer_behind = 0.0  # seconds that it is behind the least rate, with stalls that are over
        self._body_behind = 0.0  # likewise the caller's body,
        self._watched_bytes = 0  # of which so much had come when it was looked at last
        self._pending_input = bytearray()  # what came behind a request that is being answered
        self._reserved = 0  # Bytes of the memory budget for what is buffered here, in whole PAGE_BYTES.
        self._refused: _ProtocolError | None = None  # to be said after what is being answered
        self._earlier: RequestResponseCycle  # that is being answered while another waits in the pipeline
        self._has_ended = False  # the caller sends nothing more
        # Of the request that is coming:
        self._head_bytes = 0  # of names and values of its headers
        self._before_body_bytes = 0  # however little of them is complete
        self._body_bytes = 0
        self._between_bytes = 0  # since there was some of the body: of chunks' extensions, or of trailers
        self._hosts = 0
        self._is_coded = False  # by another Transfer-Encoding than chunks
        self._fast_path_request_id: bytes | None = None  # its id, if it is ordinary so far
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self._since = time.perf_counter()
        self._watching = self.loop.call_later(CHECK_SECONDS, self._watch)
        excess = len(self.connections) - self._services.limits.connections
        if excess > 0:
            self._over_limit = True
            self._excess_connections[self] = None
        if excess > SPARE_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._excess_connections.pop(self, None)
        super().connection_lost(exc)
        self._pending_input.clear()
        self._body.clear()
        self._reserve(0)

    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio's
        """A caller that says nothing more still gets the answers to what it asked."""
        self._has_ended = True
        if self._is_answering() and self.cycle.more_body:  # the last of it will never be whole
            if not self.pipeline:
                self._mark_disconnected()
                return False
            self._drop_pipelined()
        return self._is_answering()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._must_hold():
            self._hold(data)
        elif len(data) <= SLICE_BYTES:
            self._parse(data)
        else:
            self._feed_slices(data)
        if self._reserved or self._expected is not _Awaiting.REQUEST:  # An ordinary request that came whole is gone.
            self._count_buffers()

    def _count_buffers(self) -> None:
        """Reserve memory for what is buffered for this connection; refuse its request if there is none."""
        cycle = self.cycle
        size = len(self._pending_input) + self.transport.get_write_buffer_size()
        if self._expected is _Awaiting.HEADERS:
            size += self._before_body_bytes
        elif self._fast_path_request_id is not None:
            size += self._body_bytes
        if cycle is not None:
            size += len(cycle.body)
        if size >= PAGE_BYTES or self._reserved:
            self._reserve(size)

    def _reserve(self, size: int) -> None:
        size -= size % PAGE_BYTES
        if size == self._reserved:
            return
        if self._services.memory.buffered(self._reserved, size):
            self._reserved = size
        elif self.transport.get_write_buffer_size() > PAGE_BYTES:
            self._drop_answers()  # The client does not read what it asked for.
        elif self._refused is None:
            self._refuse(self._no_memory())

    def _drop_answers(self) -> None:
        if self._is_answering():
            self._mark_disconnected()
        self.transport.abort()

    def _feed_slices(self, data: bytes) -> None:
        """Feed the parser bit by bit, and stop where a request has to be answered before the next is looked at."""
        view = memoryview(data)
        for start in range(0, len(data), SLICE_BYTES):
            if self._must_hold():
                self._hold(view[start:])
                return
            self._parse(view[start : start + SLICE_BYTES])

    def _must_hold(self) -> bool:
        """Whether an earlier request is still to be answered, or nothing is to be read any more."""
        return self._refused is not None or bool(self.pipeline) or (self._is_answering() and not self.cycle.more_body)

    def _hold(self, data: bytes | memoryview) -> None:
        self.flow.pause_reading()
        if self._refused is None:
            self._pending_input += data

    def _parse(self, data: bytes | memoryview) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # There is nothing to upgrade to, so the request is answered as it is; what follows cannot be read.
            if self._is_answering():
                self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            self._refuse(
                error.__context__
                if isinstance(error.__context__, _ProtocolError)
                else _ProtocolError(400, "MalformedRequest", "What came is not a request of HTTP/1.1.")
            )
        else:
            if self._expected is _Awaiting.HEADERS:
                self._before_body_bytes += len(data)
                if self._before_body_bytes > 2 * MAX_HEAD_BYTES:
                    self._refuse(self._too_large() if self.headers else self._too_long())
            elif self._expected is _Awaiting.BODY:
                self._between_bytes += len(data)
                if self._between_bytes > 2 * MAX_HEAD_BYTES:
                    self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expected = _Awaiting.HEADERS
        self._since = time.perf_counter()
        self._head_bytes = self._before_body_bytes = self._body_bytes = self._between_bytes = self._hosts = 0
        self._body_behind = self._answer_behind = 0.0
        self._watched_bytes = 0
        self._is_coded = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._expected is not _Awaiting.HEADERS:
            return  # a trailer: nothing here heeds one, and none may pass for a header
        name = name.lower()
        self._head_bytes += len(name) + len(value)
        if name == b"host":
            self._hosts += 1 if _is_host(value) else 2
        elif name == b"transfer-encoding":
            self._is_coded |= value.lower() != b"chunked"
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._expected = _Awaiting.BODY
        self._since = time.perf_counter()
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _ProtocolError(400, "MalformedRequest", "What came is not a request of HTTP/1.1.")
        if self.parser.should_upgrade() and any(name in _OF_BODIES for name, _ in self.headers):
            raise _ProtocolError(400, "UpgradeRefused", "A request with a body cannot ask for another protocol here.")
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            raise _ProtocolError(400, "MalformedRequest", "One Host header is expected, with a host's name in it.")
        if self._is_coded:
            raise _ProtocolError(400, "MalformedRequest", "No Transfer-Encoding but chunked is read here.")
        if len(self.url) > MAX_TARGET_BYTES:
            raise self._too_long()
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            raise self._too_large()
        if self._over_limit and len(self.connections) > self._services.limits.connections and self.url not in PROBES:
            raise self._too_many()
        lane = self._lane
        if (
            lane is not None
            and self.url == lane.target
            and self.parser.get_method() == b"POST"
            and not self._is_answering()
            and self.parser.should_keep_alive()
            and version == "1.1"
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
            and not self._stopping.is_set()
        ):
            self._fast_path_request_id = lane.match(self.headers)
            if self._fast_path_request_id is not None:
                self._body = []
                return
        self._begin()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._between_bytes = 0
        if self._fast_path_request_id is None:
            super().on_body(body)
            return
        self._body.append(body)
        if self._body_bytes > PredictFastPath.max_bytes:
            self._fall_back()

    def on_message_complete(self) -> None:
        self._expected = _Awaiting.NOTHING
        if self._fast_path_request_id is not None and self._stopping.is_set():
            self._fall_back()  # its headers came just before the stop, and its answer has to say so
        if self._fast_path_request_id is not None and self._lane is not None:
            common = self.server_state.default_headers
            answer = self._lane.answer(b"".join(self._body), self._fast_path_request_id, self._since, common)
            if answer is not None:
                self._fast_path_request_id = None
                self._expected = _Awaiting.REQUEST
                self.server_state.total_requests += 1
                self.transport.writelines(answer)
                return
            self._fall_back()
        super().on_message_complete()
        if not self._is_answering():  # the answer did not wait for the body
            self._expected = _Awaiting.REQUEST
            self._since = time.perf_counter()

    def on_response_complete(self) -> None:
        if self._expected is _Awaiting.NOTHING:
            self._expected = _Awaiting.REQUEST
            self._since = time.perf_counter()
        is_last = not self.pipeline
        super().on_response_complete()
        if self._reserved:
            self._count_buffers()
        if self.transport.is_closing():
            return
        if self._refused is not None:
            if is_last:
                self._send_error(self._refused)
        elif self._pending_input and not self._must_hold():
            held, self._pending_input = bytes(self._pending_input), bytearray()
            self.data_received(held)
        elif self.pipeline:
            self.flow.pause_reading()
        elif self._has_ended and not self._is_answering():
            self.transport.close()

    def _should_upgrade_to_ws(self) -> bool:
        return False

    def shutdown(self) -> None:
        """A request under way is still answered, and so is one on its way, which closing at once would lose."""
        if self._fast_path_request_id is not None:
            self._fall_back()
        if self._is_answering():
            super().shutdown()
        else:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(LAST_SECONDS, self.timeout_keep_alive_handler)

    def pause_writing(self) -> None:
        self._stalled = time.perf_counter()
        super().pause_writing()
        self._count_buffers()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            stalled = time.perf_counter() - self._stalled
            self._answer_behind = max(0.0, self._answer_behind + stalled - BUFFERED_BYTES / MIN_BYTES_PER_SECOND)
            self._stalled = None
        super().resume_writing()
        if self._reserved:
            self._count_buffers()

    def _begin(self) -> None:
        earlier = self.cycle
        super().on_headers_complete()
        if self.pipeline:
            self._earlier = earlier
        # The answer says `Connection: close`: of a worker that stops, so that the caller asks another; of a caller that
        # waits to be told to send its body, since it may send none after all.
        if (self._stopping.is_set() or self.expect_100_continue) and self._is_answering():
            self.cycle.keep_alive = False

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _drop_pipelined(self) -> None:
        """The request behind the one that is being answered will not be whole."""
        self.pipeline.popleft()
        self.cycle = self._earlier

    def _make_room(self) -> None:
        """Give up the latecomer that has waited longest to be asked something: a probe asks as soon as it is there."""
        longest = next((one for one in self._excess_connections if not one._is_answering()), self)  # noqa: SLF001 - its kind
        del self._excess_connections[longest]
        longest._refuse(self._too_many())  # noqa: SLF001

    def _mark_disconnected(self) -> None:
        """Nobody is to hear the answer: what is written to a closed connection is a fault to uvloop."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _fall_back(self) -> None:
        """The request is not so ordinary: from here on it is as if it had been uvicorn's from the start."""
        self._fast_path_request_id = None
        self._begin()
        if self._body:
            super().on_body(b"".join(self._body))

    def _watch(self) -> None:
        """End what takes too long."""
        limits = self._services.limits
        waited = time.perf_counter() - self._since
        stalled = self._answer_behind + (time.perf_counter() - self._stalled if self._stalled is not None else 0)
        self._count_buffers()
        if stalled > limits.transfer_grace:
            self._drop_answers()
        elif self._refused is not None:
            pass  # it is said as soon as the answers before it are
        elif self._expected is _Awaiting.REQUEST and waited > self.timeout_keep_alive:
            self.transport.close()
        elif self._expected is _Awaiting.HEADERS and waited > (
            HURRIED_SECONDS if self._over_limit else limits.header_timeout
        ):
            if self._before_body_bytes == 0:
                self.transport.close()
            else:
                self._refuse(_ProtocolError(408, "TooSlow", f"The headers took over {limits.header_timeout:g} s."))
        elif self._expected is _Awaiting.BODY and self._falls_behind():
            most = f"{limits.transfer_grace:g} s behind {MIN_BYTES_PER_SECOND} bytes a second"
            self._refuse(_ProtocolError(408, "TooSlow", f"The body came too slowly: it may fall {most}."))
        if not self.transport.is_closing():
            self._watching = self.loop.call_later(CHECK_SECONDS, self._watch)

    def _falls_behind(self) -> bool:
        """Whether the body is too late by now. Nobody saves up time by sending much at first."""
        came = self._body_bytes - self._watched_bytes
        self._watched_bytes = self._body_bytes
        self._body_behind = max(0.0, self._body_behind + CHECK_SECONDS - came / MIN_BYTES_PER_SECOND)
        return self._body_behind > self._services.limits.transfer_grace

    def _refuse(self, refused: _ProtocolError) -> None:
        """Say what is wrong with the request that is coming, after the answers to those before it, and close."""
        self._fast_path_request_id = None
        self._refused = refused
        self._pending_input.clear()
        self._body.clear()
        if not self._is_answering():
            self._send_error(refused)
        elif not self.cycle.more_body:
            self.flow.pause_reading()  # it came behind others
        elif self.pipeline:
            self._drop_pipelined()
        else:
            self._mark_disconnected()
            if self.cycle.response_started:
                self.transport.close()
            else:
                self._send_error(refused)

    def _send_error(self, refused: _ProtocolError) -> None:
        identity = new_id()
        token = request_id.set(identity.decode())
        answer = problem_response(refused.status, refused.name, refused.detail)
        request_id.reset(token)
        self._services.metrics.answered("other", "none", refused.status, 0.0)
        said = {"request_id": identity.decode(), "status": refused.status, "reason": refused.detail}
        _log.info("refused", extra={**said, "client": self.client[0] if self.client else None})
        self._write(answer, identity)
        self.transport.close()

    def _write(self, answer: Response, identity: bytes) -> None:
        own = [*answer.raw_headers, (REQUEST_ID, identity), *SECURITY_HEADERS, (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % header for header in [*self.server_state.default_headers, *own]]
        self.transport.write(b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", cast("bytes", answer.body)]))

    def _too_large(self) -> _ProtocolError:
        most = f"{MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes"
        return _ProtocolError(431, "HeadersTooLarge", f"A request has at most {most} of them.")

    def _too_long(self) -> _ProtocolError:
        return _ProtocolError(414, "TargetTooLong", f"A path and its query have at most {MAX_TARGET_BYTES} bytes.")

    def _no_memory(self) -> _ProtocolError:
        return _ProtocolError(
            503, "WorkerBusy", "Other requests use the memory of this worker. Send this one again later."
        )

    def _too_many(self) -> _ProtocolError:
        return _ProtocolError(503, "TooManyConnections", "There are too many connections. Try again later.")


@lru_cache(128)  # callers name a few
def _is_host(value: bytes) -> bool:
    return bool(value and _HOST.fullmatch(value))
