"""The prefix of all paths, where a proxy serves the service below one: `--root-path /ml`."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send


def prefix(scope: Scope) -> str:
    """Return what every path of a link begins with: `/ml`, or nothing."""
    root = str(scope.get("root_path", "")).strip("/")
    return f"/{root}" if root else ""


class PathPrefix:
    """An ASGI middleware: a proxy may remove the prefix from a path or leave it.

    Servers assume that it is removed, and put it in front. A prefix that begins as a path of the service itself has to
    be removed, because such a path could be meant.
    """

    def __init__(self, app: ASGIApp, own: Collection[str]) -> None:
        """`own` are the first words of the service's own paths."""
        self.app = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (start := prefix(scope)) and start.split("/")[1] not in self._own:
            root: str = scope["root_path"]
            asked = str(scope["path"]).removeprefix(root)
            if asked == start or asked.startswith(f"{start}/"):
                scope = {**scope, "path": f"{root}{asked.removeprefix(start) or '/'}"}
        await self.app(scope, receive, send)
