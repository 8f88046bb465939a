"""Reading of the pointers of models in a store. Those that were read are kept, and are polled while they are used."""

import contextlib
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from app.errors import ModelFileInvalid, ModelNotFound, NotFound, StoreMisconfigured, StoreUnavailable
from app.registry.bucket.disk_cache import DiskCache
from app.registry.bucket.keys import MODELS, pointer_key
from app.registry.bucket.pointer import Pointer
from app.registry.bucket.store_health import StoreHealth
from app.registry.names import MODEL_NAME, no_model
from app.registry.version_cache import CURRENT, CachedVersion, VersionCache
from app.storage.store import Blob, BlobNotFound, Store

IDLE_SECONDS = 600.0  # Time without a request after which a model's pointer is not polled any more.
POINTER_SECONDS = 1.0  # Longest wait for a pointer if another one is known.
POINTERS_AT_ONCE = 8  # Pointers read at the same time for a list of models.

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownPointer:
    """A pointer as it was read.

    If its revision is not above that of the one before, an operator has restored or emptied the store, and a number may
    belong to another version than before. A new epoch begins.
    """

    pointer: Pointer
    etag: str | None  # None for one from the disk
    epoch: str  # link of CachedVersion
    link: str  # link of CachedVersion for the current version

    @classmethod
    def of(cls, pointer: Pointer, etag: str | None, before: "KnownPointer | None" = None) -> "KnownPointer":
        epoch = before.epoch if before else ""
        if before and pointer != before.pointer and pointer.revision <= before.pointer.revision:
            epoch += "*"
        return cls(pointer, etag, epoch, f"{epoch}{pointer.current}")


def missing_pointer(url: str, model: str) -> str:
    """Return the message for a model that has blobs in the store at `url`, and no pointer."""
    return (
        f"{url}/{pointer_key(model)} is missing, so it is not known which versions there are. Restore it from a "
        "backup, or run `linserve-server migrate` from a copy of the models."
    )


class PointerReader:
    """Lists the models and versions in a store, without reading versions. Thread-safe."""

    def __init__(self, store: Store, cache: VersionCache, disk: DiskCache | None, pinned: str | None) -> None:
        """Remove current versions from `cache` if their model is deleted, and keep pointers in `disk`."""
        self.health = StoreHealth(store.url)
        self.watched = False  # True if a thread polls the pointers, so that the known ones are almost new
        self._store = store
        self._cache = cache
        self._disk = disk
        self._pinned = pinned
        self._known: dict[str, KnownPointer] = {}
        self._used: dict[str, float] = {}  # time of the last request, by model
        self._noting = threading.Lock()
        self._logged: dict[str, str] = {}  # what was logged last about a model

    @property
    def storage(self) -> Literal["store", "cache"]:
        """`cache` while the store cannot be reached, so that promotions elsewhere are not seen."""
        return "cache" if self.health.failing else "store"

    def models(self) -> list[str]:
        """Return the names of the models that have a version, sorted. Reads each pointer, and lists no versions."""
        try:
            self._check_reached()
            found = self.health.reach(lambda: self._store.list_names(MODELS), is_usual=False)
            names = [name for name in found if re.fullmatch(MODEL_NAME, name)]
        except StoreUnavailable:
            names = sorted({*self._known, *(self._disk.models() if self._disk else ())})
            if not self.watched or not names:
                raise
        with ThreadPoolExecutor(POINTERS_AT_ONCE, "pointers") as pool:
            return [name for name, exists in zip(names, pool.map(self._has_versions, names), strict=True) if exists]

    def versions(self, model: str) -> list[int]:
        """Return the numbers of all versions, ascending. Raises ModelNotFound if there are none."""
        return list(self._look(model).pointer.numbers())

    def current_number(self, model: str) -> int | None:
        """Return the number of the version that is current in the store now, or None."""
        return self._read_pointer(model)[0].current if re.fullmatch(MODEL_NAME, model) else None

    def had(self, model: str) -> bool:
        """Return True if the store has the model, or ever had it. Raises StoreUnavailable."""
        known = self._from_disk(model)
        return (known.pointer if known else self._read_pointer(model)[0]).last > 0

    def refresh(self, model: str) -> None:
        """Read the pointer now, so that `current` returns a version that was promoted elsewhere before this call.

        Raises ModelNotFound, StoreUnavailable.
        """
        if not re.fullmatch(MODEL_NAME, model):
            raise no_model(model)
        self._check_reached()
        self._fetch(model, POINTER_SECONDS if model in self._known else None)

    def probe(self) -> None:
        """Find out whether the store can be reached again. Raises StoreUnavailable."""
        with contextlib.suppress(BlobNotFound):
            self.health.reach(lambda: self._store.get(pointer_key(self._pinned or next(iter(self._known), "-"))))

    def served_models(self) -> list[str]:
        """Return the models that were served in the last IDLE_SECONDS."""
        since = time.monotonic() - IDLE_SECONDS
        return [model for model, used in list(self._used.items()) if used > since]

    def _read_pointer(self, model: str) -> tuple[Pointer, str | None]:
        """Return the pointer in the store now, and its tag; an empty one and None if there is none. Note it.

        Raises ModelFileInvalid, StoreUnavailable.
        """
        before = self._known.get(model)
        try:
            pointer, etag, is_new = self._get_pointer(model, before, keep=False)
        except ModelNotFound:
            return Pointer(), None
        if is_new:
            self._note_read(model, before, KnownPointer.of(pointer, etag, before))
        return pointer, etag

    def _note(self, model: str, pointer: Pointer, etag: str | None) -> None:
        """Note a pointer that this process has written. `current` follows it at its next call."""
        known = self._known.get(model)
        self._note_read(model, known, KnownPointer.of(pointer, etag, known))

    def _note_read(
        self, model: str, before: KnownPointer | None, now: KnownPointer, loaded: CachedVersion | None = None
    ) -> bool:
        """Note a pointer that was read while `before` was known, unless a newer one was noted meanwhile.

        `loaded` is its current version, if that was read. Return True if the model was served and was deleted.
        """
        with self._noting:
            known = self._known.get(model)
            if known is not before and known is not None and known.pointer.revision >= now.pointer.revision:
                return False
            if loaded is not None:
                self._cache.put((model, CURRENT), loaded)
            self._known[model] = now
            vanished = now.pointer.current is None and self._cache.drop((model, CURRENT))
        if self._disk and now is not before:
            is_restored = before is not None and before.epoch != now.epoch
            if is_restored:
                self._disk.drop_versions(model)
            # The first one that a process reads also replaces one from before the store was restored.
            self._disk.put_pointer(model, lambda: self._known[model].pointer, newer=before is None or is_restored)
        return vanished and not now.pointer.versions

    def _fetch(self, model: str, timeout: float | None = None) -> KnownPointer:
        """Return the pointer in the store now, after noting it. Raises ModelNotFound, StoreUnavailable."""
        before = self._known.get(model)
        pointer, etag, is_new = self._get_pointer(model, before, keep=self.watched, timeout=timeout)
        if before is not None and not is_new:
            return before
        known = KnownPointer.of(pointer, etag, before)
        self._note_read(model, before, known)
        return known

    def _get_pointer(
        self, model: str, before: KnownPointer | None, *, keep: bool, timeout: float | None = None
    ) -> tuple[Pointer, str | None, bool]:
        """Return the pointer in the store, its tag, and whether it is another one than `before`.

        If asked to `keep` it, `before` stays if the one in the store is gone or damaged. Raises ModelNotFound,
        ModelFileInvalid, StoreUnavailable.
        """
        key = pointer_key(model)

        def get() -> Blob | None:
            if before is None or before.etag is None:
                return self._store.get(key)
            return self._store.get_if_changed(key, before.etag)

        kept = before if keep else None
        try:
            blob = self.health.reach(get, timeout, is_usual=before is not None)
            if blob is None:
                assert before is not None
                return before.pointer, before.etag, False
            pointer = Pointer.decode(blob.content, f"{self._store.url}/{key}")
        except BlobNotFound:
            if kept is None or not kept.pointer.versions:
                raise no_model(model) from None
            self._log_once(model, "pointer refused", missing_pointer(self._store.url, model))
            return kept.pointer, kept.etag, False
        except ModelFileInvalid as error:
            self._log_once(model, "pointer refused", error.message)
            if kept is None:
                raise
            return kept.pointer, kept.etag, False
        return pointer, blob.etag, True

    def _look(self, model: str) -> KnownPointer:
        """Return the pointer now. In a watched process, the one known before if the store cannot be reached.

        Raises ModelNotFound, also for a model without versions; StoreUnavailable.
        """
        if not re.fullmatch(MODEL_NAME, model):
            raise no_model(model)
        known = self._known.get(model) or self._from_disk(model)
        try:
            self._check_reached()
            known = self._fetch(model, POINTER_SECONDS if known is not None and self.watched else None)
        except StoreUnavailable:
            if known is None or not self.watched:
                raise
            with self._noting:
                self._known.setdefault(model, known)
        if not known.pointer.versions:
            raise no_model(model)
        return known

    def _recent(self, model: str) -> KnownPointer:
        """Return the known pointer if it is polled, and read it otherwise. From now on it is polled."""
        known = self._polled(model) or self._look(model)
        if not known.pointer.versions:
            raise no_model(model)
        self._used[model] = time.monotonic()
        return known

    def _polled(self, model: str) -> KnownPointer | None:
        """Return the known pointer if it is polled."""
        is_polled = self.watched and time.monotonic() - self._used.get(model, -IDLE_SECONDS) < IDLE_SECONDS
        return self._known.get(model) if is_polled else None

    def _from_disk(self, model: str) -> KnownPointer | None:
        content = self._disk.pointer(model) if self._disk and self.watched else None
        if content is not None:
            with contextlib.suppress(ModelFileInvalid):
                return KnownPointer.of(Pointer.decode(content, ""), None)
        return None

    def _check_reached(self) -> None:
        """Raise StoreUnavailable at once if the last call to the store failed and a thread retries."""
        if self.watched:
            self.health.check()

    def _has_versions(self, model: str) -> bool:
        try:
            return bool((self._polled(model) or self._look(model)).pointer.versions)
        except StoreMisconfigured as error:  # the names could be listed, so the others can be read
            self._log_once(model, "model not read", error.message)
        except NotFound:
            if model not in self._known and not self._from_disk(model):
                self._log_once(model, "pointer refused", missing_pointer(self._store.url, model))
        except ModelFileInvalid:
            pass
        return False

    def _log_once(self, model: str, message: str, reason: str, **extra: int) -> None:
        """Log an error about a model unless it was the last one."""
        if self._logged.get(model) != message + reason:
            self._logged[model] = message + reason
            _log.error(message, extra={"model": model, "reason": reason, **extra})
