"""Routes that exist only for requests that accept HTML.

A page has the URL of its resource. The route of the API with the same path handles all other requests.
"""

from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from app.web.paths import ANY_BODY

# Content types of forms. A body of another type is a request to the API, whichever response the client accepts.
_FORMS = (b"application/x-www-form-urlencoded", b"multipart/form-data")
FRAGMENT = "linserve-fragment"  # Header of requests for a part of a page.
_WANTS_PAGE = "app.pages.wants_page"

# Paths of pages without a resource of the API.
PAGES_ONLY = ("/import", "/learn", "/login", "/models/{model}/compare")
_ENDINGS = tuple(f"/{path.rpartition('/')[2]}" for path in PAGES_ONLY)


def accepts_html(scope: Scope) -> bool:
    """Return True if a request names text/html in Accept, as browsers do, and does not prefer JSON.

    `*/*` alone does not count. A client that names both with the same weight gets JSON.
    """
    weights = {b"text/html": 0.0, b"application/json": 0.0}
    for name, value in scope.get("headers", ()):
        if name != b"accept":
            continue
        for part in value.lower().split(b","):
            media_type, *parameters = (word.strip() for word in part.split(b";"))
            if media_type in weights:
                weights[media_type] = max(weights[media_type], _weight(parameters))
    return weights[b"text/html"] > weights[b"application/json"]


def _weight(parameters: list[bytes]) -> float:
    for parameter in parameters:
        if parameter.startswith(b"q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def wants_page(scope: Scope) -> bool:
    """Return True if the response to a request is a page: it accepts HTML and has no body, or that of a form."""
    if ANY_BODY in scope:
        return accepts_html(scope) or is_page_only(scope["path"])
    known: bool | None = scope.get(_WANTS_PAGE)
    if known is None:
        known = accepts_html(scope) and (scope["method"] in ("GET", "HEAD") or _is_form(scope))
        scope[_WANTS_PAGE] = known  # each page asks, for every request
    return known


def is_page_only(path: str) -> bool:
    """Return False if a path has a resource of the API."""
    return path.endswith(_ENDINGS)


def wants_fragment(request: Request) -> bool:
    """Return True if a script of a page asks for a part of the page only. Other sites cannot send this header."""
    return FRAGMENT in request.headers


def _is_form(scope: Scope) -> bool:
    types = [value.lower() for name, value in scope["headers"] if name == b"content-type"]
    return any(value.partition(b";")[0].strip() in _FORMS for value in types)


class PageRoute(APIRoute):
    """A route for requests that accept HTML. Others are matched with the routes that were added after it."""

    def matches(self, scope: Scope) -> tuple[Match, Any]:
        if scope["type"] == "http" and not wants_page(scope):
            return Match.NONE, {}
        match, child = super().matches(scope)
        # A method without a page is one of the API's.
        return (match, child) if match is Match.FULL else (Match.NONE, {})
