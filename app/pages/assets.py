"""The files that pages load: style sheets, scripts and images."""

import hashlib
from functools import cache
from pathlib import Path

from starlette.responses import Response
from starlette.types import Scope

from app.web.routes.docs import WholeFiles

STATIC = "/static"
FOLDER = Path(__file__).parent / "static"

_DIGITS = 12  # Hexadecimal digits of a file's hash in its URL.
# A URL with the hash of its file never has other content, so browsers need not ask again.
_FOREVER = "public, max-age=31536000, immutable"


@cache
def version_of(name: str) -> str:
    """Return the beginning of the hash of a file in `static/`. Raises FileNotFoundError."""
    return hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()[:_DIGITS]


def asset_url(root: str, name: str) -> str:
    """Return the URL of a file in `static/`, with the prefix `root` and the hash of the content."""
    return f"{root}{STATIC}/{name}?v={version_of(name)}"


class Assets(WholeFiles):
    """The files in `static/`. Browsers keep them if the URL has the hash, and otherwise ask whether they changed."""

    def __init__(self) -> None:
        super().__init__(packages=[("app.pages", "static")])

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code in (200, 304) and scope["query_string"] == f"v={version_of(path)}".encode():
            response.headers["cache-control"] = _FOREVER
        return response
