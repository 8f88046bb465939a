"""The session of a browser: the cookie that holds its API key, and the path to return to after signing in."""

import re
from urllib.parse import unquote

from fastapi import Request
from starlette.responses import Response

from app.web.auth import SESSION_COOKIE, encode_session
from app.web.paths import prefix

# Seconds until a browser that stays open has to sign in again.
MAX_AGE = 12 * 3600
MAX_NEXT = 2000  # Characters of the path to go to after signing in.

# One slash and then visible ASCII characters: `//host` and `/\host` are URLs of another host.
_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")
_NOT_IN_PATH = re.compile(r"[\x00-\x1f\\]")  # Browsers drop or replace these characters.
_DECODINGS = 3  # Times that a path is decoded, because a proxy may decode it too.


def start_session(request: Request, response: Response, secret: str) -> None:
    """Put the API key in the browser's cookie."""
    set_cookie(request, response, SESSION_COOKIE, encode_session(secret), MAX_AGE)


def end_session(request: Request, response: Response) -> None:
    set_cookie(request, response, SESSION_COOKIE, "", 0)


def set_cookie(request: Request, response: Response, name: str, value: str, max_age: int | None = None) -> None:
    """Set a cookie that scripts cannot read, and that is sent only with requests of this service's own pages."""
    # Behind a proxy that ends TLS, only the origin of a form shows that the browser uses it.
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    path = prefix(request.scope) or "/"
    response.set_cookie(name, value, max_age, path=path, secure=secure, httponly=True, samesite="strict")


def own_path(path: str | None) -> str:
    """Return the path, without the prefix of a proxy, if it belongs to this service, otherwise `/`.

    For the paths to sign in and out, return `/` too.
    """
    if path is None or len(path) > MAX_NEXT:
        return "/"
    decoded = path
    for _ in range(_DECODINGS):
        if not _OWN_PATH.match(decoded) or _NOT_IN_PATH.search(decoded):
            return "/"
        decoded = unquote(decoded)
    # Decoded, a path may have letters that are not ASCII. The path itself goes into a header.
    if not _OWN_PATH.fullmatch(path) or re.match(r"/log(in|out)\b", path):
        return "/"
    return path
