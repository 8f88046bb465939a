"""Locks that processes share. The end of a process frees its locks, even after a crash."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

POLL_SECONDS = 0.05  # Pause between two attempts to lock before a deadline.


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

    def acquire(self, timeout: float | None = None) -> bool:
        """Lock the file that is at the path. Return False if another holds it for `timeout` seconds; None: no limit.

        Raises OSError if the file cannot be opened.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._lock(deadline):
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

    def _lock(self, deadline: float | None) -> bool:
        if self._flags & os.O_CREAT:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, self._flags, 0o600)
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if deadline is None else fcntl.LOCK_NB))
            except BlockingIOError:
                if deadline is None or time.monotonic() >= deadline:
                    self.close()
                    return False
                time.sleep(POLL_SECONDS)
            except OSError:
                self.close()
                raise
            else:
                return True

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
