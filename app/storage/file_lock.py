"""Locks between processes: free again once whoever holds one is gone, however that ended."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def identity(path: Path) -> tuple[int, int] | None:
    """Device and number of the file that has this path now; None where there is none.

    Whoever keeps a file open does not notice that it was removed, and that another has its name.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has this path. One that was removed locks nobody out."""
    found = os.fstat(descriptor)
    return identity(path) == (found.st_dev, found.st_ino)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until nobody else is in such a block. Raises OSError where the file cannot be made."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Whether the lock was free; it then is held in the block. A file that is not there is no lock, and not free."""
    with contextlib.ExitStack() as leaving:
        try:
            file = leaving.enter_context(path.open("r+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            yield False
        else:
            yield is_at(file.fileno(), path)
