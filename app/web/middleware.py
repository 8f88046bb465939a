"""Give every request an id, a log line, a count in the metrics, security headers, and a problem if a bug occurs."""

import asyncio
import logging
import random
import re
import time
from typing import Any

from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import request_id
from app.web.problems import INTERNAL_ERROR, problem_response
from app.web.state import Services

OK = 200
SERVER_ERROR = 500
# For browsers: a response is what its content type says, and it loads and runs nothing (the documentation page sets a
# policy of its own). Other sites can neither embed nor read it, and proxies do not store it.
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"private, no-cache"),
]
# Bytes of a body written at a time. The server waits between two writes for a slow client.
SLICE_BYTES = 1 << 18
REQUEST_ID = b"x-request-id"
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}

_log = logging.getLogger("app.requests")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class QuietRoute(APIRoute):
    """A route whose successful requests are logged only if LINSERVE_LOG_PREDICTIONS is set."""


class RequestContextMiddleware:
    """An ASGI middleware. The request id is the client's X-Request-ID if that is valid, otherwise a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        valid = (kept_id(value) for name, value in scope["headers"] if name == REQUEST_ID)
        identity = next(filter(None, valid), None) or new_id()
        token = request_id.set(identity.decode())
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (REQUEST_ID, identity)]
                own = {name for name, _ in headers}
                message["headers"] = headers + [header for header in SECURITY_HEADERS if header[0] not in own]
            await _send_in_slices(send, message)

        try:
            await self.app(scope, receive, send_with_id)
        except asyncio.CancelledError:  # The graceful shutdown timed out.
            if status == 0:
                await problem_response(503, "Unavailable", "The service is stopping.")(scope, receive, send_with_id)
        except Exception:
            _log.exception("request failed")
            if status == 0:
                await problem_response(*INTERNAL_ERROR)(scope, receive, send_with_id)
        finally:
            _finish(scope, status, time.perf_counter() - started, identity)
            request_id.reset(token)


async def _send_in_slices(send: Send, message: Message) -> None:
    """Send a long body and return when the client has received nearly all of it: its memory is reserved until then."""
    body = message.get("body", b"")
    if len(body) <= SLICE_BYTES:
        await send(message)
        return
    view = memoryview(body)
    for start in range(0, len(body), SLICE_BYTES):
        await send({"type": message["type"], "body": view[start : start + SLICE_BYTES], "more_body": True})
    await send({"type": message["type"], "body": b"", "more_body": message.get("more_body", False)})


def kept_id(value: bytes) -> bytes | None:
    """Return the client's request id, or None if it is not valid."""
    return value if _ID.fullmatch(value) else None


def new_id() -> bytes:
    # An id is not a secret, so it need not cost a system call.
    return b"%032x" % random.getrandbits(128)


def _finish(scope: Scope, status: int, seconds: float, identity: bytes) -> None:
    """Log and count an answered request, and release its memory."""
    route = scope.get("route")
    state: dict[str, Any] = scope.get("state", {})
    services: Services | None = state.get("services")
    if services is None:
        return
    if "memory" in state:
        state["memory"].release_all()
    if status != OK or not isinstance(route, QuietRoute) or services.logs_predictions:
        _log_request(scope, status, seconds, identity)
    method = scope["method"] if scope["method"] in METHODS else "other"
    services.metrics.answered(method, getattr(route, "path", "none"), status, seconds)


def _log_request(scope: Scope, status: int, seconds: float, identity: bytes) -> None:
    state: dict[str, Any] = scope["state"]
    problem: dict[str, Any] | None = state.get("problem")
    client = scope.get("client")
    _log.log(
        logging.WARNING if status >= SERVER_ERROR else logging.INFO,
        "request",
        extra={
            "request_id": identity.decode(),
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 3),
            "client": client[0] if client else None,
            "caller": state.get("caller"),  # the name of the key
            **({"job": state["job"]} if "job" in state else {}),
            **({"problem": problem["title"], "reason": problem["detail"]} if problem else {}),
        },
    )
