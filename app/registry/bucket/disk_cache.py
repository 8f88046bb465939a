"""Copies of pointers and versions on the local disk, from which a start without the store serves.

    cache/4f1c0a…/crop-yield/000002.safetensors
    cache/4f1c0a…/crop-yield/pointer

The first folder is named after the URL of the store, so that no version of another store is served. Several processes
may share it. Every file is complete, because it gets its name once it is written; its content is checked when it is
read. Nothing here is needed: a copy that cannot be written or read is logged, and the store is used.
"""

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.registry.bucket.keys import VERSION_FILE
from app.registry.bucket.pointer import Pointer
from app.registry.version_file import MAX_FILE_BYTES
from app.storage.file_lock import FileLock
from app.storage.folder import replace_file, sync_folder

MAX_BYTES = 4 << 30  # Bytes of all files. The least recently used are removed first, current versions last.
MAX_FILES = 10_000
ORPHAN_SECONDS = 3600  # Age of a temporary file above which its writer is taken for dead.

_POINTER = "pointer"
_LOCK = ".lock"  # held while a pointer is replaced
_log = logging.getLogger(__name__)


class DiskCache:
    """The copies of one store's blobs in a folder."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder / hashlib.sha256(url.encode()).hexdigest()[:16]
        self._is_logged = False
        self._writing = threading.Lock()

    def models(self) -> list[str]:
        """Return the names of the models with a pointer, sorted."""
        return sorted(path.parent.name for path in self._folder.glob(f"*/{_POINTER}"))

    def pointer(self, model: str) -> bytes | None:
        """Return the copy of a pointer, or None."""
        return self._read(self._folder / model / _POINTER)

    def numbers(self, model: str) -> list[int]:
        """Return the numbers of the versions of a model that have a copy, descending."""
        names = (path.name for path in (self._folder / model).glob("*.safetensors"))
        return sorted((int(match[1]) for name in names if (match := VERSION_FILE.fullmatch(name))), reverse=True)

    def version(self, model: str, number: int) -> bytes | None:
        """Return the copy of a version's file, or None. It counts as used."""
        path = self._path(model, number)
        content = self._read(path)
        if content is not None:
            with contextlib.suppress(OSError):
                os.utime(path)
        return content

    def size(self, model: str, number: int) -> int | None:
        """Return the size of the copy of a version's file in bytes; None if there is none."""
        try:
            return self._path(model, number).stat().st_size
        except OSError:
            return None

    def place(self, model: str, number: int) -> str:
        """Return the name of a version's copy for messages."""
        return f"The copy {self._path(model, number)}"

    def put_pointer(self, model: str, latest: Callable[[], Pointer], *, newer: bool = False) -> None:
        """Keep a pointer, and remove the copies of versions that it does not list.

        `latest` returns the pointer that this process read last. It is called under the lock, because the pointer may
        change until then. Unless the pointer is known to be `newer` than the copy, a copy with a higher revision, which
        another process wrote, is kept.
        """
        folder = self._folder / model
        with self._writing, self._logged(), FileLock(folder / _LOCK):
            pointer = latest()
            if not newer and self._copied(model).revision > pointer.revision:
                return
            self._write(folder / _POINTER, pointer.encode())
            for path in folder.iterdir():
                if (match := VERSION_FILE.fullmatch(path.name)) and not pointer.contains(int(match[1])):
                    path.unlink(missing_ok=True)

    def put_version(self, model: str, number: int, content: bytes) -> None:
        """Store a copy of a version's file, unless there is one. Evict others if there are too many bytes."""
        if self.size(model, number) == len(content):
            return
        with self._writing, self._logged():
            self._write(self._path(model, number), content)
            self._evict(self._path(model, number))

    def drop_versions(self, model: str) -> None:
        """Remove the copies of all versions of a model."""
        with self._writing, self._logged():
            for number in self.numbers(model):
                self._path(model, number).unlink(missing_ok=True)

    def _path(self, model: str, number: int) -> Path:
        return self._folder / model / f"{number:06d}.safetensors"

    def _read(self, path: Path) -> bytes | None:
        with contextlib.suppress(OSError):
            if path.stat().st_size <= MAX_FILE_BYTES:
                return path.read_bytes()
        return None

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, content)
        sync_folder(path.parent)

    def _evict(self, newest: Path) -> None:
        """Remove the least recently used files until the others fit, and what killed processes have left."""
        files: list[tuple[bool, float, int, Path]] = []
        for folder in self._folder.iterdir():
            current = self._copied(folder.name).current
            for path in folder.iterdir():
                if path.suffix == ".tmp" and path.stat().st_mtime < time.time() - ORPHAN_SECONDS:
                    path.unlink(missing_ok=True)
                elif match := VERSION_FILE.fullmatch(path.name):
                    status = path.stat()
                    files.append((int(match[1]) == current, status.st_mtime, status.st_size, path))
        count, total = len(files), sum(size for _, _, size, _ in files)
        for _, _, size, path in sorted(files):
            if count <= MAX_FILES and total <= MAX_BYTES:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                count, total = count - 1, total - size

    def _copied(self, model: str) -> Pointer:
        with contextlib.suppress(Exception):
            return Pointer.decode(self.pointer(model) or b"", "")
        return Pointer()

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._is_logged:  # once, not with every version
                self._is_logged = True
                _log.warning("version not cached", extra={"folder": str(self._folder), "reason": str(error)})
