"""The path prefix below which a proxy serves the service: `--root-path /ml`."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send


def prefix(scope: Scope) -> str:
    """Return the prefix of all links, such as `/ml`, or an empty string."""
    root = str(scope.get("root_path", "")).strip("/")
    return f"/{root}" if root else ""


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
