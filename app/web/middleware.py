"""Around every request: its id, its line in the log, its place in the metrics; and what happens to faults of ours."""

import logging
import re
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import request_id
from app.web.errors import server_error
from app.web.services import Services

METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}

_log = logging.getLogger("app.requests")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestContext:
    """An ASGI middleware. A caller's X-Request-ID is kept where it is one, and answered in any case."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        identity = _given_id(scope) or uuid.uuid4().hex.encode()
        token = request_id.set(identity.decode())
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", identity)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            _log.exception("request failed")
            if status == 0:
                await server_error()(scope, receive, send_with_id)
        finally:
            self._note(scope, status, time.perf_counter() - started)
            request_id.reset(token)

    @staticmethod
    def _note(scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        _log.info(
            "request",
            extra={
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "ms": round(1000 * seconds, 3),
                "client": _client(scope),
            },
        )
        state: dict[str, Any] = scope.get("state", {})
        services: Services | None = state.get("services")
        if services is not None:
            method = scope["method"] if scope["method"] in METHODS else "other"
            services.metrics.answered(method, route, status, seconds)


def _given_id(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            found: bytes = value
            return found
    return None


def _client(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None
