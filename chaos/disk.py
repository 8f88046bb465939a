"""Full and read-only disks. They are mounts, because root can write to any folder. Mounting them needs root."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from chaos.violation import Unable

BLOCK = bytes(4096)


@contextlib.contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of `size` bytes for the block. Raises Unable if it cannot be mounted."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        _unmount(folder)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Fill the file system of the folder for the block."""
    filler = folder.parent / folder.name / ".filler"
    try:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(BLOCK)
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make the folder read-only for the block. Raises Unable if it cannot be mounted."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        _unmount(folder)


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unable(f"mount {' '.join(words)}: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
