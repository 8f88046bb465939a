"""Uploaded rows on disk, from their arrival until their job ends."""

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

CHECK_BYTES = 1 << 20  # to write, after which the room is looked at again
ORPHAN_SECONDS = 3600  # an upload this old that no job names was cut off by a crash

_START = ".start"


class UploadStore:
    """A folder of uploads, of `max_bytes` in all. A name is handed out once and says nothing of who sent it."""

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def new(self) -> str:
        """A name for an upload."""
        return uuid.uuid4().hex

    def path(self, upload: str) -> Path:
        return self._folder / upload

    def start(self, upload: str) -> str:
        """The name of the weights to start from that came with the upload, if any did. They are removed with it."""
        return upload + _START

    @contextlib.contextmanager
    def open_new(self, upload: str) -> Iterator[BinaryIO]:
        """The upload's file, open for writing; `seal` it before the block is left. Left by an error, nothing stays.

        Raises SpoolFull where the disk is full, Unavailable where the folder cannot be written.
        """
        with _storing():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path(upload).open("xb") as file, self.remove_on_error(upload):
                yield file

    def check_room(self, more: int = 0) -> None:
        """Raises SpoolFull where all uploads, and so many bytes more, are more than may be."""
        if self._max_bytes is not None and self._size() + more > self._max_bytes:
            raise SpoolFull("There is no room for these rows now: others wait for their training.")
        with contextlib.suppress(FileNotFoundError):
            if not has_room(self._folder, more):
                raise SpoolFull("There is no room for these rows on the disk.")

    def _size(self) -> int:
        size = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # its job has just ended
                    size += entry.stat().st_size
        return size

    async def admit(self, chunks: AsyncIterator[bytes], announced: int) -> AsyncIterator[bytes]:
        """The chunks of an upload that is being written, and of which so many bytes were announced.

        Raises SpoolFull as soon as it is known that there is no room for all of them.
        """
        self.check_room(announced)
        unchecked = 0
        async for chunk in chunks:
            unchecked += len(chunk)
            if unchecked >= CHECK_BYTES:
                self.check_room(len(chunk))
                unchecked = 0
            yield chunk

    @contextlib.contextmanager
    def exclusive(self, job: str) -> Iterator[None]:
        """Whoever is in the block is the only one, in any process, to receive the rows of this job.

        Raises Conflict where another does. The lock is gone with its process, however that ends.
        """
        lock = FileLock(self._folder / f"{job}.lock")
        with _storing():
            acquired = lock.acquire(timeout=0)
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
        """Make what was written outlive a power cut. This waits for the disk.

        Raises SpoolFull where all uploads are now more than may be: others may have been written at the same time.
        """
        sync_file(file)
        self.check_room()
        sync_folder(self._folder)
        failpoint("spooled")

    @contextlib.contextmanager
    def remove_on_error(self, upload: str) -> Iterator[None]:
        """Remove the upload if the block is left by an error."""
        try:
            yield
        except BaseException:
            self.remove(upload)
            raise

    def remove(self, upload: str) -> None:
        for name in (upload, self.start(upload)):
            self.path(name).unlink(missing_ok=True)

    def is_empty(self) -> bool:
        return not self._folder.is_dir() or next(self._folder.iterdir(), None) is None

    def sweep(self, wanted: Container[str], ended: Container[str] = ()) -> None:
        """Remove the uploads of ended jobs, and old ones that no job wants: those of requests that were cut off."""
        if not self._folder.is_dir():
            return
        before = time.time() - ORPHAN_SECONDS
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                upload = path.name.removesuffix(_START)
                if upload in ended or (upload not in wanted and path.stat().st_mtime < before):
                    path.unlink()


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_stored("The rows", error) from error
