"""Reading of versions in a store: from memory on every request, from the store or the disk otherwise.

A model's pointer says which versions there are and which is current. The pointers that were read are kept, with the
versions in use, and `app.registry.bucket.watch` reads those of served models again. A process without that thread, such
as a trainer, reads the pointer whenever it asks for a current version.
"""

import contextlib
import io
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

from app.errors import ModelFileInvalid, ModelNotFound, NoCurrentVersion, NotFound, VersionNotFound
from app.registry.bucket.disk_cache import DiskCache
from app.registry.bucket.keys import MAX_VERSION, MODELS, pointer_key, version_key
from app.registry.bucket.pointer import Pointer
from app.registry.bucket.store_health import StoreHealth
from app.registry.model_card import ModelCard
from app.registry.names import MODEL_NAME, no_model, no_version
from app.registry.version_cache import CACHED_BYTES, CURRENT, CachedVersion, VersionCache
from app.registry.version_file import MAX_FILE_BYTES, FileContent, Version, read, read_card, read_folds
from app.regression.sufficient_statistics import SufficientStatistics
from app.storage.memory_budget import MemoryBudget
from app.storage.store import Blob, BlobNotFound, Store, StoreUnavailable

IDLE_SECONDS = 600.0  # Time without a request after which a model's pointer is not polled any more.
POINTER_SECONDS = 1.0  # Longest wait for a pointer if another one is known.
FILE_SECONDS = 5.0  # Longest wait for a version's file if there is a copy on the disk.
RECHECK_SECONDS = 5.0  # Interval at which a current version that cannot be served is read again.

MAX_OLDER = 10  # Older versions that are tried if the current one is damaged.
MAX_LISTED = 10  # Versions listed in a message.
MAX_MEMORY_FILE = 8 << 20  # Bytes of a file that is downloaded from memory, and so in one piece.
POINTERS_AT_ONCE = 8  # Pointers read at the same time for a list of models.
LOADING_LOCKS = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownPointer:
    """A pointer as it was read."""

    pointer: Pointer
    etag: str | None  # None for one from the disk
    link: str  # text of the current number, as in CachedVersion

    @classmethod
    def of(cls, pointer: Pointer, etag: str | None) -> "KnownPointer":
        return cls(pointer, etag, str(pointer.current))


class BucketReader:
    """Reads versions, and caches them. Thread-safe."""

    def __init__(
        self,
        store: Store,
        *,
        cached_bytes: int = CACHED_BYTES,
        pinned: str | None = None,
        budget: MemoryBudget | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        """Cache `cached_bytes` of versions, and in any case the current one of the model `pinned`.

        Versions in use that are not cached count in the `budget`. What is read is also kept in `cache_dir`.
        """
        self.health = StoreHealth(store.url)
        self.watched = False  # True if a thread polls the pointers, so that the known ones are almost new
        self._store = store
        self._pinned = pinned
        self._cache = VersionCache(cached_bytes, (pinned, CURRENT) if pinned else None, budget)
        self._disk = DiskCache(cache_dir, store.url) if cache_dir else None
        self._known: dict[str, KnownPointer] = {}
        self._used: dict[str, float] = {}  # time of the last request, by model
        self._noting = threading.Lock()
        self._loading = [threading.Lock() for _ in range(LOADING_LOCKS)]  # by the hash of the model
        self._logged: dict[str, str] = {}  # what was logged last about a model
        self._checked: dict[str, float] = {}  # time at which a damaged current version was read, by model

    @property
    def storage(self) -> Literal["store", "cache"]:
        """`cache` while the store cannot be reached, so that promotions elsewhere are not seen."""
        return "cache" if self.health.failing else "store"

    def models(self) -> list[str]:
        """Return the names of the models that have a version, sorted. Reads each pointer, and lists no versions."""
        try:
            self._check_reached()
            found = self.health.reach(lambda: self._store.list_names(MODELS))
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

    def served_number(self, model: str) -> int | None:
        """Return the number of the version that is served as current, or None."""
        try:
            return self.current(model).card.version
        except (ModelNotFound, ModelFileInvalid):
            return None

    def get_cached(self, model: str, number: int | None = None) -> Version | None:
        """Return the current version, or the one with this number, from memory. Raises nothing."""
        known = self._known.get(model)
        if known is None or not self.watched:
            return None
        now = time.monotonic()
        if now - self._used.get(model, -IDLE_SECONDS) >= IDLE_SECONDS:
            return None
        if number is not None:
            entry = self._cache.get((model, number)) if known.pointer.contains(number) else None
        elif (entry := self._cache.get((model, CURRENT))) is not None and entry.link != known.link:
            return None  # promoted in this process, and not read yet
        if entry is None:
            return None
        self._used[model] = now
        return entry.version

    def current(self, model: str) -> Version:
        """Return the promoted version.

        If it is damaged or gone, the version served before is returned, or else the newest intact one below it. If the
        store cannot be reached, a watched process serves the version from its memory, or else from the disk. Raises
        ModelNotFound, NoCurrentVersion; ModelFileInvalid if no version is intact; WorkerBusy; StoreUnavailable.
        """
        if (version := self.get_cached(model)) is not None:
            return version
        known = self._recent(model)
        if known.pointer.current is None:
            raise self._no_current(model, known.pointer)
        with self._loading[hash(model) % LOADING_LOCKS]:  # one thread reads, and others wait for its result
            known = self._known.get(model, known)
            entry = self._cache.get((model, CURRENT))
            if entry is None or entry.link != known.link or (entry.damaged and not self.watched):
                entry = self._load_current(model, known, entry)
                self._cache.put((model, CURRENT), entry)
            return entry.version

    def version(self, model: str, number: int) -> Version:
        """Return any version. Raises ModelNotFound, VersionNotFound, ModelFileInvalid, WorkerBusy, StoreUnavailable."""
        if (version := self.get_cached(model, number)) is not None:
            return version
        self._check_exists(model, number)
        key = model, number
        with self._loading[hash(key) % LOADING_LOCKS]:
            entry = self._cache.get(key)
            if entry is None:
                entry = CachedVersion(self._load(key, number))
                self._cache.put(key, entry)
            return entry.version

    def file(self, model: str, number: int) -> BinaryIO:
        """Open the version's file. Raises as `version` does, except WorkerBusy."""
        self._check_exists(model, number)
        key = version_key(model, number)
        try:
            self._check_reached()
            file = self.health.reach(lambda: self._store.open_read(key))
            if _length(file) > MAX_MEMORY_FILE:
                return file
            with file:
                return io.BytesIO(self.health.reach(file.read))
        except BlobNotFound:
            raise self._gone(model, number) from None
        except StoreUnavailable:
            content = self._disk.version(model, number) if self._disk else None
            if content is None:
                raise
            return io.BytesIO(content)

    def folds(self, model: str, number: int) -> dict[int, SufficientStatistics]:
        """Return the statistics of a version's folds, which are not cached; none if it has none stored."""
        self._check_exists(model, number)
        return read_folds(self._content(model, number))

    def refresh(self, model: str) -> None:
        """Read the pointer now, so that `current` returns a version that was promoted elsewhere before this call.

        Raises ModelNotFound, StoreUnavailable.
        """
        if not re.fullmatch(MODEL_NAME, model):
            raise no_model(model)
        self._check_reached()
        self._fetch(model, POINTER_SECONDS if model in self._known else None)

    def poll(self, model: str) -> None:
        """Read the pointer of a served model, and its current version before the pointer takes effect.

        Raises StoreUnavailable.
        """
        before = self._known.get(model)
        with contextlib.suppress(ModelNotFound, ModelFileInvalid):
            pointer, etag, is_new = self._get_pointer(model, before, keep=True)
            known = KnownPointer.of(pointer, etag) if is_new or before is None else before
            entry = self._cache.get((model, CURRENT))
            if entry is not None and known.pointer.current is not None and self._has_to_load(model, entry, known):
                entry = self._load_current(model, known, entry)
                with self._noting:
                    if self._known.get(model) is before:
                        self._cache.put((model, CURRENT), entry)
                        self._known[model] = known
            if is_new and self._note_read(model, before, known):
                _log.warning("model vanished", extra={"model": model})

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
            self._note_read(model, before, KnownPointer.of(pointer, etag))
        return pointer, etag

    def _note(self, model: str, pointer: Pointer, etag: str | None) -> None:
        """Note a pointer that this process has written. `current` follows it at its next call."""
        known = self._known.get(model)
        self._note_read(model, known, KnownPointer.of(pointer, etag))

    def _note_read(self, model: str, before: KnownPointer | None, now: KnownPointer) -> bool:
        """Note a pointer that was read while `before` was known, unless a newer one was noted meanwhile.

        Return True if the model was served and was deleted.
        """
        with self._noting:
            known = self._known.get(model)
            if known is not before and known is not None and known.pointer.revision >= now.pointer.revision:
                return False
            self._known[model] = now
            vanished = now.pointer.current is None and self._cache.drop((model, CURRENT))
        if self._disk:
            self._disk.put_pointer(model, now.pointer)
        return vanished and not now.pointer.versions

    def _fetch(self, model: str, timeout: float | None = None) -> KnownPointer:
        """Return the pointer in the store now, after noting it. Raises ModelNotFound, StoreUnavailable."""
        before = self._known.get(model)
        pointer, etag, is_new = self._get_pointer(model, before, keep=self.watched, timeout=timeout)
        if before is not None and not is_new:
            return before
        known = KnownPointer.of(pointer, etag)
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
            blob = self.health.reach(get, timeout)
            if blob is None:
                assert before is not None
                return before.pointer, before.etag, False
            pointer = Pointer.decode(blob.content, f"{self._store.url}/{key}")
        except BlobNotFound:
            if kept is None or not kept.pointer.versions:
                raise no_model(model) from None
            self._log_once(model, "pointer refused", f"{self._store.url}/{key} is missing.")
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

    def _on_disk(self, model: str) -> list[int]:
        return self._disk.numbers(model) if self._disk else []

    def _from_disk(self, model: str) -> KnownPointer | None:
        content = self._disk.pointer(model) if self._disk and self.watched else None
        if content is not None:
            with contextlib.suppress(ModelFileInvalid):
                return KnownPointer.of(Pointer.decode(content, ""), None)
        return None

    def _check_reached(self) -> None:
        """Raise StoreUnavailable at once if the store was not reached lately, and a thread tries it again."""
        if self.watched:
            self.health.check()

    def _check_exists(self, model: str, number: int) -> None:
        """Raise ModelNotFound, VersionNotFound or StoreUnavailable if there is no version with this number."""
        if self._recent(model).pointer.contains(number) or self._look(model).pointer.contains(number):
            return
        self._check_reached()  # it may have been published since
        raise no_version(model, number)

    def _has_versions(self, model: str) -> bool:
        with contextlib.suppress(NotFound, ModelFileInvalid):
            return bool((self._polled(model) or self._look(model)).pointer.versions)
        return False

    def _has_to_load(self, model: str, entry: CachedVersion, known: KnownPointer) -> bool:
        if entry.link != known.link:
            return True
        return bool(entry.damaged) and time.monotonic() - self._checked.get(model, 0.0) > RECHECK_SECONDS

    def _load_current(self, model: str, known: KnownPointer, cached: CachedVersion | None) -> CachedVersion:
        """Return the version that the pointer names, or the one that is served in its place."""
        key, number = (model, CURRENT), known.pointer.current or 0
        in_its_place = number, 0
        error: ModelFileInvalid | StoreUnavailable
        try:
            if not known.pointer.contains(number):
                raise self._gone(model, number)
            version = self._load(key, number)
            self._logged.pop(model, None)
            return CachedVersion(version, known.link)
        except StoreUnavailable as unavailable:
            if not self.watched:
                raise
            error = unavailable
        except (VersionNotFound, ModelFileInvalid) as fault:
            error = ModelFileInvalid(f'No version of "{model}" can be served. {fault.message}')
            self._checked[model] = time.monotonic()
            self._log_once(model, "version refused", fault.message, version=number)
        if cached is not None and known.pointer.contains(cached.version.card.version):
            return CachedVersion(cached.version, known.link, in_its_place)
        older: Iterable[int] = known.pointer.numbers_below(number)
        if isinstance(error, StoreUnavailable):
            older = [candidate for candidate in self._on_disk(model) if known.pointer.contains(candidate)]
        for candidate in islice(older, MAX_OLDER):
            with contextlib.suppress(VersionNotFound, ModelFileInvalid, StoreUnavailable):
                return CachedVersion(self._load(key, candidate), known.link, in_its_place)
        raise error

    def _load(self, key: tuple[str, int], number: int) -> Version:
        """Return a version that is in use but not cached, or read it."""
        model = key[0]
        if (version := self._cache.shared(model, number)) is not None:
            return version
        return self._read(model, number, lambda size: self._cache.check_room(key, size))

    def _read(self, model: str, number: int, check_room: Callable[[int], None] = lambda _size: None) -> Version:
        """Read a version. It is named after its key, so a copied model has its own name.

        `check_room` is called with the size of the file first, and may raise. Raises VersionNotFound, ModelFileInvalid,
        StoreUnavailable.
        """
        file = self._content(model, number, check_room)
        version = read(file)
        if self._disk:
            self._disk.put_version(model, number, file.content)
        return replace(version, card=replace(version.card, model=model, version=number))

    def _content(self, model: str, number: int, check_room: Callable[[int], None] = lambda _size: None) -> FileContent:
        """Return the bytes of a version's file in the store, or of its copy if the store cannot be reached."""
        place = self._place(model, number)
        copied = self._disk.size(model, number) if self._disk else None
        try:
            self._check_reached()
            content = self.health.reach(
                lambda: self._get_file(model, number, check_room), FILE_SECONDS if copied is not None else None
            )
        except BlobNotFound:
            raise self._gone(model, number) from None
        except StoreUnavailable:
            if self._disk is None or copied is None:
                raise
            check_room(copied)
            copy = self._disk.version(model, number)
            if copy is None:
                raise
            content, place = copy, self._disk.place(model, number)
        return FileContent(content, place, lambda other: self._card(model, other))

    def _get_file(self, model: str, number: int, check_room: Callable[[int], None]) -> bytes:
        """Return the bytes of a version's file, after a look at their number."""
        with self._store.open_read(version_key(model, number)) as file:
            size = _length(file)
        if size > MAX_FILE_BYTES:
            raise ModelFileInvalid(f"{self._place(model, number)} is larger than any model can be.")
        check_room(size)
        return self._store.get(version_key(model, number)).content

    def _card(self, model: str, number: int) -> ModelCard | None:
        with contextlib.suppress(NotFound, ModelFileInvalid):
            return read_card(self._content(model, number))
        return None

    def _gone(self, model: str, number: int) -> VersionNotFound | ModelFileInvalid:
        """Return the error for a version without a file: it was deleted just now, unless the pointer still has it."""
        with contextlib.suppress(NotFound, ModelFileInvalid, StoreUnavailable):
            if self._fetch(model).pointer.contains(number):
                return ModelFileInvalid(
                    f"{self._place(model, number)} is missing, but the model's pointer lists it. Restore it from a "
                    "backup, or promote another version."
                )
        return no_version(model, number)

    def _place(self, model: str, number: int) -> str:
        return f"{self._store.url}/{version_key(model, number)}"

    def _log_once(self, model: str, message: str, reason: str, **extra: int) -> None:
        """Log an error about a model unless it was the last one."""
        if self._logged.get(model) != message + reason:
            self._logged[model] = message + reason
            _log.error(message, extra={"model": model, "reason": reason, **extra})

    def _no_current(self, model: str, pointer: Pointer) -> NoCurrentVersion:
        newest = islice(_newest(pointer), MAX_LISTED)
        listed = ", ".join(map(str, sorted(newest)))
        return NoCurrentVersion(f'Model "{model}" has no current version; promote one. Its versions: {listed}.')


def _newest(pointer: Pointer) -> Iterator[int]:
    return pointer.numbers_below(MAX_VERSION)


def _length(file: BinaryIO) -> int:
    """Return the bytes of a file that can be sought, and go back to its beginning."""
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    return length
