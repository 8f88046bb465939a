"""Files of API keys: on this machine, or in a store that replicas share."""

import hashlib
import logging
import os
import random
import re
import threading
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from app.errors import LinserveError, StoreMisconfigured, StoreUnavailable, Unavailable
from app.storage.opening import open_store
from app.storage.store import BlobNotFound, Store

POLL_SECONDS = 1.0  # Mean interval between two looks at a file in a store.

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+(?P<scopes>[a-z,]+)\s+(?P<digest>[0-9a-f]{64})")

_JITTER = random.Random()  # noqa: S311 - of pauses. Not the global one, which other code may seed.
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


class KeySource(Protocol):
    def current(self) -> tuple[Key, ...]:
        """Return the keys in effect. Raises Unavailable if there never were any."""


class KeyFile:
    """A file on this machine, whose changes are seen by the next request."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError if the file cannot be read."""
        self._path = path
        self._state = _state_of(path)
        self._keys = parse_keys(path.read_text())

    def current(self) -> tuple[Key, ...]:
        """Return the keys in the file. If it is invalid, empty or missing, the last valid keys stay in effect."""
        try:
            state = _state_of(self._path)
        except OSError:
            state = ()
        if state != self._state:
            self._state = state
            try:
                self._keys = parse_keys(self._path.read_text())
            except (OSError, ValueError) as error:
                _log_kept(str(error))
            else:
                _log_read(self._keys)
        return self._keys


class StoredKeyFile:
    """A file in a store. A thread polls it about once per POLL_SECONDS, and no request waits for the store."""

    def __init__(self, url: str) -> None:
        """Read the keys, unless the store is not available just now.

        Raises ValueError if the URL, the environment or the file is not valid, or there is no file.
        """
        folder, _, self._key = url.rpartition("/")
        self._url = url
        self._etag: str | None = None
        self._keys: tuple[Key, ...] = ()
        self._reason: str | None = None  # why the last attempt failed
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        try:
            self._store: Store = open_store(folder)
            self._read()
        except (StoreMisconfigured, BlobNotFound) as error:
            raise ValueError(_reason_of(error)) from None
        except StoreUnavailable as error:
            self._reason = error.message

    def current(self) -> tuple[Key, ...]:
        """Return the keys in the file. If it is invalid, missing or unreachable, the last valid keys stay in effect."""
        if self._thread is None:
            self._start_polling()
        if not self._keys:
            raise Unavailable(f"The API keys cannot be read: {self._reason}")
        return self._keys

    def poll(self) -> None:
        """Look whether the file has changed."""
        try:
            if self._read():
                _log_read(self._keys)
            self._reason = None
        except (StoreUnavailable, BlobNotFound, ValueError) as error:
            reason = _reason_of(error)
            if reason != self._reason:  # once, not with every look
                self._reason = reason
                _log_kept(reason)

    def _read(self) -> bool:
        """Return True if the file has changed and is valid."""
        blob = self._store.get(self._key) if self._etag is None else self._store.get_if_changed(self._key, self._etag)
        if blob is None:
            return False
        self._keys = parse_keys(blob.content.decode(errors="replace"))
        self._etag = blob.etag
        return True

    def _start_polling(self) -> None:
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="API keys", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(POLL_SECONDS * _JITTER.uniform(0.8, 1.2)):
            self.poll()


def open_keys(place: Path | str) -> KeySource:
    """Return the keys in the file with this path or URL. Raises OSError or ValueError if it is not valid."""
    return StoredKeyFile(place) if isinstance(place, str) and "://" in place else KeyFile(Path(place))


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


def _reason_of(error: Exception) -> str:
    if isinstance(error, BlobNotFound):
        return f"There is no file {error}."
    return error.message if isinstance(error, LinserveError) else str(error)


def _log_kept(reason: str) -> None:
    _log.error("API keys not read, previous keys stay in effect", extra={"reason": reason})


def _log_read(keys: tuple[Key, ...]) -> None:
    _log.info("API keys read", extra={"keys": [key.name for key in keys]})


def _state_of(path: Path) -> tuple[int, ...]:
    status = os.stat(path)  # noqa: PTH116 - for every request, and three times as fast as Path.stat
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
