"""The ASGI middleware: request ids, the log, metrics, security headers, HEAD, and the path prefix of a proxy."""

import asyncio
import logging
import random
import re
import time
from collections.abc import Collection
from typing import Any

import anyio
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import request_id
from app.web.paths import prefix
from app.web.problems import INTERNAL_ERROR, Render, problem_response
from app.web.state import Services
from app.web.trace_context import trace_fields

OK = 200
CLIENT_ERROR, SERVER_ERROR = 400, 500
# Status, name and detail of the problem for a request that the graceful shutdown cancels.
STOPPING = (503, "Unavailable", "The service is stopping.")
# Statuses that are not counted for a model: the client disconnected, or may not predict.
_NOT_COUNTED = (0, 401, 403)
# Browsers guess no content types, and load and run nothing in a response (the documentation page has its own policy).
# Other sites can neither embed nor read a response. Proxies do not store it.
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"private, no-cache"),
]
# A path may have a page and a response for programs. Caches, and browsers that go back, must not mix them.
_CACHEABLE = ("GET", "HEAD")
VARY = (b"vary", b"accept, linserve-fragment")
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

    def __init__(self, app: ASGIApp, render: Render) -> None:
        """`render` makes the response if the shutdown cancels a request, or if it raises an unexpected error."""
        self.app = app
        self._render = render

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
                defaults = (*SECURITY_HEADERS, VARY) if scope["method"] in _CACHEABLE else SECURITY_HEADERS
                message["headers"] = headers + [header for header in defaults if header[0] not in own]
            await _send_in_slices(send, message)

        try:
            await self.app(scope, receive, send_with_id)
        except asyncio.CancelledError:  # The graceful shutdown timed out.
            if status == 0:
                await self._problem(scope, *STOPPING)(scope, receive, send_with_id)
        except Exception:
            _log.exception("request failed")
            if status == 0:
                await self._problem(scope, *INTERNAL_ERROR)(scope, receive, send_with_id)
        finally:
            _finish(scope, status, time.perf_counter() - started, identity)
            request_id.reset(token)

    def _problem(self, scope: Scope, status: int, name: str, detail: str) -> Response:
        return problem_response(Request(scope), self._render, status, name, detail)


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
    if "received" in state:
        state["received"].release()
    if "memory" in state:
        state["memory"].release_all()
    if status != OK or not isinstance(route, QuietRoute) or services.logs_predictions:
        _log_request(scope, status, seconds, identity)
    method = scope["method"] if scope["method"] in METHODS else "other"
    services.metrics.answered(method, getattr(route, "path_format", "none"), status, seconds)
    if isinstance(route, QuietRoute) and status not in _NOT_COUNTED:
        named = state.get("model", services.default_model)  # by a header or in the body
        model = scope.get("path_params", {}).get("model", named)
        services.monitor.answered(model, failed=status >= CLIENT_ERROR)


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
            **trace_fields(scope["headers"]),
            **({"job": state["job"]} if "job" in state else {}),
            **({"problem": problem["title"], "reason": problem["detail"]} if problem else {}),
        },
    )


class HeadMiddleware:
    """An ASGI middleware: HEAD is GET without the body. A streamed body is cancelled."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        get = {**scope, "method": "GET"}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})
            elif message.get("more_body", False):
                answering.cancel()

        with anyio.CancelScope() as answering:
            try:
                await self.app(get, receive, send_head)
            finally:
                if "route" in get:
                    scope["route"] = get["route"]  # for the metrics


class PathPrefix:
    """An ASGI middleware: a proxy may remove the prefix from a path or leave it.

    ASGI servers assume that the prefix was removed, and add it to the path. If the first segment of the prefix is also
    the first segment of a path of the service, the proxy has to remove the prefix, because the two could be confused.
    """

    def __init__(self, app: ASGIApp, own: Collection[str]) -> None:
        """`own` are the first segments of the service's own paths."""
        self.app = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (start := prefix(scope)) and start.split("/")[1] not in self._own:
            root: str = scope["root_path"]
            path = str(scope["path"]).removeprefix(root)
            if path == start or path.startswith(f"{start}/"):
                scope = {**scope, "path": f"{root}{path.removeprefix(start) or '/'}"}
        await self.app(scope, receive, send)
