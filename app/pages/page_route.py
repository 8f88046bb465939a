"""Routes that exist only for requests that accept HTML.

A page has the URL of its resource. The route of the API with the same path handles all other requests.
"""

import re
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

_HTML = re.compile(rb"text/html *(;(?! *q=0(\.0*)? *(,|$))[^,]*)?(,|$)", re.IGNORECASE)


def accepts_html(scope: Scope) -> bool:
    """Return True if a request names text/html in Accept, as browsers do. `*/*` alone does not count."""
    return any(name == b"accept" and _HTML.search(value) for name, value in scope.get("headers", ()))


class PageRoute(APIRoute):
    """A route for requests that accept HTML. Others are matched with the routes that were added after it."""

    def matches(self, scope: Scope) -> tuple[Match, Any]:
        if scope["type"] == "http" and not accepts_html(scope):
            return Match.NONE, {}
        match, child = super().matches(scope)
        # A method without a page is one of the API's.
        return (match, child) if match is Match.FULL else (Match.NONE, {})
