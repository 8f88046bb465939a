"""Durable files in a folder: complete or absent after a crash, and still there after a power failure."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that its names survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(file: BinaryIO) -> None:
    """Flush and fsync an open file."""
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file for writing, and fsync it at the end of the block. Its folder is not synced."""
    with path.open("wb") as file:
        yield file
        sync_file(file)


def temporary_path(folder: Path) -> Path:
    """Return a new name in `folder` for a file that gets its final name once it is complete."""
    return folder / f".{uuid.uuid4().hex}.tmp"


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, and give what the block makes there the name `path` in one step."""
    temporary = temporary_path(path.parent)
    try:
        yield temporary
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def replace_file(path: Path, content: bytes) -> None:
    """Replace the file at `path` by a durable one in one step."""
    with _replacing(path) as temporary, durable_file(temporary) as file:
        file.write(content)


def replace_link(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target` in one step, whether or not it exists."""
    with _replacing(link) as temporary:
        temporary.symlink_to(target)
