"""Authorization: with API keys, by the scopes of the key; without keys, only clients on this machine may write."""

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

__all__ = ["AccessScope", "Authorizer", "Headers", "require_scope", "why_not_local"]

Headers = Iterable[tuple[bytes, bytes]]  # names in lower case

_LOCAL_HOST = re.compile(
    rb"(?:localhost|(?:[a-z0-9-]+\.)+localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.IGNORECASE
)
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
        if not self.has_keys:
            if access_scope in WRITE_SCOPES and (reason := why_not_local(scope)):
                raise Forbidden(f"Without API keys, only clients on this machine can change anything; {reason}.")
            return None
        key = self._key_in(scope["headers"])
        if key is None:
            raise Unauthenticated("Send one valid API key, as Authorization: Bearer or as X-API-Key.")
        if not key.has(access_scope):
            raise Forbidden(f'This API key does not have the scope "{access_scope}".')
        return key.name

    def _key_in(self, headers: Headers) -> Key | None:
        secrets = [secret for name, value in headers if (secret := _secret(name, value)) is not None]
        if len(secrets) != 1 or not secrets[0]:
            return None
        digest = hashlib.sha256(secrets[0]).digest()
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


def _secret(name: bytes, value: bytes) -> bytes | None:
    if name == b"x-api-key":
        return value.strip()
    if name == b"authorization":
        scheme, _, credentials = value.partition(b" ")
        return credentials.strip() if scheme.lower() == b"bearer" else b""
    return None


def why_not_local(scope: Scope) -> str | None:
    """Return why a request does not count as one of a client on this machine, or None if it does."""
    if not _is_loopback(scope["client"][0] if scope["client"] else ""):
        return "this request comes from another one"
    headers: dict[bytes, bytes] = dict(scope["headers"])
    # Most proxies that add no header use HTTP/1.0.
    is_old = scope.get("http_version") == "1.0"
    if is_old or any(name in _PROXY_HEADERS or name.startswith(b"x-forwarded") for name in headers):
        return "this request comes through a proxy"
    # A web page of another site that is open on this machine must not pass as this machine. It may use a host name that
    # resolves to this machine (DNS rebinding), or its own origin (request forgery).
    if not _LOCAL_HOST.fullmatch(headers.get(b"host", b"")):
        return "this request is for a host of another name"
    origin = headers.get(b"origin")
    if origin is not None and origin.lower() not in (b"http://" + headers[b"host"], b"https://" + headers[b"host"]):
        return "this request comes from a page of another site"
    if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
        return "this request comes from a page of another site"
    return None


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
