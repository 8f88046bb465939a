"""Access to pages: who may open one, who may send its forms, and which buttons it has."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, Request
from starlette.datastructures import ImmutableMultiDict
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.errors import MalformedBody, Unauthenticated, UnsupportedMediaType
from app.pages.csrf import FIELD, check_csrf, check_origin
from app.pages.page_route import wants_fragment
from app.pages.session import own_path
from app.web.auth import AccessScope, why_not_this_machine
from app.web.bodies import iter_limited
from app.web.paths import prefix
from app.web.state import get_memory, get_services

__all__ = ["Access", "AccessScope", "access_of", "check_csrf", "form_access", "form_of", "page_access"]

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
MAX_FORM_BYTES = 1 << 20  # Bytes of a form without a file.
MAX_FIELDS = 10_000
FORM_FACTOR = 10  # Bytes that decoding a form takes, per byte of the form.


_AGAIN = '<!doctype html><html lang="en"><meta http-equiv="refresh" content="0"><title>Linserve</title><p>Loading'


class SignInRequired(Exception):
    """The page needs an API key, and the browser has not signed in."""


@dataclass(frozen=True)
class Access:
    """What the sender of a request may do. Templates have it as `access`."""

    has_keys: bool
    key: str | None = None  # name of the key, if there is one
    can_read: bool = True
    can_predict: bool = True
    can_train: bool = False
    can_promote: bool = False
    reason: str | None = None  # why this client cannot change anything, if there are no keys

    @property
    def signed_in(self) -> bool:
        return self.key is not None


def access_of(request: Request) -> Access:
    """Return what the sender of a request may do, with its key or without keys."""
    authorizer = get_services(request).access
    if not authorizer.has_keys:
        reason = why_not_this_machine(request.scope)
        return Access(has_keys=False, can_train=reason is None, can_promote=reason is None, reason=reason)
    key = authorizer.signed_in(request.scope)
    if key is None:
        return Access(has_keys=True, can_read=False, can_predict=False)
    return Access(
        has_keys=True,
        key=key.name,
        can_predict=key.has(AccessScope.PREDICT),
        can_train=key.has(AccessScope.TRAIN),
        can_promote=key.has(AccessScope.ADMIN),
    )


def page_access(scope: AccessScope) -> Any:
    """Return a dependency of pages: browsers without a key are sent to the login page.

    Raises Forbidden if the key does not have the scope.
    """

    async def check(request: Request) -> None:
        try:
            request.state.caller = get_services(request).access.check(request.scope, scope)
        except Unauthenticated:
            raise SignInRequired from None

    return Depends(check)


def form_access(scope: AccessScope, *, multipart: bool = False) -> Any:
    """Return a dependency of routes that take the forms of pages. It checks origin, key and token.

    `form_of` has the fields. With `multipart`, the route reads the body itself and calls `check_csrf` with the first
    field before it does anything else.

    Raises Forbidden, UnsupportedMediaType, MalformedBody, BodyTooLarge.
    """

    async def check(request: Request) -> None:
        check_origin(request)
        try:
            request.state.caller = get_services(request).access.check_form(request.scope, scope)
        except Unauthenticated:
            raise SignInRequired from None
        if not multipart:
            await read_form(request)

    return Depends(check)


async def read_form(request: Request) -> None:
    """Read the fields of a form and check its token. Raises as `form_access` does."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != URLENCODED:
        raise UnsupportedMediaType(f"Expected a form of the type {URLENCODED}.")
    body = b"".join([chunk async for chunk in iter_limited(request, MAX_FORM_BYTES)])
    get_memory(request).reserve(FORM_FACTOR * len(body))
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise MalformedBody(f"The form is not UTF-8, or has more than {MAX_FIELDS} fields.") from None
    request.state.form = ImmutableMultiDict(fields)
    check_csrf(request, request.state.form.get(FIELD))


def form_of(request: Request) -> ImmutableMultiDict[str, str]:
    """Return the fields of the form that `form_access` has read."""
    form: ImmutableMultiDict[str, str] = request.state.form
    return form


def sign_in_first(request: Request, _: Exception) -> Response:
    """Send a browser to the login page, and from there back to the page that it asked for, or that sent the form.

    A browser that follows a link of another site does not send the cookie, even if it has signed in. It is asked to
    load the page again, which it then does by itself and with the cookie.
    """
    root = prefix(request.scope)
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        return HTMLResponse(_AGAIN, headers={"vary": "accept, linserve-fragment, sec-fetch-site"})
    if request.method in ("GET", "HEAD") and not wants_fragment(request):
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    else:
        page = urlsplit(request.headers.get("referer", "/"))
        target = page.path + (f"?{page.query}" if page.query else "")
    target = own_path(target.removeprefix(root))
    location = f"{root}/login" + ("" if target == "/" else f"?next={quote(target, safe='/')}")
    if wants_fragment(request):  # the login page must not become a part of the page
        return Response(status_code=401, headers={"linserve-sign-in": location, "www-authenticate": "Bearer"})
    return RedirectResponse(location, 303)
