"""Uploaded rows until their job ends: in a folder and, if replicas and trainers share a store, in the store.

With a store, a request writes its rows to the folder, plans the job with them, and hands them over to the store before
the job is recorded. A trainer fetches them from there.
"""

import contextlib
import functools
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Container, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from app.data.batch import RangedFile
from app.errors import Conflict, SpoolFull, StoreUnavailable, Unavailable, not_stored
from app.failpoints import failpoint
from app.storage.disk_space import has_room
from app.storage.file_lock import FileLock
from app.storage.folder import durable_file, sync_file, sync_folder, temporary_path
from app.storage.store import BlobChanged, BlobInfo, BlobNotFound, Store
from app.training.outages import PatientFile

PREFIX = "uploads/"  # Keys of uploads in the store.
ROOM_CHECK_BYTES = 1 << 20  # Bytes of an upload received between two checks of the room that is left.
ORPHAN_SECONDS = 3600  # Age at which an upload that no job names is removed: its request was interrupted.
RANGED_BYTES = 64 << 20  # Length above which a Parquet file in the store is read in ranges instead of being copied.
COPY_BYTES = 1 << 20  # Bytes copied at a time.
WHOLE_BYTES = 8 << 20  # Length up to which a file is written to the store in one request.

_START = ".start"
_FILES = ".files"
_NAME = re.compile(r"[0-9a-f]{32}(\.start|\.files)?")
_GONE = "The rows of this job are not in the store. They were removed, or the service uses another store."

_log = logging.getLogger(__name__)


class UploadStore:
    """Uploads, of `max_bytes` in the folder. Each upload has a random name, and up to two small files next to it."""

    def __init__(self, folder: Path, max_bytes: int | None = None, store: Store | None = None) -> None:
        """With a store, uploads are in the folder only while they are received, and while a trainer reads them."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._store = store

    def new(self) -> str:
        """Return a name for an upload."""
        return uuid.uuid4().hex

    def path(self, upload: str) -> Path:
        return self._folder / upload

    def start(self, upload: str) -> str:
        """Return the name of the file of initial coefficients. It is removed with the upload."""
        return upload + _START

    def files(self, upload: str) -> str:
        """Return the name of the record of the files of a source. It is removed with the upload."""
        return upload + _FILES

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
        """Raise SpoolFull if there is no room for `count` bytes in addition to all uploads in the folder."""
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
            if unchecked >= ROOM_CHECK_BYTES:
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
        """Remove the upload from the folder if the block raises."""
        try:
            yield
        except BaseException:
            self.discard(upload)
            raise

    def hand_over(self, upload: str) -> None:
        """Copy an upload to the store, if there is one, and remove it from the folder. Its job can then be recorded.

        Raises StoreUnavailable, and nothing is left of the upload then.
        """
        if self._store is None:
            return
        try:
            for name in self._names(upload):
                if self.path(name).exists():
                    self._put(name)
        except BaseException:
            self.remove(upload)
            raise
        self.discard(upload)
        failpoint("handed_over")

    def _put(self, name: str) -> None:
        assert self._store is not None
        with self.path(name).open("rb") as file:
            if os.fstat(file.fileno()).st_size <= WHOLE_BYTES:
                self._store.put(_key(name), file.read())
                return
            with self._store.open_write(_key(name)) as blob:
                shutil.copyfileobj(file, blob, COPY_BYTES)

    def fetch(self, name: str) -> Path:
        """Return the path of an upload, or of a file next to one, after copying it from the store if needed.

        Raises Unavailable if it is gone, SpoolFull if there is no room on the disk, and StoreUnavailable.
        """
        path = self.path(name)
        if path.exists():
            return path
        if self._store is None:
            if name.endswith(_START):
                raise Unavailable("The weights that this job starts from are not in the trainer's state folder.")
            raise Unavailable("The rows of this job are not in the state folder of the trainer that took it.")
        try:
            with self._store.open_read(_key(name)) as blob, _storage_errors():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._copy(blob, path)
        except BlobNotFound:
            raise Unavailable(_GONE) from None
        return path

    def _copy(self, blob: BinaryIO, path: Path) -> None:
        temporary = temporary_path(self._folder)
        try:
            with temporary.open("xb") as file:
                while part := blob.read(COPY_BYTES):
                    if not has_room(self._folder, len(part)):
                        raise SpoolFull("There is no room for these rows on the disk of the trainer.")
                    file.write(part)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def source(self, upload: str, wait: Callable[[float], None], *, ranged: bool) -> Path | RangedFile:
        """Return the rows of an upload for a trainer. With `ranged`, a long one in the store is not copied.

        Its readers call `wait` with the seconds before the next try while the store is unavailable. Raises as `fetch`.
        """
        if self._store is None or not ranged or self.path(upload).exists():
            return self.fetch(upload)
        try:
            blob = self._store.info(_key(upload))
        except BlobNotFound:
            raise Unavailable(_GONE) from None
        if blob.size <= RANGED_BYTES:
            return self.fetch(upload)
        opener = functools.partial(self._store.open_read, blob.key, blob.etag)
        return RangedFile(blob.size, functools.partial(PatientFile.open, opener, wait))

    def record_once(self, name: str, content: bytes) -> bytes:
        """Write a small file next to an upload unless there is one, and return the content of the one that is there.

        Raises Unavailable.
        """
        if self._store is not None:
            try:
                self._store.put_if_absent(_key(name), content)
            except BlobChanged:
                return self._store.get(_key(name)).content
            return content
        path = self.path(name)
        with _storage_errors():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = temporary_path(self._folder)
            try:
                with durable_file(temporary) as file:
                    file.write(content)
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
                    sync_folder(self._folder)
            finally:
                temporary.unlink(missing_ok=True)
            return path.read_bytes()

    def recorded(self, name: str) -> bytes | None:
        """Return a small file next to an upload, or None. Raises StoreUnavailable."""
        try:
            return self.path(name).read_bytes() if self._store is None else self._store.get(_key(name)).content
        except (FileNotFoundError, BlobNotFound):
            return None

    def discard(self, upload: str) -> None:
        """Remove an upload from the folder."""
        for name in self._names(upload):
            self.path(name).unlink(missing_ok=True)

    def remove(self, upload: str) -> None:
        """Remove an upload. If the store is unavailable, a later sweep removes it there."""
        self.discard(upload)
        if self._store is None:
            return
        try:
            for name in self._names(upload):
                self._store.delete(_key(name))
        except StoreUnavailable as error:
            _log.warning("upload not removed", extra={"reason": error.message})

    def _names(self, upload: str) -> tuple[str, ...]:
        return upload, self.start(upload), self.files(upload)

    def is_empty(self) -> bool:
        """Return True if nothing is in the folder. The store may have uploads."""
        return not any(self._folder.glob("*"))

    def sweep(self, needed: Container[str], ended: Container[str] = ()) -> None:
        """Remove the uploads of ended jobs, and old uploads that no job needs, from the folder."""
        oldest = time.time() - ORPHAN_SECONDS
        for path in self._folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                upload = _upload_of(path.name)
                if upload in ended or (upload not in needed and path.stat().st_mtime < oldest):
                    path.unlink()

    def sweep_store(self, needed: Container[str], ended: Container[str] = ()) -> None:
        """Remove the same from the store, which is listed. Blobs with names of another kind stay.

        Raises StoreUnavailable.
        """
        for blob in () if self._store is None else self._store.list_blobs(PREFIX):
            upload = _upload_of(name := blob.key.removeprefix(PREFIX))
            if _NAME.fullmatch(name) and (upload in ended or (upload not in needed and is_old(blob))):
                assert self._store is not None
                self._store.delete(blob.key)


def is_old(blob: BlobInfo) -> bool:
    """Return True if a blob that no job needs belonged to a request or a job that was interrupted."""
    return (datetime.now(UTC) - blob.modified).total_seconds() > ORPHAN_SECONDS


def _key(name: str) -> str:
    return PREFIX + name


def _upload_of(name: str) -> str:
    return name.removesuffix(_START).removesuffix(_FILES)


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_stored("The rows", error) from error
