"""Uploaded rows on disk, until their job ends."""

import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Container, Iterator
from pathlib import Path
from typing import BinaryIO

from app.errors import Conflict, SpoolFull, not_stored
from app.failpoints import failpoint
from app.storage.disk_space import has_room
from app.storage.file_lock import FileLock
from app.storage.folder import sync_file, sync_folder

CHECK_BYTES = 1 << 20  # Bytes written between two checks of the room that is left.
ORPHAN_SECONDS = 3600  # Age at which an upload that no job names is removed: its request was interrupted.

_START = ".start"


class UploadStore:
    """A folder of uploads, of `max_bytes` in all. Each upload has a random name."""

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def new(self) -> str:
        """Return a name for an upload."""
        return uuid.uuid4().hex

    def path(self, upload: str) -> Path:
        return self._folder / upload

    def start(self, upload: str) -> str:
        """Return the name of the file of initial coefficients. It is removed with the upload."""
        return upload + _START

    @contextlib.contextmanager
    def open_new(self, upload: str) -> Iterator[BinaryIO]:
        """Yield the new file of an upload. Call `sync` before the end of the block. An error removes the upload.

        Raises SpoolFull if the disk is full, and Unavailable if the folder cannot be written.
        """
        with _storage_errors():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path(upload).open("xb") as file, self.remove_on_error(upload):
                yield file

    def check_room(self, count: int = 0) -> None:
        """Raise SpoolFull if there is no room for `count` bytes in addition to all uploads."""
        if self._max_bytes is not None and self._size() + count > self._max_bytes:
            raise SpoolFull("There is no room for these rows now: others wait for their training.")
        with contextlib.suppress(FileNotFoundError):
            if not has_room(self._folder, count):
                raise SpoolFull("There is no room for these rows on the disk.")

    def _size(self) -> int:
        size = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # its job has just ended
                    size += entry.stat().st_size
        return size

    async def admit(self, chunks: AsyncIterator[bytes], content_length: int) -> AsyncIterator[bytes]:
        """Yield the chunks of an upload while it is written.

        Raises SpoolFull as soon as there is no room for the upload.
        """
        self.check_room(content_length)
        unchecked = 0
        async for chunk in chunks:
            unchecked += len(chunk)
            if unchecked >= CHECK_BYTES:
                self.check_room(len(chunk))
                unchecked = 0
            yield chunk

    @contextlib.contextmanager
    def exclusive(self, job: str) -> Iterator[None]:
        """Lock the job's id, so that one request in all processes receives its rows.

        Raises Conflict if another request holds the lock. The lock is released when its process ends.
        """
        lock = FileLock(self._folder / f"{job}.lock")
        with _storage_errors():
            acquired = lock.acquire(blocking=False)
        if not acquired:
            raise Conflict(
                "A request with this Idempotency-Key is being received. Wait for its answer, which names the job."
            )
        try:
            yield
        finally:
            lock.path.unlink(missing_ok=True)
            lock.close()

    def sync(self, file: BinaryIO) -> None:
        """Fsync the file and its folder.

        Raises SpoolFull if all uploads together are now too large, because others were written at the same time.
        """
        sync_file(file)
        self.check_room()
        sync_folder(self._folder)
        failpoint("spooled")

    @contextlib.contextmanager
    def remove_on_error(self, upload: str) -> Iterator[None]:
        """Remove the upload if the block raises."""
        try:
            yield
        except BaseException:
            self.remove(upload)
            raise

    def remove(self, upload: str) -> None:
        for name in (upload, self.start(upload)):
            self.path(name).unlink(missing_ok=True)

    def is_empty(self) -> bool:
        return not any(self._folder.glob("*"))

    def sweep(self, needed: Container[str], ended: Container[str] = ()) -> None:
        """Remove the uploads of ended jobs, and old uploads that no job needs."""
        oldest = time.time() - ORPHAN_SECONDS
        for path in self._folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                upload = path.name.removesuffix(_START)
                if upload in ended or (upload not in needed and path.stat().st_mtime < oldest):
                    path.unlink()


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_stored("The rows", error) from error
