"""The wire formats that predictions are asked for in.

Adding a format takes one file here and one entry in PROTOCOLS.
"""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from app.web.problems import problem_document
from app.web.protocols.base import WireFormat
from app.web.protocols.linserve import LinserveFormat

PROTOCOLS: tuple[WireFormat, ...] = (LinserveFormat(),)


def render_error(request: Request, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """Return the problem as a response in the format that the path of the request belongs to."""
    for wire_format in PROTOCOLS:
        if any(route.matches(request.scope)[0] is not Match.NONE for route in wire_format.router.routes):
            return wire_format.render_error(problem, headers)
    return problem_document(problem, headers)
