"""CORS: lets pages of the origins in LINSERVE_CORS_ORIGINS read responses. They get no right to change anything."""

from collections.abc import Sequence
from functools import cache, partial

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.state import Services

_CACHEABLE = ("GET", "HEAD")


class CrossOriginMiddleware:
    """An ASGI middleware that allows pages of listed origins to read responses, without cookies.

    A request from a page of any other origin gets no CORS headers. A request without an Origin header is passed on
    unchanged, unless a cache may store the response, which then needs `Vary`.
    """

    def __init__(self, app: ASGIApp, vary: tuple[bytes, bytes]) -> None:
        """`vary` is the header of responses to GET and HEAD that have none."""
        self.app = app
        self._vary = vary
        self._allowing = cache(self._allow)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: Services | None = scope.get("state", {}).get("services")
        if scope["type"] != "http" or services is None or not services.cors_origins:
            await self.app(scope, receive, send)
            return
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if not origins and scope["method"] not in _CACHEABLE:
            await self.app(scope, receive, send)
            return
        is_listed = len(origins) == 1 and origins[0] in services.cors_origins
        app = self._allowing(services.cors_origins) if is_listed else self._varying
        await app(scope, receive, send)

    def _allow(self, origins: frozenset[str]) -> ASGIApp:
        # Cookies are not allowed, so the wildcards allow a page only what any program may send and read.
        return CORSMiddleware(
            partial(self._varying, by=()),  # It adds `Origin` itself.
            allow_origins=origins,
            allow_methods="*",
            allow_headers="*",
            expose_headers="*",
            allow_private_network=True,
        )

    async def _varying(self, scope: Scope, receive: Receive, send: Send, by: Sequence[bytes] = (b"Origin",)) -> None:
        """Respond with the Vary header that the response has without CORS, extended by the names `by`."""

        async def send_with_vary(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [value for name, value in message["headers"] if name == b"vary"]
                usual = [self._vary[1]] if scope["method"] in _CACHEABLE else []
                others = [header for header in message["headers"] if header[0] != b"vary"]
                if names := [*(own or usual), *by]:
                    others.append((b"vary", b", ".join(names)))
                message["headers"] = others
            await send(message)

        await self.app(scope, receive, send_with_vary)
