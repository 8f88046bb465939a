"""The path prefix below which a proxy serves the service: `--root-path /ml`."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send


def prefix(scope: Scope) -> str:
    """Return the prefix of all links, such as `/ml`, or an empty string."""
    root = str(scope.get("root_path", "")).strip("/")
    return f"/{root}" if root else ""


class PathPrefix:
    """An ASGI middleware: a proxy may remove the prefix from a path or leave it.

    ASGI servers assume that it was removed, and add it to the path. If the prefix begins like a path of the service,
    the proxy has to remove it, because the two could be confused.
    """

    def __init__(self, app: ASGIApp, own: Collection[str]) -> None:
        """`own` are the first segments of the service's own paths."""
        self.app = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (start := prefix(scope)) and start.split("/")[1] not in self._own:
            root: str = scope["root_path"]
            asked = str(scope["path"]).removeprefix(root)
            if asked == start or asked.startswith(f"{start}/"):
                scope = {**scope, "path": f"{root}{asked.removeprefix(start) or '/'}"}
        await self.app(scope, receive, send)
