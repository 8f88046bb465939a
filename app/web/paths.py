"""Paths of requests: the prefix that a proxy adds, the supported methods, and the path most similar to a wrong one."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import zip_longest

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

# Length of a path that is still compared with those of routes.
MAX_COMPARED = 200

ANY_BODY = "app.web.any_body"  # In a scope that asks for the methods of a path: the body may be of any type.
_ROUTE_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def prefix(scope: Scope) -> str:
    """Return the prefix of all links, such as `/ml`, or an empty string."""
    root = str(scope.get("root_path", "")).strip("/")
    return f"/{root}" if root else ""


def first_segments(routes: Sequence[BaseRoute]) -> frozenset[str]:
    """Return the first segments of the paths of routes."""
    return frozenset(context.path.split("/")[1] for context in iter_route_contexts(routes) if context.path)


def allowed_methods(routes: Iterable[BaseRoute], scope: Scope) -> str:
    """Return the Allow header for the path of a request, which some route supports with some method.

    Requests that accept HTML may have more methods than others.
    """
    own = [route for route in routes if not isinstance(route, Mount)]
    methods = [
        method
        for method in _ROUTE_METHODS
        if any(route.matches({**scope, "method": method, ANY_BODY: True})[0] is Match.FULL for route in own)
    ] or ["GET"]  # the method of mounted files
    return ", ".join([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])


def similar_path(paths: Sequence[str], scope: Scope) -> str:
    """Return a question that names the path most similar to the request's, after a space; or an empty string."""
    path = str(scope["path"]).removeprefix(scope.get("root_path", "").rstrip("/"))
    if len(path) > MAX_COMPARED:
        return ""
    # A parameter in a route's path matches any segment.
    segments = path.lower().rstrip("/").split("/")
    # Paths with the same beginning are those of the same API.
    related = [route_path for route_path in paths if route_path.split("/")[1:2] == segments[1:2]]
    filled = {_fill(route_path, segments): route_path for route_path in related or paths}
    near = get_close_matches("/".join(segments), filled, n=1, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {prefix(scope)}{filled[near[0]]}{', without a slash at its end' * path.endswith('/')}?"


def _fill(route_path: str, segments: Sequence[str]) -> str:
    """Return a route's path with the segments of another path in place of its parameters."""
    pairs = zip_longest(route_path.split("/"), segments[: route_path.count("/") + 1], fillvalue="")
    return "/".join(segment if own.startswith("{") else own for own, segment in pairs)
