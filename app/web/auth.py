"""Authorization: with API keys, by the scopes of the key; without keys, only clients on this machine may write."""

import hashlib
import hmac
import ipaddress
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.types import Scope

from app.errors import Forbidden, Unauthenticated

Headers = Iterable[tuple[bytes, bytes]]  # names in lower case

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+(?P<scopes>[a-z,]+)\s+(?P<digest>[0-9a-f]{64})")
_LOCAL_HOST = re.compile(
    rb"(?:localhost|(?:[a-z0-9-]+\.)+localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.IGNORECASE
)
_PROXY_HEADERS = {b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip"}

# For the OpenAPI document only: the fast path runs without FastAPI, so `Authorizer` reads the headers itself.
_DESCRIPTION = "An API key. If the service has no keys, clients on the same machine need none."
_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description=_DESCRIPTION)
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header", description=_DESCRIPTION)

_log = logging.getLogger(__name__)


class AccessScope(StrEnum):
    """A permission of a key. Every key may read models and jobs, and `admin` includes all scopes."""

    READ = "read"
    PREDICT = "predict"
    TRAIN = "train"  # and cancel
    ADMIN = "admin"  # promote, delete


WRITE_SCOPES = {AccessScope.TRAIN, AccessScope.ADMIN}
SCOPES = {AccessScope.PREDICT, AccessScope.TRAIN, AccessScope.ADMIN}


@dataclass(frozen=True)
class Key:
    name: str
    digest: bytes  # SHA-256 of the key. Keys are random, so no slow hash is needed.
    scopes: frozenset[AccessScope]

    def has(self, scope: AccessScope) -> bool:
        return scope is AccessScope.READ or scope in self.scopes or AccessScope.ADMIN in self.scopes


class Authorizer:
    def __init__(self, path: Path | None) -> None:
        """Read the keys from a file, or have no keys.

        Raises OSError or ValueError if the file cannot be read.
        """
        self.has_keys = path is not None
        self._path = path
        self._keys: tuple[Key, ...] = ()
        self._state: tuple[int, ...] = ()
        if path is not None:
            self._state = _state_of(path)
            self._keys = parse_keys(path.read_text())

    def allows(self, headers: Headers, access_scope: AccessScope) -> bool:
        """Return True if the headers have a key with this scope."""
        key = self._key_in(headers)
        return key is not None and key.has(access_scope)

    def check(self, scope: Scope, access_scope: AccessScope) -> str | None:
        """Return the name of the client's key, or None if the service has no keys.

        Raises Unauthenticated or Forbidden if the request is not permitted.
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
        for key in self._current():  # all of them, so that the time does not depend on the match
            if hmac.compare_digest(key.digest, digest):
                match = key
        return match

    def _current(self) -> tuple[Key, ...]:
        """Return the keys in the file. If it is invalid, empty or missing, the last valid keys stay in effect."""
        assert self._path is not None
        try:
            state = _state_of(self._path)
        except OSError:
            state = ()
        if state != self._state:
            self._state = state
            try:
                self._keys = parse_keys(self._path.read_text())
            except (OSError, ValueError) as error:
                _log.error("API keys not read, previous keys stay in effect", extra={"reason": str(error)})
            else:
                _log.info("API keys read", extra={"keys": [key.name for key in self._keys]})
        return self._keys


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


def parse_keys(text: str) -> tuple[Key, ...]:
    """Parse lines of a name, scopes separated by commas, and the SHA-256 of the key in hex. # begins a comment.

    Raises ValueError, with the number of the line but not its content, if a line is invalid or there is no key.
    """
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        scopes = set(match["scopes"].split(",")) if match else set()
        if match is None or not scopes <= SCOPES:
            raise ValueError(f"Line {number}: expected a name, scopes of {','.join(sorted(SCOPES))}, and a SHA-256.")
        digest = bytes.fromhex(match["digest"])
        if digest == hashlib.sha256().digest():
            raise ValueError(f"Line {number}: this is the SHA-256 of an empty key.")
        if match["name"] in keys or any(key.digest == digest for key in keys.values()):
            raise ValueError(f"Line {number}: another line has the same name or the same key.")
        keys[match["name"]] = Key(match["name"], digest, frozenset(map(AccessScope, scopes)))
    if not keys:  # An empty file is probably being written.
        raise ValueError("The file has no keys.")
    return tuple(keys.values())


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


def _state_of(path: Path) -> tuple[int, ...]:
    status = os.stat(path)  # noqa: PTH116 - for every request, and three times as fast as Path.stat
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
