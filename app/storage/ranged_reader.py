"""A file that reads a remote blob in ranges."""

import io
from collections.abc import Callable
from typing import Any, BinaryIO, TypeAlias, cast

READ_AHEAD = 1 << 20  # Bytes read at a time if less is needed.
MAX_RANGE = 8 << 20  # Longest range in one request, in bytes, so that a slow connection does not exceed the timeout.


# Returns the bytes from `start` up to, but excluding, `end`.
Fetch: TypeAlias = Callable[[int, int], bytes | memoryview]


class _RangedReader(io.RawIOBase):
    def __init__(self, size: int, fetch: Fetch, close: Callable[[], None] | None) -> None:
        self._size, self._fetch, self._close, self._position = size, fetch, close, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readall(self) -> bytes:
        # The inherited method reads 8 KiB at a time.
        parts = []
        while self._position < self._size:
            end = min(self._position + MAX_RANGE, self._size)
            parts.append(self._fetch(self._position, end))
            self._position = end
        return b"".join(parts)

    def close(self) -> None:
        if self._close is not None and not self.closed:
            self._close()
        super().close()

    def readinto(self, target: Any, /) -> int:
        buffer = memoryview(target).cast("B")
        end = min(self._position + min(len(buffer), MAX_RANGE), self._size)
        count = end - self._position
        if count <= 0:
            return 0
        buffer[:count] = self._fetch(self._position, end)
        self._position = end
        return count


def open_ranges(size: int, fetch: Fetch, close: Callable[[], None] | None = None) -> BinaryIO:
    """Return a file of `size` bytes that are fetched in ranges. `close` is called when the file is closed."""
    return cast(BinaryIO, io.BufferedReader(_RangedReader(size, fetch, close), READ_AHEAD))
