"""Authorization: with API keys, by the scopes of the key; without keys, only clients on this machine may write.

A browser that signed in on a page sends its key in a cookie. Other sites can make a browser send requests, so the
cookie counts only where a request changes nothing, or where a token shows that a page of this service sent the form.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.types import Scope

from app.errors import Forbidden, Unauthenticated, Unavailable
from app.web.key_files import WRITE_SCOPES, AccessScope, Key, open_keys

__all__ = [
    "SESSION_COOKIE",
    "AccessScope",
    "Authorizer",
    "Headers",
    "cookie_in",
    "decode_session",
    "encode_session",
    "require_scope",
    "why_not_local",
    "why_not_same_site",
    "why_not_this_machine",
]

Headers = Iterable[tuple[bytes, bytes]]  # names in lower case

SESSION_COOKIE = "linserve_key"  # Cookie with the API key of a browser that has signed in.

_LOCAL_HOST = re.compile(
    rb"(?:localhost|(?:[a-z0-9-]+\.)+localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.IGNORECASE
)
_SAFE_METHODS = {"GET", "HEAD"}
_OTHER_SITE = "this request comes from a page of another site"
_PROXY_HEADERS = {b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip"}

# For the OpenAPI document only: the fast path runs without FastAPI, so `Authorizer` reads the headers itself.
_DESCRIPTION = "An API key. If the service has no keys, clients on the same machine need none."
_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description=_DESCRIPTION)
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header", description=_DESCRIPTION)


class Authorizer:
    def __init__(self, place: Path | str | None) -> None:
        """Read the keys from a file, given as a path or as a URL in a store, or have no keys.

        Raises OSError or ValueError if the file is not valid.
        """
        self.has_keys = place is not None
        self._source = None if place is None else open_keys(place)

    def allows(self, headers: Headers, access_scope: AccessScope) -> bool:
        """Return True if the headers have a key with this scope."""
        try:
            key = self._key_in(headers)
        except Unavailable:  # `check` explains it
            return False
        return key is not None and key.has(access_scope)

    def check(self, scope: Scope, access_scope: AccessScope) -> str | None:
        """Return the name of the client's key, or None if the service has no keys.

        Raises Unauthenticated or Forbidden if the request is not permitted; Unavailable if no keys were ever read.
        """
        return self._check(scope, access_scope, with_cookie=scope.get("method") in _SAFE_METHODS)

    def check_form(self, scope: Scope, access_scope: AccessScope) -> str | None:
        """Do the same for a form of a page. Its origin and its token have been checked, so the cookie counts."""
        return self._check(scope, access_scope, with_cookie=True)

    def signed_in(self, scope: Scope) -> Key | None:
        """Return the key in the headers or in the cookie, to choose the parts of a page; None if no keys were read."""
        try:
            return self._key_of(scope, with_cookie=True) if self.has_keys else None
        except Unavailable:
            return None

    def find(self, secret: str) -> Key | None:
        """Return the key that a person typed, or None. Raises Unavailable if no keys were ever read."""
        return self._match(secret.encode()) if secret and self.has_keys else None

    def _check(self, scope: Scope, access_scope: AccessScope, *, with_cookie: bool) -> str | None:
        if not self.has_keys:
            if access_scope in WRITE_SCOPES and (reason := why_not_local(scope)):
                raise Forbidden(f"Without API keys, only clients on this machine can change anything; {reason}.")
            return None
        key = self._key_of(scope, with_cookie=with_cookie)
        if key is None:
            raise Unauthenticated("Send one valid API key, as Authorization: Bearer or as X-API-Key.")
        if not key.has(access_scope):
            raise Forbidden(f'This API key does not have the scope "{access_scope}".')
        return key.name

    def _key_of(self, scope: Scope, *, with_cookie: bool) -> Key | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if not with_cookie or any(_secret(name, value) is not None for name, value in headers):
            return self._key_in(headers)
        secret = decode_session(cookie_in(headers, SESSION_COOKIE))
        return None if secret is None else self._match(secret.encode())

    def _key_in(self, headers: Headers) -> Key | None:
        secrets = [secret for name, value in headers if (secret := _secret(name, value)) is not None]
        if len(secrets) != 1 or not secrets[0]:
            return None
        return self._match(secrets[0])

    def _match(self, secret: bytes) -> Key | None:
        digest = hashlib.sha256(secret).digest()
        match = None
        assert self._source is not None
        for key in self._source.current():  # all of them, so that the time does not depend on the match
            if hmac.compare_digest(key.digest, digest):
                match = key
        return match


def require_scope(access_scope: AccessScope) -> Any:
    """Return a dependency of a route or a router that admits only clients with this scope."""

    async def check(
        request: Request,
        _bearer: Annotated[Any, Security(_BEARER)],
        _header: Annotated[Any, Security(_HEADER)],
    ) -> None:
        access: Authorizer = request.state.services.access
        request.state.caller = access.check(request.scope, access_scope)

    return Depends(check)


def cookie_in(headers: Headers, name: str) -> str | None:
    """Return the value of the cookie, or None. Of several, the first one has the most specific path (RFC 6265)."""
    for header, value in headers:
        if header == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                key, separator, content = pair.strip().partition("=")
                if separator and key == name:
                    return content
    return None


def encode_session(secret: str) -> str:
    """Return an API key as the value of a cookie, which cannot have all characters."""
    return base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")


def decode_session(value: str | None) -> str | None:
    """Return the API key in the value of a cookie, or None if there is none."""
    if not value:
        return None
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), b"-_", validate=True).decode() or None
    except ValueError:
        return None


def _secret(name: bytes, value: bytes) -> bytes | None:
    if name == b"x-api-key":
        return value.strip()
    if name == b"authorization":
        scheme, _, credentials = value.partition(b" ")
        return credentials.strip() if scheme.lower() == b"bearer" else b""
    return None


def why_not_local(scope: Scope) -> str | None:
    """Return why a request does not count as one of a client on this machine, or None if it does."""
    return why_not_this_machine(scope) or _why_not_same_origin(dict(scope["headers"]))


def why_not_this_machine(scope: Scope) -> str | None:
    """Return why a request does not come from this machine, or None. A page of another site may have sent it."""
    if not _is_loopback(scope["client"][0] if scope["client"] else ""):
        return "this request comes from another one"
    headers: dict[bytes, bytes] = dict(scope["headers"])
    # Most proxies that add no header use HTTP/1.0.
    is_old = scope.get("http_version") == "1.0"
    if is_old or any(name in _PROXY_HEADERS or name.startswith(b"x-forwarded") for name in headers):
        return "this request comes through a proxy"
    # A web page of another site that is open on this machine must not pass as this machine. It may use a host name that
    # resolves to this machine (DNS rebinding), or its own origin (request forgery), which the next function checks.
    if not _LOCAL_HOST.fullmatch(headers.get(b"host", b"")):
        return "this request is for a host of another name"
    return None


def why_not_same_site(scope: Scope) -> str | None:
    """Return why a form was not sent by a page of this service, or None.

    Browsers name the relation of the two sites in Sec-Fetch-Site when they use HTTPS or this machine's name. Otherwise
    they name the page's origin only, which has to be this host: a proxy that changes Host has to use HTTPS.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return None if site in (b"same-origin", b"none") else _OTHER_SITE
    return _why_not_same_origin(headers)


def _why_not_same_origin(headers: dict[bytes, bytes]) -> str | None:
    host, origin = headers.get(b"host", b""), headers.get(b"origin")
    if origin is not None and origin.lower() not in (b"http://" + host, b"https://" + host):
        return _OTHER_SITE
    if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
        return _OTHER_SITE
    return None


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
