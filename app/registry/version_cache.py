"""Versions in memory, bounded by bytes. The least recently used are evicted first."""

import threading
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakValueDictionary

from cachetools import LRUCache

from app.registry.version_file import Version
from app.storage.memory_budget import MemoryBudget

# Memory of a version: bytes of its objects, and times its file's length for its matrices and their decomposition.
ENTRY_BYTES = 40 << 10
FILE_TIMES = 5

CACHED_BYTES = 64 << 20  # Bytes of cached versions by default. Each takes some kB, unless the model is wide.
CURRENT = 0  # Number under which current versions are cached.

Key: TypeAlias = tuple[str, int]  # model and number


def memory_of(size: int) -> int:
    """Return an estimate of the bytes that a version takes in memory, from the `size` of its file."""
    return ENTRY_BYTES + FILE_TIMES * size


@dataclass(frozen=True)
class CachedVersion:
    version: Version
    link: str = ""  # target of `current`, if this is the current version
    damaged: tuple[int, int] | None = None  # size and time of that target, if another version is served in its place

    @property
    def memory(self) -> int:
        return memory_of(self.version.size)


class VersionCache:
    """Versions by key, `max_bytes` in all. The one with the key `pinned` is never evicted.

    A version that does not fit is not cached, but requests that use it at the same time share it. Versions that are in
    use and not in the cache count in the memory budget of the requests.
    """

    def __init__(self, max_bytes: int, pinned: Key | None = None, budget: MemoryBudget | None = None) -> None:
        self._max_bytes, self._pinned_key, self._budget = max_bytes, pinned, budget
        self._pinned: CachedVersion | None = None
        self._entries: LRUCache[Key, CachedVersion] = LRUCache(max_bytes, getsizeof=lambda entry: entry.memory)
        self._uncached: WeakValueDictionary[Key, Version] = WeakValueDictionary()
        self._lock = threading.Lock()  # never held while a file is read

    def get(self, key: Key) -> CachedVersion | None:
        """Return the entry and mark it as the most recently used."""
        if key == self._pinned_key:
            return self._pinned
        with self._lock:
            return self._entries.get(key)

    def put(self, key: Key, entry: CachedVersion) -> None:
        """Add or replace an entry, and evict others until all fit. An entry that cannot fit is not added."""
        with self._lock:
            removed = [self._remove(key)]
            if key == self._pinned_key:
                self._pinned = entry
            elif entry.memory <= self._capacity:
                removed += self._evict(self._capacity - entry.memory)
                self._entries[key] = entry
            else:
                self._share(key[0], entry)
            removed += self._evict(self._capacity)
        for old in removed:
            if old is not None and old.version is not entry.version:
                self._track(old)

    def drop(self, key: Key) -> bool:
        """Remove an entry. Return False if there is none."""
        with self._lock:
            entry = self._remove(key)
        if entry is None:
            return False
        self._track(entry)
        return True

    def shared(self, model: str, number: int) -> Version | None:
        """Return a version that does not fit into the cache and is in use."""
        return self._uncached.get((model, number))

    def check_room(self, key: Key, size: int) -> None:
        """Raise WorkerBusy if other versions in use leave too little memory for one with a file of `size` bytes."""
        if self._budget is not None and key != self._pinned_key:
            memory = memory_of(size)
            self._budget.check_room(0 if memory <= self._capacity else memory)

    @property
    def _capacity(self) -> int:
        """The bytes for all versions but the pinned one."""
        return self._max_bytes - (self._pinned.memory if self._pinned else 0)

    def _remove(self, key: Key) -> CachedVersion | None:
        if key != self._pinned_key:
            return self._entries.pop(key, None)
        removed, self._pinned = self._pinned, None
        return removed

    def _evict(self, limit: int) -> list[CachedVersion | None]:
        evicted: list[CachedVersion | None] = []
        while self._entries and self._entries.currsize > limit:
            evicted.append(self._entries.popitem()[1])
        return evicted

    def _share(self, model: str, entry: CachedVersion) -> None:
        key = model, entry.version.card.version
        if self._uncached.get(key) is not entry.version:
            self._uncached[key] = entry.version
            self._track(entry)

    def _track(self, entry: CachedVersion) -> None:
        if self._budget is not None:
            self._budget.track(entry.version.model, entry.memory)
