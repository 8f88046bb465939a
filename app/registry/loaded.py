"""Versions that are kept in memory beside the current ones."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from app.registry.version_file import Version


class Loaded:
    """The versions that were read last, as many as have their files in so many bytes; one in any case."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._versions: OrderedDict[Hashable, Version] = OrderedDict()
        self._changing = threading.Lock()

    def get(self, key: Hashable) -> Version | None:
        return self._versions.get(key)

    def get_or_read(self, key: Hashable, read: Callable[[], Version]) -> Version:
        """The version that is kept, or else the one that `read` reads: by one thread at a time, and so only once."""
        with self._changing:
            version = self._versions.get(key)
            if version is None:
                version = self._versions[key] = read()
                self._bytes += version.size
                while self._bytes > self._most and len(self._versions) > 1:
                    self._bytes -= self._versions.popitem(last=False)[1].size
            return version

    def drop(self, key: Hashable) -> None:
        with self._changing:
            if (version := self._versions.pop(key, None)) is not None:
                self._bytes -= version.size
