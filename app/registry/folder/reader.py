"""Reading of versions: the current one on every request, and any other."""

import contextlib
import errno
import logging
import os
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

from app.errors import ModelFileInvalid, ModelNotFound, NoCurrentVersion, VersionNotFound
from app.registry.card_cache import CardCache
from app.registry.folder.model_folder import ModelFolder
from app.registry.folder.publication import file_name, number_of
from app.registry.model_card import ModelCard
from app.registry.names import MODEL_NAME, no_model, no_version
from app.registry.version_cache import CACHED_BYTES, CURRENT, CachedVersion, VersionCache
from app.registry.version_file import Version, open_file, read, read_card, read_folds
from app.regression.sufficient_statistics import SufficientStatistics
from app.storage.memory_budget import MemoryBudget

MAX_LISTED = 10  # Versions listed in a message.
SMALL_BYTES = 256 << 10  # Length of a file that is read in less than a millisecond.

NO_LINK = ""  # Target of a `current` that is a file or a folder.
_log = logging.getLogger(__name__)


class FolderReader(ModelFolder):
    """Reads versions, and caches them."""

    def __init__(
        self,
        folder: Path,
        *,
        cached_bytes: int = CACHED_BYTES,
        pinned: str | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        """Cache `cached_bytes` of versions, and in any case the current one of the model `pinned`.

        Versions in use that are not cached count in the `budget`.
        """
        super().__init__(folder)
        self._cache = VersionCache(cached_bytes, (pinned, CURRENT) if pinned else None, budget)
        self._cards = CardCache()
        self._reading_current = threading.Lock()
        self._reading_version = threading.Lock()
        self._damage_logged: dict[str, tuple[str, tuple[int, int]]] = {}

    @property
    def storage(self) -> Literal["folder"]:
        return "folder"

    def refresh(self, model: str) -> None:
        """Do nothing: `current` looks at the folder on each call."""

    def get_cached(self, model: str, number: int | None = None) -> Version | None:
        """Return the current version, or the one with this number, if that does not block an event loop.

        Nothing is read if nothing changed, which costs one `readlink` or `stat`. After a promotion, a small file is
        read at once. None if `current` or `version` has more to do. Raises as they do.
        """
        if number is not None:
            self.path(model, number)
            return entry.version if (entry := self._cache.get((model, number))) else None
        cached = self._cache.get((model, CURRENT))
        if cached is None:
            return None
        try:
            link = os.readlink(f"{self._folder}/{model}/current")  # noqa: PTH115 - a third of the time of Path's
        except OSError:
            link = NO_LINK
        if cached.link == link and not cached.damaged:
            return cached.version
        if self._state_of(model, link)[0] > SMALL_BYTES or not self._reading_current.acquire(blocking=False):
            return None
        try:
            return self._read_current(model)
        finally:
            self._reading_current.release()

    def current(self, model: str) -> Version:
        """Return the promoted version. One `readlink` if nothing changed, so a promotion takes effect at once.

        If the promoted file is damaged, the version served before is returned, or else the newest intact one below it,
        until the file changes. If the folder cannot be read, the version served before is returned too. A version that
        was evicted counts as not served before. Raises ModelNotFound, NoCurrentVersion; ModelFileInvalid if no version
        is intact; WorkerBusy; Unavailable.
        """
        if (version := self.get_cached(model)) is not None:
            return version
        if not re.fullmatch(MODEL_NAME, model):
            raise no_model(model)
        with self._reading_current:  # one thread reads, and others wait for its result
            return self._read_current(model)

    def version(self, model: str, number: int) -> Version:
        """Return any version. Raises ModelNotFound, VersionNotFound, ModelFileInvalid, WorkerBusy."""
        if (version := self.get_cached(model, number)) is not None:
            return version
        key = model, number
        with self._reading_version:  # one thread reads, and others wait for its result
            entry = self._cache.get(key)
            if entry is None:
                entry = CachedVersion(self._load(key, number))
                self._cache.put(key, entry)
            return entry.version

    def card(self, model: str, number: int) -> ModelCard:
        """Return the card of any version, without checking its tensors.

        Raises ModelNotFound, VersionNotFound, ModelFileInvalid.
        """
        path = self.path(model, number)
        if (entry := self._cache.get((model, number))) is not None:
            return entry.version.card
        key = model, number, self._state_of(model, file_name(number))
        try:
            return self._cards.get(key, lambda: replace(read_card(path), model=model, version=number))
        except FileNotFoundError:
            raise no_version(model, number) from None

    def file(self, model: str, number: int) -> BinaryIO:
        """Open the version's file. It can be read to its end even if the version is deleted meanwhile.

        Raises ModelNotFound, VersionNotFound, ModelFileInvalid.
        """
        try:
            return open_file(self.path(model, number))
        except FileNotFoundError:
            raise no_version(model, number) from None

    def folds(self, model: str, number: int) -> dict[int, SufficientStatistics]:
        """Return the statistics of a version's folds, which are not cached; none if it has none stored.

        Raises as `version` does.
        """
        try:
            return read_folds(self.path(model, number))
        except FileNotFoundError:
            raise no_version(model, number) from None

    def served_number(self, model: str) -> int | None:
        """Return the number of the version that is served as current, or None. Raises Unavailable."""
        try:
            return self.current(model).card.version
        except (ModelNotFound, ModelFileInvalid):
            return None

    def _read_current(self, model: str) -> Version:
        key = model, CURRENT
        cached = self._cache.get(key)
        try:
            link = str((self._folder / model / "current").readlink())
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and self._folder.is_dir():
                if self._cache.drop(key):
                    _log.warning("model vanished", extra={"model": model})
                raise self._no_current(model) from None
            if error.errno != errno.EINVAL:
                unavailable = self._unreadable(error)
                if cached is None:
                    raise unavailable from None
                return cached.version
            link = NO_LINK
        if cached and cached.link == link and (not cached.damaged or cached.damaged == self._state_of(model, link)):
            return cached.version
        # One reference is swapped. Requests in progress keep the version they began with.
        entry = self._load_current(model, link, cached)
        self._cache.put(key, entry)
        return entry.version

    def _load_current(self, model: str, link: str, cached: CachedVersion | None) -> CachedVersion:
        """Return the version that `link` names, or the one that is served in its place."""
        key, number, state = (model, CURRENT), number_of(link) or 0, self._state_of(model, link)
        try:
            if link == NO_LINK:  # in a copy of the folder that followed the links
                raise VersionNotFound("`current` is not a link to a version. Promote one.")
            return CachedVersion(self._load(key, number), link)
        except (VersionNotFound, ModelFileInvalid) as error:
            invalid = ModelFileInvalid(f'No version of "{model}" can be served. {error.message}')
            if self._damage_logged.get(model) != (link, state):  # once, not with every request
                self._damage_logged[model] = link, state
                _log.error("version refused", extra={"model": model, "version": number, "reason": str(error)})
        if cached is not None:
            return CachedVersion(cached.version, link, state)
        older = (candidate for candidate, kind in self._files(model) if kind == "safetensors" and candidate < number)
        for candidate in sorted(older, reverse=True):
            with contextlib.suppress(VersionNotFound, ModelFileInvalid):
                return CachedVersion(self._load(key, candidate), link, state)
        raise invalid

    def _load(self, key: tuple[str, int], number: int) -> Version:
        """Return a version that is in use but not cached, or read it."""
        if (version := self._cache.shared(key[0], number)) is not None:
            return version
        self._cache.check_room(key, self._state_of(key[0], file_name(number))[0])
        return self._read(key[0], number)

    def _read(self, model: str, number: int) -> Version:
        """Read a version. It is named after its folder and file, so a copied model has its own name."""
        try:
            version = read(self._path(model, number))
        except FileNotFoundError:
            raise no_version(model, number) from None
        return replace(version, card=replace(version.card, model=model, version=number))

    def _no_current(self, model: str) -> NoCurrentVersion:
        listed = ", ".join(map(str, self.versions(model)[-MAX_LISTED:]))
        return NoCurrentVersion(f'Model "{model}" has no current version; promote one. Its versions: {listed}.')
