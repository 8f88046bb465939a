"""A response that is written before it is sent, in memory or on the disk."""

import io
from collections.abc import Callable

from app.errors import BodyTooLarge, not_stored


class SpooledOutput:
    """A binary file to write to: in memory while `reserve` grants its bytes, and then in a temporary file.

    Raises BodyTooLarge if it would be longer than `limit` bytes, SpoolFull if the disk is full.
    """

    def __init__(self, reserve: Callable[[int], bool], open_file: Callable[[], io.FileIO], limit: int) -> None:
        self.length = 0
        self.closed = False  # pyarrow reads this
        self._reserve, self._open_file, self._limit = reserve, open_file, limit
        self._chunks: list[bytes | memoryview] = []
        self._file: io.FileIO | None = None

    def write(self, data: bytes | memoryview, /) -> int:
        self.length += len(data)
        if self.length > self._limit:
            raise BodyTooLarge(f"The answer is longer than {self._limit} bytes.")
        try:
            if self._file is None and not self._reserve(len(data)):
                self._file = self._open_file()
                self._file.writelines(self._chunks)
                self._chunks.clear()
            if self._file is None:
                self._chunks.append(data)
            else:
                self._file.write(data)
        except OSError as error:
            raise not_stored("The answer", error) from error
        return len(data)

    def flush(self) -> None:
        """Do nothing; pyarrow calls it."""

    def close(self) -> None:
        """Do nothing; pyarrow calls it."""

    def written(self) -> bytes | io.FileIO:
        """Return what was written: bytes, or a file to read it from and to close."""
        if self._file is None:
            return b"".join(self._chunks)
        self._file.seek(0)
        return self._file

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
