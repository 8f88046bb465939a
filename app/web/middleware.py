"""Around every request: its id, its line in the log, its place in the metrics; and what happens to faults of ours."""

import asyncio
import logging
import random
import re
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import request_id
from app.web.problems import problem_response, server_error
from app.web.state import Services

OK = 200
SERVER_ERROR = 500
# Whatever a browser makes of an answer: it is what its content type says, it runs and loads nothing (the documentation
# says what it needs itself), no other site embeds or reads it, and no proxy keeps it.
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"private, no-cache"),
]
SLICE_BYTES = 1 << 18  # of a body that are written at a time; the server waits between two for a slow client
REQUEST_ID = b"x-request-id"
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}

_log = logging.getLogger("app.requests")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestContextMiddleware:
    """An ASGI middleware. A caller's X-Request-ID is kept where it is one, and answered in any case."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = (kept_id(value) for name, value in scope["headers"] if name == REQUEST_ID)
        identity = next(filter(None, given), None) or new_id()
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
        except asyncio.CancelledError:  # the service stops, and waited for as long as it does
            if status == 0:
                await problem_response(503, "Unavailable", "The service is stopping.")(scope, receive, send_with_id)
        except Exception:
            _log.exception("request failed")
            if status == 0:
                await server_error()(scope, receive, send_with_id)
        finally:
            _note(scope, status, time.perf_counter() - started, identity)
            request_id.reset(token)


async def _send_in_slices(send: Send, message: Message) -> None:
    """Send a long body so that the client has taken nearly all of it on return: until then it counts as held."""
    body = message.get("body", b"")
    if len(body) <= SLICE_BYTES:
        await send(message)
        return
    view = memoryview(body)
    for start in range(0, len(body), SLICE_BYTES):
        await send({"type": message["type"], "body": view[start : start + SLICE_BYTES], "more_body": True})
    await send({"type": message["type"], "body": b"", "more_body": message.get("more_body", False)})


def kept_id(given: bytes) -> bytes | None:
    """The caller's id, if it is one."""
    return given if _ID.fullmatch(given) else None


def new_id() -> bytes:
    # Nobody is kept out by an id, so it need not cost a system call.
    return b"%032x" % random.getrandbits(128)


def _log_request(scope: Scope, status: int, seconds: float, identity: bytes) -> None:
    state: dict[str, Any] = scope["state"]
    problem: dict[str, Any] | None = state.get("problem")
    _log.log(
        logging.WARNING if status >= SERVER_ERROR else logging.INFO,
        "request",
        extra={
            "request_id": identity.decode(),
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 3),
            "client": _client(scope),
            "caller": state.get("caller"),  # the name of the key
            **({"job": state["job"]} if "job" in state else {}),
            **({"problem": problem["title"], "reason": problem["detail"]} if problem else {}),
        },
    )


def _note(scope: Scope, status: int, seconds: float, identity: bytes) -> None:
    """A line in the log and a count in the metrics, for a request that was answered, and whose body is let go."""
    route: str = getattr(scope.get("route"), "path", "none")
    state: dict[str, Any] = scope.get("state", {})
    services: Services | None = state.get("services")
    if services is None:
        return
    if "memory" in state:
        state["memory"].release_all()
    if status != OK or not route.endswith("/predict") or services.logs_predictions:
        _log_request(scope, status, seconds, identity)
    services.metrics.answered(scope["method"] if scope["method"] in METHODS else "other", route, status, seconds)


def _client(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None
