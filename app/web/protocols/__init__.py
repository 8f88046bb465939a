"""The wire formats of predictions: the service's own and those of other servers.

Adding a format takes one file here and one entry in PROTOCOLS.
"""

from collections.abc import Mapping
from typing import Any

from fastapi.routing import iter_route_contexts
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from app.web.paths import prefix
from app.web.problems import problem_document
from app.web.protocols.base import WireFormat
from app.web.protocols.invocations import Invocations
from app.web.protocols.kserve_v1 import KServeV1
from app.web.protocols.linserve import LinserveFormat
from app.web.protocols.messages import in_words_of
from app.web.protocols.open_inference import OpenInference
from app.web.protocols.vertex import Vertex

PROTOCOLS: tuple[WireFormat, ...] = (
    LinserveFormat(),
    OpenInference(),
    KServeV1(),
    Invocations(),
    Vertex(),
)

# The routes of all formats, with their paths.
_ROUTES = [
    (wire_format, context, context.path_format)
    for wire_format in PROTOCOLS
    for context in iter_route_contexts(wire_format.router.routes)
    if context.path_format
]

# Label `protocol` of the requests on each route, by the route's path.
PROTOCOL_OF_ROUTE = {path: wire_format.name for wire_format, _, path in _ROUTES}

# Paths that other tools poll for the health of the service. They need no key and no model.
PROBES = frozenset(
    path.encode()
    for _, context, path in _ROUTES
    if context.methods == {"GET"} and "{" not in path and not context.dependencies
)

# Wire format of errors on paths without a route, by the first segment. Paths below a probe belong to no format.
_BELOW = {
    path.split("/")[1]: wire_format
    for wire_format, context, path in _ROUTES
    if path.count("/") > 1 or context.methods == {"POST"}
}


def render_error(request: Request, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """Return the response for a problem, in the wire format of the request's path."""
    wire_format = _format_of(request)
    if wire_format is None or wire_format.calls is None:
        return problem_document(problem, headers)
    return wire_format.render_error({**problem, "detail": in_words_of(wire_format, problem["detail"])}, headers)


def _format_of(request: Request) -> WireFormat | None:
    for wire_format in PROTOCOLS:
        if any(route.matches(request.scope)[0] is not Match.NONE for route in wire_format.router.routes):
            return wire_format
    path = str(request.scope["path"]).removeprefix(prefix(request.scope))
    return _BELOW.get(path.split("/")[1]) if path.startswith("/") else None
