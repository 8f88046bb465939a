"""Render templates: escaped, with the prefix of the links, and with the headers of a page."""

from functools import cache
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from app.web.paths import prefix

# The browser loads only files of this service, runs no script of a page itself, and sends forms only to this service.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@cache
def environment() -> Environment:
    return Environment(
        loader=PackageLoader("app.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(request: Request, template: str, context: dict[str, Any], status: int = 200) -> HTMLResponse:
    """Return the page. Templates have `root`, the prefix of every link, and what `app.pages.access` knows."""
    root = prefix(request.scope)
    content = environment().get_template(template).render(root=root, **context)
    return HTMLResponse(content, status, headers={"content-security-policy": POLICY, "vary": "accept"})
