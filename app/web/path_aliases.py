"""Paths in environment variables that are aliases of the service's own paths."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.paths import prefix

VERTEX_HEALTH, VERTEX_PREDICT = "/vertex/health", "/vertex/predict"
# Variables that Vertex AI sets in a container, with the methods of its requests.
_VERTEX = {
    "AIP_HEALTH_ROUTE": (VERTEX_HEALTH, ("GET", "HEAD")),
    "AIP_PREDICT_ROUTE": (VERTEX_PREDICT, ("POST",)),
}
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
# First segments of paths that cannot be aliases, because their requests would be ambiguous.
_KEPT = {
    "train", "inspect", "import", "jobs", "models", "metrics",
    "docs", "openapi.json", "static", "learn", "login", "logout",
}  # fmt: skip

PathMap: TypeAlias = Mapping[tuple[str, str], str]  # The path that answers, by the method and path of a request.
NO_ALIASES: PathMap = MappingProxyType({})


def vertex_aliases(environment: Mapping[str, str]) -> PathMap:
    """Return the aliases that Vertex AI's variables name. Raises ValueError, in a sentence for the operator."""
    aliases = {}
    for variable, (target, methods) in _VERTEX.items():
        path = environment.get(variable)
        if path is None:
            continue
        if not _PATH.fullmatch(path):
            raise ValueError(f"{variable}: expected a path such as /predict, without a slash at its end or a query.")
        if (first := path.split("/")[1]) in _KEPT:
            raise ValueError(f"{variable}: paths below /{first} are the service's own. Name another path.")
        aliases.update({(method, path): target for method in methods})
    return aliases


def probes_of(aliases: PathMap) -> frozenset[bytes]:
    """Return the paths that are answered on connections above the limit."""
    return frozenset(path.encode() for (_, path), target in aliases.items() if target == VERTEX_HEALTH)


class PathAliases:
    """An ASGI middleware. The aliases are those in the lifespan state."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (aliases := scope.get("state", {}).get("aliases")):
            start = prefix(scope)
            if target := aliases.get((scope["method"], str(scope["path"]).removeprefix(start))):
                scope = {**scope, "path": f"{start}{target}"}
        await self.app(scope, receive, send)
