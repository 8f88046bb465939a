"""Reading of versions in a store: from memory on every request, from the store or the disk otherwise.

A model's pointer says which versions there are and which is current. `app.registry.bucket.watch` polls the pointers of
served models. A process without that thread, such as a trainer, reads the pointer whenever it needs a current version.
"""

import contextlib
import io
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from app.errors import ModelFileInvalid, ModelNotFound, NoCurrentVersion, NotFound, StoreUnavailable, VersionNotFound
from app.registry.bucket.disk_cache import DiskCache
from app.registry.bucket.keys import MAX_VERSION, version_key
from app.registry.bucket.pointer import Pointer
from app.registry.bucket.pointer_reader import IDLE_SECONDS, KnownPointer, PointerReader
from app.registry.card_cache import CardCache
from app.registry.model_card import ModelCard
from app.registry.names import no_version
from app.registry.version_cache import CACHED_BYTES, CURRENT, CachedVersion, VersionCache
from app.registry.version_file import MAX_FILE_BYTES, FileContent, Version, file_length, read, read_card, read_folds
from app.regression.sufficient_statistics import SufficientStatistics
from app.storage.memory_budget import MemoryBudget
from app.storage.store import BlobNotFound, Store

FILE_SECONDS = 2.0  # Longest wait for the size of a version's file if there is a copy on the disk.
RECHECK_SECONDS = 5.0  # Interval at which a current version that cannot be served is read again.

MAX_OLDER = 10  # Older versions that are tried if the current one is damaged.
MAX_LISTED = 10  # Versions listed in a message.
MAX_MEMORY_FILE = 8 << 20  # Bytes of a file that is downloaded from memory, and so in one piece.
LOADING_LOCKS = 64

_log = logging.getLogger(__name__)


class BucketReader(PointerReader):
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
        cache = VersionCache(cached_bytes, (pinned, CURRENT) if pinned else None, budget)
        super().__init__(store, cache, DiskCache(cache_dir, store.url) if cache_dir else None, pinned)
        self._loading = [threading.Lock() for _ in range(LOADING_LOCKS)]  # by the hash of the model
        self._cards = CardCache()
        self._checked: dict[str, float] = {}  # time at which a damaged current version was read, by model

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
            if entry is not None and entry.link != known.epoch:
                return None
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
        epoch = self._check_exists(model, number)
        key = model, number
        with self._loading[hash(key) % LOADING_LOCKS]:
            entry = self._cache.get(key)
            if entry is None or entry.link != epoch:
                entry = CachedVersion(self._load(key, number), epoch)
                self._cache.put(key, entry)
            return entry.version

    def card(self, model: str, number: int) -> ModelCard:
        """Return the card of any version, without checking its tensors.

        Raises ModelNotFound, VersionNotFound, ModelFileInvalid, StoreUnavailable.
        """
        epoch = self._check_exists(model, number)
        if (entry := self._cache.get((model, number))) is not None and entry.link == epoch:
            return entry.version.card

        def read_named() -> ModelCard:
            return replace(read_card(self._content(model, number)), model=model, version=number)

        return self._cards.get((model, number, epoch), read_named)

    def file(self, model: str, number: int) -> BinaryIO:
        """Open the version's file. Raises as `version` does, except WorkerBusy."""
        self._check_exists(model, number)
        key = version_key(model, number)
        try:
            self._check_reached()
            file = self.health.reach(lambda: self._store.open_read(key))
            if file_length(file) > MAX_MEMORY_FILE:
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

    def poll(self, model: str) -> None:
        """Read the pointer of a served model, and its current version before the pointer takes effect.

        Raises StoreUnavailable.
        """
        before = self._known.get(model)
        with contextlib.suppress(ModelNotFound, ModelFileInvalid):
            pointer, etag, is_new = self._get_pointer(model, before, keep=True)
            known = KnownPointer.of(pointer, etag, before) if is_new or before is None else before
            entry, loaded = self._cache.get((model, CURRENT)), None
            if entry is not None and known.pointer.current is not None and self._has_to_load(model, entry, known):
                loaded = self._load_current(model, known, entry)
            if (is_new or loaded) and self._note_read(model, before, known, loaded):
                _log.warning("model vanished", extra={"model": model})

    def _on_disk(self, model: str) -> list[int]:
        return self._disk.numbers(model) if self._disk else []

    def _check_exists(self, model: str, number: int) -> str:
        """Raise ModelNotFound, VersionNotFound or StoreUnavailable if there is no version with this number.

        Return the pointer's epoch.
        """
        for look in (self._recent, self._look):
            if (known := look(model)).pointer.contains(number):
                return known.epoch
        self._check_reached()  # it may have been published since
        raise no_version(model, number)

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
            content = self._get_file(model, number, check_room, FILE_SECONDS if copied is not None else None)
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

    def _get_file(self, model: str, number: int, check_room: Callable[[int], None], timeout: float | None) -> bytes:
        """Return the bytes of a version's file, after reading its size within `timeout` seconds."""
        key = version_key(model, number)
        size = self.health.reach(lambda: self._store.info(key), timeout).size
        if size > MAX_FILE_BYTES:
            raise ModelFileInvalid(f"{self._place(model, number)} is larger than any model can be.")
        check_room(size)
        return self.health.reach(lambda: self._store.get(key)).content

    def _card(self, model: str, number: int) -> ModelCard | None:
        with contextlib.suppress(NotFound, ModelFileInvalid):
            return read_card(self._content(model, number))
        return None

    def _gone(self, model: str, number: int) -> VersionNotFound | ModelFileInvalid:
        """Return the error for a version without a file: it was deleted just now, unless the pointer still has it."""
        with contextlib.suppress(NotFound, ModelFileInvalid, StoreUnavailable):
            if self._get_pointer(model, None, keep=False)[0].contains(number):
                return ModelFileInvalid(
                    f"{self._place(model, number)} is missing, but the model's pointer lists it. Restore it from a "
                    "backup, or promote another version."
                )
        return no_version(model, number)

    def _place(self, model: str, number: int) -> str:
        return f"{self._store.url}/{version_key(model, number)}"

    def _no_current(self, model: str, pointer: Pointer) -> NoCurrentVersion:
        newest = islice(pointer.numbers_below(MAX_VERSION), MAX_LISTED)
        listed = ", ".join(map(str, sorted(newest)))
        return NoCurrentVersion(f'Model "{model}" has no current version; promote one. Its versions: {listed}.')
