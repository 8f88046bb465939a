"""Blobs as files in a folder, which processes of one machine share, or of several through a network file system."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from app.permissions import why_denied
from app.storage.file_lock import FileLock
from app.storage.folder import durable_file, sync_folder, temporary_path
from app.storage.keys import check_key, check_prefix
from app.storage.store import Blob, BlobChanged, BlobInfo, BlobNotFound, StoreUnavailable

LOCK = ".lock"  # Name of the lock file in each folder.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class FolderStore:
    """A store whose keys are paths below `folder`. The folder is made with the first blob.

    Writes are exclusive by a lock in the folder of the key. The tag is the SHA-256 of the content.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.url = self.folder.as_uri()

    def get(self, key: str) -> Blob:
        path = self._path(key)
        with self._reading(key):
            return _blob_of(path.read_bytes())

    def get_if_changed(self, key: str, etag: str) -> Blob | None:
        blob = self.get(key)
        return None if blob.etag == etag else blob

    def put(self, key: str, content: bytes) -> str:
        with self.open_write(key) as file:
            file.write(content)
        return _etag_of(content)

    def put_if_absent(self, key: str, content: bytes) -> str:
        path = self._path(key)
        with self._writing(key):
            self._make_folder(path.parent)
            with _temporary_file(path.parent, content) as temporary:
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    created = False
                else:
                    created = True
                    sync_folder(path.parent)
        if not created and self._content(key) != content:
            raise BlobChanged(f"{self.url}/{key} exists already.")
        return _etag_of(content)

    def put_if_match(self, key: str, content: bytes, etag: str) -> str:
        path = self._path(key)
        with self._writing(key):
            self._make_folder(path.parent)
            with _temporary_file(path.parent, content) as temporary, FileLock(path.parent / LOCK):
                present = self._content(key)
                if matches := present is not None and _etag_of(present) == etag:
                    temporary.rename(path)
                    sync_folder(path.parent)
        if not matches and present != content:
            raise BlobChanged(f"{self.url}/{key} has changed.")
        return _etag_of(content)

    def list_blobs(self, prefix: str, *, after: str = "") -> Iterator[BlobInfo]:
        parent, _, _ = check_prefix(prefix).rpartition("/")
        with self._reading(prefix):
            yield from self._walk(f"{parent}/" if parent else "", prefix, after)

    def list_names(self, prefix: str) -> list[str]:
        names = []
        with self._reading(prefix):
            for name, entry in _entries(self.folder / check_prefix(prefix)):
                # A folder whose blobs are all deleted counts as absent, as in a bucket.
                if name[-1] != "/" or any(self._walk(f"{prefix}{entry.name}/", "", "")):
                    names.append(entry.name)
        return sorted(names)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with contextlib.suppress(BlobNotFound), self._reading(key):
            if path.is_file():
                with FileLock(path.parent / LOCK):
                    path.unlink()
                    sync_folder(path.parent)

    def open_read(self, key: str) -> BinaryIO:
        path = self._path(key)
        with self._reading(key):
            return path.open("rb")

    @contextlib.contextmanager
    def open_write(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        with self._writing(key):
            self._make_folder(path.parent)
            temporary = temporary_path(path.parent)
            file = temporary.open("xb")
        try:
            with file:
                try:
                    yield file
                except OSError as error:
                    if error.errno in _DISK_FULL:
                        raise self._not_written(key, error) from None
                    raise
                with self._writing(key):
                    file.flush()
                    os.fsync(file.fileno())
            with self._writing(key), FileLock(path.parent / LOCK):
                temporary.rename(path)
                sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / check_key(key)

    def _content(self, key: str) -> bytes | None:
        try:
            return self.get(key).content
        except BlobNotFound:
            return None

    def _walk(self, folder: str, prefix: str, after: str) -> Iterator[BlobInfo]:
        for name, entry in _entries(self.folder / folder):
            key = folder + name
            if name[-1] == "/":
                may_match = key.startswith(prefix) or prefix.startswith(key)
                if may_match and (key > after or after.startswith(key)):
                    yield from self._walk(key, prefix, after)
            elif key > after and key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    yield BlobInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, so that their names survive a power failure."""
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for made in reversed(missing):
            # Uploads are private. The folders below the store's own are reached through it.
            made.mkdir(mode=0o700 if made == self.folder else 0o777, exist_ok=True)
            sync_folder(made.parent)

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise BlobNotFound(f"{self.url}/{key}") from None
        except OSError as error:
            raise StoreUnavailable(f"{self.url}/{key} cannot be read: {error.strerror}.") from None

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._not_written(key, error) from None

    def _not_written(self, key: str, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"{self.url}/{key} cannot be written: {why_denied(error) or f'{error.strerror}.'}")


def _etag_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob_of(content: bytes) -> Blob:
    return Blob(content, _etag_of(content))


@contextlib.contextmanager
def _temporary_file(folder: Path, content: bytes) -> Iterator[Path]:
    """Yield the path of a durable temporary file, and remove it at the end unless it was renamed."""
    temporary = temporary_path(folder)
    try:
        with durable_file(temporary) as file:
            file.write(content)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _entries(folder: Path) -> list[tuple[str, "os.DirEntry[str]"]]:
    """Return the files and folders in a folder in the order of their keys. Names of folders end with a slash."""
    entries = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        for entry in found:
            if entry.name[0] != ".":
                if entry.is_dir(follow_symlinks=False):
                    entries.append((f"{entry.name}/", entry))
                elif entry.is_file(follow_symlinks=False):
                    entries.append((entry.name, entry))
    return sorted(entries, key=lambda pair: pair[0])
