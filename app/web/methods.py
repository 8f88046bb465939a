"""The methods that every path supports in addition to its own: HEAD if it supports GET, and OPTIONS."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import zip_longest

import anyio
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.path_prefix import prefix

# Length of a path that is still compared with those of routes.
MAX_COMPARED = 200

_ROUTE_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def allowed_methods(routes: Iterable[BaseRoute], scope: Scope) -> str:
    """Return the Allow header for the path of a request, which some route supports with some method."""
    own = [route for route in routes if not isinstance(route, Mount)]
    methods = [
        method
        for method in _ROUTE_METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in own)
    ] or ["GET"]  # the method of mounted files
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])


def similar_path(paths: Sequence[str], scope: Scope) -> str:
    """Return a question that names the path most similar to the request's, after a space; or an empty string."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", "").rstrip("/"))
    if len(path) > MAX_COMPARED:
        return ""
    # A parameter in a route's path matches any segment.
    segments = path.lower().rstrip("/").split("/")
    filled = {_fill(route_path, segments): route_path for route_path in paths}
    near = get_close_matches("/".join(segments), filled, n=1, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {prefix(scope)}{filled[near[0]]}{', without a slash at its end' * path.endswith('/')}?"


def _fill(route_path: str, segments: Sequence[str]) -> str:
    """Return a route's path with the segments of another path in place of its parameters."""
    pairs = zip_longest(route_path.split("/"), segments[: route_path.count("/") + 1], fillvalue="")
    return "/".join(segment if own.startswith("{") else own for own, segment in pairs)


class HeadMiddleware:
    """An ASGI middleware: HEAD is GET without the body. A streamed body is cancelled."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        get = {**scope, "method": "GET"}
        ended = False

        async def send_head(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif not ended:
                ended = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                if message.get("more_body", False):
                    answering.cancel()

        with anyio.CancelScope() as answering:
            try:
                await self.app(get, receive, send_head)
            finally:
                if "route" in get:
                    scope["route"] = get["route"]  # for the metrics
