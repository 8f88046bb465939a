"""Errors as pages, with the sentences of the problem (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response

from app.pages.page_route import wants_fragment, wants_page
from app.pages.rendering import render
from app.web import protocols


def render_error(request: Request, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """Return the problem as a page if the request accepts HTML, otherwise in the format that its path belongs to."""
    if not wants_page(request.scope):
        return protocols.render_error(request, problem, headers)
    is_part = wants_fragment(request)
    target = quote(request.url.path, safe="/")
    context = {
        "title": problem["title"],
        "problem": problem,
        "sign_in": problem["status"] == HTTPStatus.UNAUTHORIZED,
        "target": target if request.method in ("GET", "HEAD") else "/",
    }
    response = render(request, "_problem.html" if is_part else "error.html", context, problem["status"])
    response.headers.update(headers)
    return response
