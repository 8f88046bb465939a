"""Render templates: escaped, with the prefix of the links, and with the headers of a page."""

import contextlib
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2
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
# Folder of the compiled modules of this package. Compiled templates are next to them.
_COMPILED = Path(__file__).parent / "__pycache__"


class _CompiledTemplates(FileSystemBytecodeCache):
    """Files of compiled templates, which are only written if Python may write those of modules."""

    def __init__(self, folder: Path) -> None:
        # Another release of Jinja may compile the same source to other code.
        super().__init__(str(folder), f"%s.jinja-{jinja2.__version__}.pyc")

    def get_source_checksum(self, source: str) -> str:
        """Return the checksum of a template with its filters, which are applied to constants at compile time."""
        return super().get_source_checksum(source + _source_of_filters())

    def dump_bytecode(self, bucket: Bucket) -> None:
        if not sys.dont_write_bytecode:
            with contextlib.suppress(OSError):  # The installation may be read-only.
                super().dump_bytecode(bucket)


@cache
def _source_of_filters() -> str:
    return Path(formatting.__file__).read_text()


@cache
def environment(compiled: Path = _COMPILED) -> Environment:
    """Return the templates and their filters. Templates that are found in the folder `compiled` are not compiled."""
    made = Environment(
        loader=PackageLoader("app.pages"),
        bytecode_cache=_CompiledTemplates(compiled),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(formatting.FILTERS)
    return made


def load_templates() -> None:
    """Load all templates, so that the first visitor does not wait for it. Compiling them takes half a second."""
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
