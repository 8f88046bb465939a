"""Requests of a connection: parse, admit, then answer on the fast path or pass to uvicorn."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import httptools

from app.server.clocks import Awaiting
from app.server.connection import CLOSE, BoundedConnection
from app.server.forwarded import forwarded_prefix, trusts
from app.server.hooks import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES, FastPath, Match, ProtocolError

# Bytes parsed per slice, to bound what one read adds before the limits are checked.
SLICE_BYTES = 16 << 10
# Bytes without a complete head, or without more of the body, after which a request is rejected.
MAX_OVERHEAD_BYTES = 2 * MAX_HEAD_BYTES

NO_FAST_PATHS: Mapping[bytes, FastPath] = MappingProxyType({})

_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%-]*(?::\d{0,5})?|\[[0-9A-Fa-f:.]+\](?::\d{0,5})?")
_BODY_HEADERS = {b"content-length", b"transfer-encoding"}


class BoundedHttpProtocol(BoundedConnection):
    """Keeps a request that is eligible for the fast path until its body is complete, and passes others to uvicorn.

    Requests are not pipelined: if another one arrives before the response to the first has begun, that response has
    the header `Connection: close` and is the last.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        fast_paths: Mapping[bytes, FastPath] = self.app_state["fast_paths"]
        logs_each = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        self._fast_paths = NO_FAST_PATHS if logs_each else fast_paths
        # Per connection
        self._usual_root_path = self.root_path
        self._is_proxy = False  # A proxy whose headers are believed is connected.
        # Per request
        self._fast_path: FastPath | None = None  # that of the request's target
        self._head_bytes = 0  # bytes of complete headers
        self._hosts = 0
        self._has_other_coding = False  # a Transfer-Encoding other than chunked
        self._match: Match | None = None  # set while the request is eligible for the fast path
        self._answer: tuple[bytes, bytes] | None = None  # response of the fast path, not yet written

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self._is_proxy = trusts(self.app, self.client)

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        self._unset_keepalive_if_required()
        if self._clock.awaiting is Awaiting.NOTHING:
            self._hold(data)
        elif len(data) <= SLICE_BYTES:
            self._parse(data)
        else:
            view = memoryview(data)
            for start in range(0, len(data), SLICE_BYTES):
                if not self._is_closing:
                    self._parse(view[start : start + SLICE_BYTES])
        if self._reserved or self._clock.awaiting is not Awaiting.REQUEST:  # else nothing is buffered
            self._count_buffers()

    def _hold(self, data: bytes) -> None:
        """Take input that arrives before the response is complete.

        If the response has begun, the client may already have all of it and send its next request.
        """
        self.flow.pause_reading()
        if self.cycle.response_started:
            self._early_input += data
        else:
            self._close_after_response()

    def _parse(self, data: bytes | memoryview) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing can be upgraded to: the request is answered as it is, and what follows cannot be parsed.
            if self.is_answering():
                self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            if self._clock.awaiting is Awaiting.NOTHING:  # The request is complete, and more follows it.
                self._close_after_response()
            else:
                reason = error.__context__
                self._reject(reason if isinstance(reason, ProtocolError) else ProtocolError("MalformedRequest"))
        if self._answer is not None:
            self._write_answer(*self._answer)
        else:
            self._limit_overhead(len(data))

    def _limit_overhead(self, count: int) -> None:
        """Count received bytes that are not part of the body."""
        self._overhead_bytes += count
        if self._overhead_bytes <= MAX_OVERHEAD_BYTES or self._is_closing:
            return
        if self._clock.awaiting is Awaiting.BODY or (self._clock.awaiting is Awaiting.HEADERS and self.headers):
            self._reject(ProtocolError("HeadersTooLarge"))
        elif self._clock.awaiting is Awaiting.HEADERS:
            self._reject(ProtocolError("TargetTooLong"))

    def on_message_begin(self) -> None:
        clock = self._clock
        if clock.awaiting is Awaiting.NOTHING:
            raise ProtocolError("MalformedRequest")  # stops the parser
        super().on_message_begin()
        clock.awaiting, clock.since = Awaiting.HEADERS, time.perf_counter()
        self._response_clock.restart(None)
        self._head_bytes = self._overhead_bytes = self._body_bytes = self._checked_bytes = self._hosts = 0
        self._has_other_coding = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._clock.awaiting is not Awaiting.HEADERS:
            return  # Trailers are ignored, so that none can pass for a header.
        name = name.lower()
        self._head_bytes += len(name) + len(value)
        if name == b"host":
            self._hosts += 1 if is_host(value) else 2
        elif name == b"transfer-encoding":
            self._has_other_coding |= value.lower() != b"chunked"
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        clock = self._clock
        clock.awaiting, clock.since = Awaiting.BODY, time.perf_counter()
        self._body_clock.restart(clock.since)
        self._overhead_bytes = 0
        version = self.parser.get_http_version()
        self._check_head(version)
        fast_path = self._fast_path = self._fast_paths.get(self.url)
        if (
            fast_path is not None
            and self.parser.get_method() == b"POST"
            and self.parser.should_keep_alive()
            and version == "1.1"
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
            and not self._stopping.is_set()
        ):
            self._match = fast_path.match(self.headers)
        if self._match is None:
            self._begin()

    def _check_head(self, version: str) -> None:
        """Raise ProtocolError if the head of the request is not acceptable."""
        if version not in ("1.0", "1.1"):
            raise ProtocolError("MalformedRequest")
        if self.parser.should_upgrade() and any(name in _BODY_HEADERS for name, _ in self.headers):
            raise ProtocolError("UpgradeRefused")
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            raise ProtocolError("MalformedRequest", "Exactly one Host header, with the name of a host, is expected.")
        if self._has_other_coding:
            raise ProtocolError("MalformedRequest", "The only supported Transfer-Encoding is chunked.")
        if len(self.url) > MAX_TARGET_BYTES:
            raise ProtocolError("TargetTooLong")
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            raise ProtocolError("HeadersTooLarge")
        if self._is_excess and not self._admission.admits(self.url, len(self.connections)):
            raise ProtocolError("TooManyConnections")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._overhead_bytes = 0
        if self._match is None:
            super().on_body(body)
            return
        self._kept += body
        if self._fast_path is not None and len(self._kept) > self._fast_path.max_bytes:
            self._fall_back()

    def on_message_complete(self) -> None:
        self._clock.awaiting = Awaiting.NOTHING
        if self._match is not None and self._fast_path is not None:
            if not self._stopping.is_set():  # Otherwise, the response needs `Connection: close`.
                request_id, json_bytes = self._match
                body, started, headers = bytes(self._kept), self._clock.since, self.server_state.default_headers
                self._answer = self._fast_path.answer(body, request_id, started, headers, json_bytes)
            if self._answer is not None:
                return
            self._fall_back()
        super().on_message_complete()
        if not self.is_answering():  # The response did not wait for the body.
            self._clock.start(Awaiting.REQUEST, time.perf_counter())

    def _write_answer(self, head: bytes, body: bytes) -> None:
        """Write the response of the fast path."""
        self._answer = self._match = None
        self._kept.clear()
        self.server_state.total_requests += 1
        if self._is_closing:
            self.transport.writelines([head[:-2], b"%b: %b\r\n\r\n" % CLOSE, body])
            self._close_gently()
        else:
            self._clock.awaiting = Awaiting.REQUEST
            self.transport.writelines([head, body])

    def _begin(self) -> None:
        """Pass the request to uvicorn."""
        prefix = forwarded_prefix(self.headers) if self._is_proxy else None
        self.root_path = self.scope["root_path"] = self._usual_root_path if prefix is None else prefix
        super().on_headers_complete()
        # The response has `Connection: close` if the worker stops, so that the client asks another one, and if the
        # client waits for `100 Continue`, because then it may never send the body.
        if self._stopping.is_set() or self.expect_100_continue:
            self.cycle.keep_alive = False

    def _fall_back(self) -> None:
        """Pass a request that is not eligible after all to uvicorn, with the part of its body that is here."""
        self._match = None
        self._begin()
        if self._kept:
            super().on_body(bytes(self._kept))
        self._kept.clear()

    def _drop_input(self) -> None:
        super()._drop_input()
        self._match = None

    def on_response_complete(self) -> None:
        if self._is_closing:
            self.server_state.total_requests += 1
            return
        if self._clock.awaiting is Awaiting.NOTHING:
            self._clock.start(Awaiting.REQUEST, time.perf_counter())
        super().on_response_complete()
        if self._reserved:
            self._count_buffers()
        if self._early_input and not self.transport.is_closing():
            early, self._early_input = bytes(self._early_input), bytearray()
            self.data_received(early)
        if self._has_ended and not self.is_answering():
            self.transport.close()

    def _should_upgrade_to_ws(self) -> bool:
        return False

    def shutdown(self) -> None:
        if self._match is not None:
            self._fall_back()
        super().shutdown()


@lru_cache(128)  # Clients send few different hosts.
def is_host(value: bytes) -> bool:
    return bool(value and _HOST.fullmatch(value))
