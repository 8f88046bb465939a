"""Who may do what: holders of a key what its scopes say; without keys, only this machine changes something."""

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

from starlette.types import Scope

from app.errors import Forbidden, Unauthenticated

Headers = Iterable[tuple[bytes, bytes]]  # names in small letters

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+(?P<rights>[a-z,]+)\s+(?P<digest>[0-9a-f]{64})")
_LOCAL_HOST = re.compile(
    rb"(?:localhost|(?:[a-z0-9-]+\.)+localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.IGNORECASE
)
_PROXY_HEADERS = {b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip"}

_log = logging.getLogger(__name__)


class AccessScope(StrEnum):
    """What a key may do. Every key reads models and jobs, and `admin` has all rights."""

    READ = "read"
    PREDICT = "predict"
    TRAIN = "train"  # and cancel
    ADMIN = "admin"  # promote, delete


WRITE_SCOPES = {AccessScope.TRAIN, AccessScope.ADMIN}
SCOPES = {AccessScope.PREDICT, AccessScope.TRAIN, AccessScope.ADMIN}


@dataclass(frozen=True)
class Key:
    name: str
    digest: bytes  # SHA-256 of the key; keys are random, so that nothing slower is needed
    rights: frozenset[AccessScope]

    def has(self, right: AccessScope) -> bool:
        return right is AccessScope.READ or right in self.rights or AccessScope.ADMIN in self.rights


class Authorizer:
    def __init__(self, path: Path | None) -> None:
        """With the file of the keys, or without any. Raises OSError and ValueError where it cannot be read."""
        self.has_keys = path is not None
        self._path = path
        self._keys: tuple[Key, ...] = ()
        self._state: tuple[int, ...] = ()
        if path is not None:
            self._state = _state_of(path)
            self._keys = parse_keys(path.read_text())

    def allows(self, headers: Headers, right: AccessScope) -> bool:
        """Whether a key in these headers gives the right."""
        key = self._key_in(headers)
        return key is not None and key.has(right)

    def check(self, scope: Scope, right: AccessScope) -> str | None:
        """The name of the key that is used, if keys are. Raises Unauthenticated and Forbidden."""
        if not self.has_keys:
            if right in WRITE_SCOPES and (reason := _why_not_local(scope)):
                raise Forbidden(f"Without API keys, only this machine may change something; {reason}.")
            return None
        key = self._key_in(scope["headers"])
        if key is None:
            raise Unauthenticated("A valid API key is expected, as Authorization: Bearer or as X-API-Key, and once.")
        if not key.has(right):
            raise Forbidden(f'This API key has no scope "{right}".')
        return key.name

    def _key_in(self, headers: Headers) -> Key | None:
        given = [secret for name, value in headers if (secret := _secret(name, value)) is not None]
        if len(given) != 1 or not given[0]:
            return None
        digest = hashlib.sha256(given[0]).digest()
        found = None
        for key in self._current():  # through all of them, so that the time tells nothing
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _current(self) -> tuple[Key, ...]:
        """The keys as their file has them now; as it had them before, while it cannot be read."""
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


def parse_keys(text: str) -> tuple[Key, ...]:
    """Lines of a name, scopes separated by commas, and the SHA-256 of the key in hex; # begins a comment.

    Raises ValueError, with the number of the line and nothing of what stands there; and where there is no key at all.
    """
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        scopes = set(match["rights"].split(",")) if match else set()
        if match is None or not scopes <= SCOPES:
            raise ValueError(f"Line {number}: expected a name, scopes of {','.join(sorted(SCOPES))}, and a SHA-256.")
        digest = bytes.fromhex(match["digest"])
        if digest == hashlib.sha256().digest():
            raise ValueError(f"Line {number}: this is the SHA-256 of nothing; the key was empty.")
        if match["name"] in keys or any(key.digest == digest for key in keys.values()):
            raise ValueError(f"Line {number}: the name or the key stands in another line already.")
        keys[match["name"]] = Key(match["name"], digest, frozenset(map(AccessScope, scopes)))
    if not keys:  # more likely caught while it is being written than meant
        raise ValueError("There is no key in it.")
    return tuple(keys.values())


def _secret(name: bytes, value: bytes) -> bytes | None:
    if name == b"x-api-key":
        return value.strip()
    if name == b"authorization":
        scheme, _, credentials = value.partition(b" ")
        return credentials.strip() if scheme.lower() == b"bearer" else b""
    return None


def _why_not_local(scope: Scope) -> str | None:
    """Why this is not taken for a request of this machine's own; None where it is."""
    if not _is_loopback(scope["client"][0] if scope["client"] else ""):
        return "this request comes from another one"
    headers: dict[bytes, bytes] = dict(scope["headers"])
    # Proxies that add no header mostly speak the old protocol to what is behind them.
    is_old = scope.get("http_version") == "1.0"
    if is_old or any(name in _PROXY_HEADERS or name.startswith(b"x-forwarded") for name in headers):
        return "this request comes through a proxy"
    # A web page of somebody else's, opened on this machine, is not this machine: neither with a name of its own that
    # points here, nor as itself.
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
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _state_of(path: Path) -> tuple[int, ...]:
    found = os.stat(path)  # noqa: PTH116 - at every request; a third of the time of Path's
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
