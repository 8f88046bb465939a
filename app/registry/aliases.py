"""Names of versions, such as `champion`, which clients use in place of numbers.

An operator moves a name to another version, and the clients need no change.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from app.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from app.registry.names import MODEL_NAME, no_model
from app.storage.store import BlobChanged, BlobNotFound, Store

CURRENT = "current"  # The name of the version that is current, which every model has.
MAX_ALIASES = 50  # Names of a model.
MAX_KNOWN = 1000  # Models whose names are in memory.
ATTEMPTS = 5  # Attempts to change the names while other processes change them too.
RULE = (
    "A name has 1 to 64 of a-z, 0-9, dot, underscore and hyphen, and begins and ends with a letter or digit. "
    f"`{CURRENT}` is that of the current version, and a promotion changes it."
)

_PREFIX = "aliases"
_NAMES = msgspec.json.Decoder(dict[str, int])


@dataclass(frozen=True)
class _Known:
    """The names of a model, as they were read."""

    versions: Mapping[str, int]
    etag: str | None  # None if there are none in the store.
    read: float  # Time by the monotonic clock.


class Aliases:
    """The names of the versions of all models. Processes on several machines may share the store."""

    def __init__(self, store: Store, seconds: float = 0.0) -> None:
        """Use the names that were read in the last `seconds` without another look at the store."""
        self._store, self._seconds = store, seconds
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def all(self, model: str) -> dict[str, int]:
        """Return the versions by name. Raises StoreUnavailable."""
        return dict(sorted(self._read(model).versions.items()))

    def version(self, model: str, alias: str) -> int:
        """Return the version with this name. Raises NotFound; StoreUnavailable if the names were never read."""
        if not re.fullmatch(MODEL_NAME, model):
            raise no_model(model)
        known = self._known.get(model)
        if known is None or time.monotonic() - known.read >= self._seconds:
            try:
                known = self._read(model)
            except StoreUnavailable:
                if known is None:
                    raise
        if alias not in known.versions:
            shown = alias if re.fullmatch(MODEL_NAME, alias) else "..."
            raise NotFound(f'Model "{model}" has no alias "{shown}". GET /models/{model}/aliases lists them.')
        return known.versions[alias]

    def set(self, model: str, alias: str, version: int) -> None:
        """Give a version this name, also if another version had it. Raises InvalidInput, Conflict, StoreUnavailable."""
        if not re.fullmatch(MODEL_NAME, alias) or alias == CURRENT:
            raise InvalidInput.of_parameter("alias", RULE)

        def change(versions: dict[str, int]) -> None:
            versions[alias] = version
            if len(versions) > MAX_ALIASES:
                raise Conflict(f'Model "{model}" has {MAX_ALIASES} aliases, which is the limit. Delete one first.')

        self._change(model, change)

    def remove(self, model: str, alias: str) -> None:
        """Remove a name, if there is one. Raises Conflict, StoreUnavailable."""
        self._change(model, lambda versions: versions.pop(alias, None))

    def delete(self, model: str) -> None:
        """Remove all names of a deleted model. Raises StoreUnavailable."""
        self._store.delete(_key(model))
        self._known.pop(model, None)

    def _change(self, model: str, change: Callable[[dict[str, int]], object]) -> None:
        for _ in range(ATTEMPTS):
            known = self._read(model)
            versions = dict(known.versions)
            change(versions)
            if versions == known.versions:
                return
            content = msgspec.json.encode(versions)
            try:
                if known.etag is None:
                    etag = self._store.put_if_absent(_key(model), content)
                else:
                    etag = self._store.put_if_match(_key(model), content, known.etag)
            except BlobChanged:
                continue
            self._keep(model, _Known(versions, etag, time.monotonic()))
            return
        raise Conflict(f'Other clients are changing the aliases of "{model}" at the same time. Try again.')

    def _read(self, model: str) -> _Known:
        known = self._known.get(model)
        now = time.monotonic()
        try:
            if known is not None and known.etag is not None:
                blob = self._store.get_if_changed(_key(model), known.etag)
                if blob is None:
                    read = _Known(known.versions, known.etag, now)
                    self._keep(model, read)
                    return read
            else:
                blob = self._store.get(_key(model))
            read = _Known(_names_in(blob.content), blob.etag, now)
        except BlobNotFound:
            read = _Known({}, None, now)
        self._keep(model, read)
        return read

    def _keep(self, model: str, known: _Known) -> None:
        with self._lock:
            if len(self._known) >= MAX_KNOWN and model not in self._known:
                self._known.clear()
            self._known[model] = known


def _names_in(content: bytes) -> dict[str, int]:
    """Return the versions by name in a blob. One that was altered has none, and is replaced by the next change."""
    try:
        return _NAMES.decode(content)
    except msgspec.DecodeError:
        return {}


def _key(model: str) -> str:
    return f"{_PREFIX}/{model}.json"
