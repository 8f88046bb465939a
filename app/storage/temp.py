"""Predictions on disk: bodies and answers that are too long for memory, for as long as their request takes."""

import contextlib
import io
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import SpoolFull
from app.storage.disk_space import CHECK_BYTES, has_room

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ORPHAN_SECONDS = 3600  # a file that was last written to so long ago was left by a crash, or has its answer read


class TempStorage:
    """A folder of such files, of `max_bytes` in all, whichever worker writes them."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def file(self, announced: int = 0) -> "ScratchFile":
        """A file for reading and writing, to which so many bytes are to come at least.

        Raises SpoolFull where there is no room, here or whenever it is written to, OSError.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_room(announced)
        return ScratchFile(self._folder / uuid.uuid4().hex, self.check_room)

    def check_room(self, more: int = 0) -> None:
        """Raises SpoolFull where all files, and so many bytes more, are more than may be."""
        if self._size() + more > self._max_bytes:
            raise SpoolFull("There is no room for this prediction now: others take it.")
        if not has_room(self._folder, more):
            raise SpoolFull("There is no room for this prediction on the disk.")

    def _size(self) -> int:
        size, before = 0, time.time() - ORPHAN_SECONDS
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it has just been closed
                    if entry.stat().st_mtime < before:
                        Path(entry).unlink()
                    else:
                        size += entry.stat().st_size
        return size


class ScratchFile(io.FileIO):
    """Its name is there for others to count it, and gone when it is closed or nothing refers to it."""

    def __init__(self, path: Path, check_room: Callable[[], None]) -> None:
        self.path = path
        super().__init__(path, "x+")
        self._check_room = check_room
        self._unchecked = 0

    def write(self, data: "ReadableBuffer", /) -> int:
        """All of the data, as other files than raw ones do."""
        rest = memoryview(data).cast("B")
        length = len(rest)
        self._unchecked += length
        if self._unchecked >= CHECK_BYTES:
            self._unchecked = 0
            self._check_room()
        while rest:
            rest = rest[super().write(rest) :]
        return length

    def close(self) -> None:
        super().close()
        self.path.unlink(missing_ok=True)

    def __del__(self) -> None:
        # An answer whose caller has gone before its first byte: nobody else closes it.
        self.close()
