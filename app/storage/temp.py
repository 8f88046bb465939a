"""Temporary storage for the bodies and answers of predictions that are too long for memory."""

import contextlib
import io
import os
import tempfile
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import SpoolFull
from app.storage.disk_space import CHECK_BYTES, has_room
from app.storage.file_lock import FileLock

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_ACCOUNT = ".account"
_DESCRIPTORS = Path("/proc/self/fd")  # Folder in which Linux opens unnamed files again.


class TempStorage:
    """Unnamed files in a folder, of at most `max_bytes` in all workers together. Each is gone when it is closed.

    A worker that has files also has an account there: a sparse file, as long as all of them together. The worker keeps
    it locked, so the account of a worker that crashed, whose files are gone, is recognized by its free lock.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._account: FileLock | None = None
        self._files = self._bytes = 0  # this worker's
        self._counting = threading.RLock()  # the garbage collector may close a file while another one is counted

    def open(self, expected: int = 0) -> "TempFile":
        """Return a new file for reading and writing, which is to get at least `expected` bytes.

        Raises SpoolFull if there is no room for them, and a write raises it later; OSError.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_room(expected)
        return TempFile(self, self._folder)

    def check_room(self, more: int = 0) -> None:
        """Raise SpoolFull if there is no room for `more` bytes."""
        if self._total() + more > self._max_bytes:
            raise SpoolFull("There is no room for this request now: others take it.")
        if not has_room(self._folder, more):
            raise SpoolFull("There is no room for this request on the disk.")

    def count(self, files: int, size: int) -> None:
        """Add to the numbers of files and of bytes in this worker's account. Raises OSError."""
        with self._counting:
            if self._account is None or not self._account.is_current():  # or the folder was removed
                account = FileLock(self._folder / f"{uuid.uuid4().hex}{_ACCOUNT}")
                account.acquire()
                self._account = account
            self._files += files
            self._bytes += size
            if self._files:
                os.truncate(self._account.fileno(), self._bytes)
            else:
                self._account.path.unlink(missing_ok=True)
                self._account.close()
                self._account = None

    def _total(self) -> int:
        """Return the bytes in all accounts, and remove accounts of workers that have ended."""
        total = 0
        for path in self._folder.glob(f"*{_ACCOUNT}"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                account = FileLock(path, os.O_RDWR)
                if account.acquire(blocking=False):
                    path.unlink()
                    account.close()
                else:
                    total += path.stat().st_size
        return total


class TempFile(io.FileIO):
    """A file of a TempStorage. Nothing is left of it once it is closed, or nothing refers to it."""

    def __init__(self, storage: TempStorage, folder: Path) -> None:
        self._storage = storage
        self._counted = False
        if _DESCRIPTORS.is_dir():
            with tempfile.TemporaryFile(dir=folder, buffering=0) as unnamed:
                descriptor = os.dup(unnamed.fileno())
            self.path = _DESCRIPTORS / str(descriptor)  # opens the file again until it is closed
        else:
            descriptor, name = tempfile.mkstemp(dir=folder)
            self.path = Path(name)
        super().__init__(descriptor, "r+")
        self._size = self._unchecked = 0
        storage.count(1, 0)
        self._counted = True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of the data, unlike other raw files."""
        rest = memoryview(data).cast("B")
        length = len(rest)
        self._unchecked += length
        if self._unchecked >= CHECK_BYTES:
            self._unchecked = 0
            self._storage.check_room()
        self._storage.count(0, length)
        self._size += length
        while rest:
            rest = rest[super().write(rest) :]
        return length

    def close(self) -> None:
        super().close()
        if self._counted:
            self._counted = False
            if self.path.parent != _DESCRIPTORS:
                self.path.unlink(missing_ok=True)
            self._storage.count(-1, -self._size)

    def __del__(self) -> None:
        # A client that disconnects before the first byte of its answer leaves the file to the garbage collector.
        self.close()
