"""A cache of versions with a limit in bytes, which evicts the least recently used."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from app.registry.version_file import Version

K = TypeVar("K", bound=Hashable)
E = TypeVar("E")

# Memory of a version: bytes of its objects, and times its file's length for its matrices and their decomposition.
ENTRY_BYTES = 40 << 10
FILE_TIMES = 5


def memory_of(version: Version) -> int:
    """Return an estimate of the bytes that a version takes in memory."""
    return ENTRY_BYTES + FILE_TIMES * version.size


class Cache(Generic[K, E]):
    """Entries by key, least recently used first.

    Above `most_bytes`, the first entries are evicted, except the one with the key `kept` and the newest. The newest
    stays even if it exceeds the limit alone, because its caller uses it now.
    """

    def __init__(self, most_bytes: int, size: Callable[[E], int], kept: K | None = None) -> None:
        self._most, self._size, self._kept = most_bytes, size, kept
        self._entries: OrderedDict[K, E] = OrderedDict()
        self._bytes = 0
        self._changing = threading.Lock()
        self._reading = threading.Lock()

    def get(self, key: K) -> E | None:
        """Return the entry and mark it as the most recently used. Never waits for a lock, and so not for a disk."""
        entry = self._entries.get(key)
        if entry is not None and key != self._kept:
            with contextlib.suppress(KeyError):  # evicted meanwhile
                self._entries.move_to_end(key)
        return entry

    def get_or_read(self, key: K, read: Callable[[], E]) -> E:
        """Return the entry, or read and add it. One thread reads at a time, so each entry is read once."""
        with self._reading:
            entry = self.get(key)
            if entry is None:
                entry = read()
                self.put(key, entry)
            return entry

    def put(self, key: K, entry: E) -> None:
        """Add or replace an entry, and evict others until the rest fits."""
        with self._changing:
            self._bytes += self._size(entry)
            if (before := self._entries.pop(key, None)) is not None:
                self._bytes -= self._size(before)
            self._entries[key] = entry
            for other in list(self._entries):
                if self._bytes <= self._most:
                    break
                if other not in (key, self._kept):
                    self._bytes -= self._size(self._entries.pop(other))

    def drop(self, key: K) -> bool:
        """Remove an entry. Return False if there is none."""
        with self._changing:
            if (entry := self._entries.pop(key, None)) is None:
                return False
            self._bytes -= self._size(entry)
            return True
