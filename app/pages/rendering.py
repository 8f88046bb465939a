"""Render templates: escaped, with the prefix of the links, and with the headers of a page."""

import sys
from contextlib import suppress
from functools import cache, partial
from importlib.util import cache_from_source
from inspect import getsource
from pathlib import Path
from typing import Any

from fastapi import Request
from jinja2 import Environment, FileSystemBytecodeCache, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup
from starlette.responses import HTMLResponse

from app.pages import formatting
from app.pages.access import access_of
from app.pages.assets import asset_url
from app.pages.csrf import FIELD, form_token, keep_secret
from app.web.paths import prefix

# The browser loads only files of this service, runs no script of a page itself, and sends forms only to this service.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "vary": "accept, linserve-fragment",
    # With `no-referrer`, browsers would send forms with the origin `null`.
    "referrer-policy": "same-origin",
}


class TemplateCache(FileSystemBytecodeCache):
    """Keep compiled templates next to compiled modules. A process that may not write there compiles them itself."""

    def get_source_checksum(self, source: str) -> str:
        # A template is compiled with the options below and with the filters.
        return super().get_source_checksum(source + getsource(sys.modules[__name__]) + getsource(formatting))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if not sys.dont_write_bytecode:
            with suppress(OSError):
                super().dump_bytecode(bucket)


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("app.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=TemplateCache(str(Path(cache_from_source(__file__)).parent)),
    )
    made.filters.update(formatting.FILTERS)
    return made


def load_templates() -> None:
    """Load all templates, or compile them if no process has yet, so that the first visitor does not wait for it."""
    for name in environment().list_templates():
        environment().get_template(name)


def render(request: Request, template: str, context: dict[str, Any], status: int = 200) -> HTMLResponse:
    """Return the page. In addition to `context`, templates have:

    `root`, the prefix of every link; `path`, the page's own without it; `access`, see `app.pages.access.Access`;
    `csrf`, the token of a form, and `csrf_field()`, its hidden field; `static(name)`, the URL of a file in `static/`.
    """
    root = prefix(request.scope)
    token = form_token(request)
    access = access_of(request)
    field = Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, token)
    shell = {
        "root": root,
        "path": str(request.scope["path"]).removeprefix(request.scope.get("root_path", "")) or "/",
        "access": access,
        "csrf": token,
        "csrf_field": lambda: field,
        "static": partial(asset_url, root),
    }
    content = environment().get_template(template).render({**shell, **context})
    # After signing out, the browser must not show the page again when somebody goes back.
    kept = {"cache-control": "private, no-store"} if access.signed_in else {}
    response = HTMLResponse(content, status, headers=HEADERS | kept)
    keep_secret(request, response)
    return response
