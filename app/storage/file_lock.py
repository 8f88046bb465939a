"""Locks that processes share. The end of a process frees its locks, even after a crash."""

import fcntl
import os
from pathlib import Path
from typing import Self


def identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of the file at `path` now; None if there is none.

    A process that keeps a file open does not notice that it was removed, or replaced by another.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class FileLock:
    """An exclusive lock (flock) on the file or folder at `path`.

    A child process that inherits the descriptor holds the lock too. Each thread needs its own object.
    """

    def __init__(self, path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> None:
        """Set the flags to open the file with. O_CREAT also makes missing folders, readable for this user alone."""
        self.path = path
        self._flags = flags
        self._descriptor: int | None = None

    def acquire(self, *, blocking: bool = True) -> bool:
        """Lock the file that is at the path. Return False if another holds it and this call is not `blocking`.

        Raises OSError if the file cannot be opened.
        """
        while self._lock(fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB):
            if self.is_current():
                return True
            self.close()  # a removed file locks nobody out
        return False

    def is_current(self) -> bool:
        """Return True if the locked file is still the one at its path."""
        status = os.fstat(self.fileno())
        return identity(self.path) == (status.st_dev, status.st_ino)

    def fileno(self) -> int:
        """Return the descriptor of the locked file."""
        assert self._descriptor is not None, "not locked"
        return self._descriptor

    def close(self) -> None:
        """Free the lock, unless a child process holds it too."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, operation: int) -> bool:
        if self._flags & os.O_CREAT:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, self._flags, 0o600)
        try:
            fcntl.flock(self._descriptor, operation)
        except OSError as error:
            self.close()
            if isinstance(error, BlockingIOError):
                return False
            raise
        return True

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
