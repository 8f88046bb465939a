"""Tokens in forms, which prove that one of the service's own pages sent the form (protection against CSRF).

A browser has a random secret in a cookie that neither scripts nor other sites can read. The token in a form is a hash
of that secret and of the session's API key, so no state is kept, and a token ends with its session.
"""

import hashlib
import hmac
import re
import secrets

from fastapi import Request
from starlette.responses import Response

from app.errors import Forbidden
from app.pages.session import set_cookie
from app.web.auth import SESSION_COOKIE, cookie_in, why_not_same_site

FORM_COOKIE = "linserve_form"
FIELD = "csrf"  # Name of the form's field.

_SECRET_BYTES = 32
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")  # base64 of _SECRET_BYTES bytes


def form_token(request: Request) -> str:
    """Return the token for the forms of this response, whose cookie `keep_secret` sets."""
    secret = _secret_of(request)
    if secret is None:
        request.state.form_secret = secret = secrets.token_urlsafe(_SECRET_BYTES)
    return _token(request, secret)


def keep_secret(request: Request, response: Response) -> None:
    """Set the cookie, if the browser has none yet."""
    secret: str | None = getattr(request.state, "form_secret", None)
    if secret is not None:
        set_cookie(request, response, FORM_COOKIE, secret)


def check_origin(request: Request) -> None:
    """Raises Forbidden if a page of another site sent the form."""
    if reason := why_not_same_site(request.scope):
        raise Forbidden(f"Forms are accepted only from pages of this service; {reason}.")


def check_csrf(request: Request, token: str | None) -> None:
    """Raises Forbidden if `token` is not that of a form of this browser's session."""
    secret = _secret_of(request)
    expected = "" if secret is None else _token(request, secret)
    if not expected or not hmac.compare_digest(expected.encode(), (token or "").encode()):
        raise Forbidden("The form has expired, or the browser blocks cookies. Reload the page and send the form again.")


def _secret_of(request: Request) -> str | None:
    if (made := getattr(request.state, "form_secret", None)) is not None:
        return str(made)
    secret = cookie_in(request.scope["headers"], FORM_COOKIE)
    return secret if secret is not None and _SECRET.fullmatch(secret) else None


def _token(request: Request, secret: str) -> str:
    session = cookie_in(request.scope["headers"], SESSION_COOKIE) or ""
    return hmac.new(secret.encode(), session.encode(), hashlib.sha256).hexdigest()
