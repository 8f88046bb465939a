"""The methods that a path answers to besides its own: HEAD wherever GET does, and OPTIONS."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import zip_longest

import anyio
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.path_prefix import prefix

MAX_COMPARED = 200  # Characters of a path that is compared with those of routes.

_OF_ROUTES = ("GET", "POST", "PUT", "PATCH", "DELETE")


def allowed_methods(routes: Iterable[BaseRoute], scope: Scope) -> str:
    """The Allow header for the path of a request that a route answers to with some method."""
    own = [route for route in routes if not isinstance(route, Mount)]
    found = [
        method
        for method in _OF_ROUTES
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in own)
    ] or ["GET"]  # of mounted files
    return ", ".join([*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"])


def similar_path(paths: Sequence[str], scope: Scope) -> str:
    """Return a question with one of the paths that is like the request's, with a space before it; or nothing."""
    asked = str(scope["path"]).removeprefix(scope.get("root_path", "").rstrip("/"))
    if len(asked) > MAX_COMPARED:
        return ""
    # A parameter of a route's path is like any step in its place.
    steps = asked.lower().rstrip("/").split("/")
    filled = {_filled(path, steps): path for path in paths}
    near = get_close_matches("/".join(steps), filled, n=1, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {prefix(scope)}{filled[near[0]]}{', without a slash at its end' * asked.endswith('/')}?"


def _filled(path: str, steps: Sequence[str]) -> str:
    """Return a route's path with the steps of another in place of its parameters."""
    pairs = zip_longest(path.split("/"), steps[: path.count("/") + 1], fillvalue="")
    return "/".join(step if own.startswith("{") else own for own, step in pairs)


class HeadMiddleware:
    """An ASGI middleware: HEAD is GET whose body is not sent, nor made where it comes piece by piece."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}
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
                await self.app(asked, receive, send_head)
            finally:
                if "route" in asked:
                    scope["route"] = asked["route"]  # for the metrics
