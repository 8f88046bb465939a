"""A connection: uvicorn's, with the lane for ordinary predictions in it, and an end that a caller is told of."""

import asyncio
import logging
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.web.predict_lane import PredictLane
from app.web.services import Services

LAST_SECONDS = 1.0  # in which a stopping worker still answers a request on a connection that was idle


class Connection(HttpToolsProtocol):
    """A request that may be ordinary waits here for its body; any other is uvicorn's at once."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        lane: PredictLane | None = self.app_state.get("lane")
        services: Services | None = self.app_state.get("services")
        self._stopping = services.stopping if services else asyncio.Event()
        logs_each = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        self._lane = lane if lane is not None and lane.is_open and not logs_each else None
        self._ordinary: bytes | None = None  # the id of the request that is coming, if it is ordinary so far
        self._started = 0.0
        self._body: list[bytes] = []
        self._length = 0

    def on_headers_complete(self) -> None:
        lane = self._lane
        if (
            lane is not None
            and self.url == lane.target
            and self.parser.get_method() == b"POST"
            and not self._is_answering()
            and self.parser.should_keep_alive()
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
            and not self._stopping.is_set()
        ):
            self._ordinary = lane.identity(self.headers)
            if self._ordinary is not None:
                self._started = time.perf_counter()
                self._body = []
                self._length = 0
                return
        self._begin()

    def on_body(self, body: bytes) -> None:
        if self._ordinary is None:
            super().on_body(body)
            return
        self._body.append(body)
        self._length += len(body)
        if self._length > PredictLane.most_bytes:
            self._hand_on()

    def on_message_complete(self) -> None:
        if self._ordinary is not None and self._lane is not None:
            common = self.server_state.default_headers
            answer = self._lane.answer(b"".join(self._body), self._ordinary, self._started, common)
            if answer is not None:
                self._ordinary = None
                self.server_state.total_requests += 1
                self.transport.writelines(answer)
                return
            self._hand_on()
        super().on_message_complete()

    def shutdown(self) -> None:
        """A request under way is still answered, and so is one on its way, which closing at once would lose."""
        if self._ordinary is not None:
            self._hand_on()
        if self._is_answering():
            super().shutdown()
        else:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(LAST_SECONDS, self.timeout_keep_alive_handler)

    def _begin(self) -> None:
        super().on_headers_complete()
        if self._stopping.is_set() and self._is_answering():
            self.cycle.keep_alive = False  # the answer says `Connection: close`, so that the caller asks another worker

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _hand_on(self) -> None:
        """The request is not so ordinary: from here on it is as if it had been uvicorn's from the start."""
        self._ordinary = None
        self._begin()
        if self._body:
            super().on_body(b"".join(self._body))
