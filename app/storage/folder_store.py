"""Blobs as files in a folder, which processes share on one machine, or through a network file system."""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from app.errors import StoreUnavailable
from app.permissions import why_denied
from app.storage.file_lock import FileLock
from app.storage.folder import sync_file, sync_folder, temporary_path
from app.storage.keys import check_key, check_prefix
from app.storage.ranged_reader import open_ranges
from app.storage.store import Blob, BlobChanged, BlobInfo, BlobNotFound

LOCK = ".lock"  # Name of the lock file in each folder.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class FolderStore:
    """A store in `folder`, which is created with the first blob. Keys are paths below it.

    Writers lock the folder of the key. A blob's tag has the time of its write in nanoseconds, its size and its inode.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.url = self.folder.as_uri().rstrip("/")

    def get(self, key: str) -> Blob:
        return self._get(key, None)

    def get_if_changed(self, key: str, etag: str) -> Blob | None:
        try:
            return self._get(key, etag)
        except _NotModified:
            return None

    def info(self, key: str) -> BlobInfo:
        path = self._path(key)
        with self._reading(key):
            return _info_of(key, _regular(path.lstat()))

    def put(self, key: str, content: bytes) -> str:
        path = self._path(key)
        with self._temporary(key, content) as temporary, FileLock(path.parent / LOCK):
            return _rename(temporary, path)

    def put_if_absent(self, key: str, content: bytes) -> str:
        path = self._path(key)
        with self._temporary(key, content) as temporary, contextlib.suppress(FileExistsError):
            os.link(temporary, path)
            sync_folder(path.parent)
            return _etag_of(temporary.stat())
        return self._tag_of_same(key, content)

    def put_if_match(self, key: str, content: bytes, etag: str) -> str:
        path = self._path(key)
        with self._temporary(key, content) as temporary, FileLock(path.parent / LOCK):
            if self._tag_or_none(key) == etag:
                return _rename(temporary, path)
        return self._tag_of_same(key, content)

    def list_blobs(self, prefix: str, *, after: str = "") -> Iterator[BlobInfo]:
        parent, _, _ = check_prefix(prefix).rpartition("/")
        with self._reading(prefix):
            yield from self._walk(f"{parent}/" if parent else "", prefix, after)

    def list_names(self, prefix: str) -> list[str]:
        names = []
        with self._reading(prefix):
            for name, entry in _entries(self.folder / check_prefix(prefix)):
                # A folder whose blobs are all deleted counts as absent, as in a bucket.
                if name[-1] != "/" or any(self._walk(f"{prefix}{name}", "", "")):
                    names.append(entry.name)
        return sorted(names)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._writing(key):
            if path.is_file() or path.is_symlink():
                with FileLock(path.parent / LOCK):
                    path.unlink(missing_ok=True)
                    sync_folder(path.parent)

    def open_read(self, key: str, etag: str | None = None) -> BinaryIO:
        path = self._path(key)
        with self._reading(key):
            file = _open(path)
        if etag is None:
            return file

        def fetch(start: int, end: int) -> bytes:
            # Other programs may write to the file in place.
            content = os.pread(file.fileno(), end - start, start)
            if _etag_of(os.fstat(file.fileno())) != etag or len(content) < end - start:
                raise BlobChanged(f"{self.url}/{key} was changed while it was read.")
            return content

        status = os.fstat(file.fileno())
        if _etag_of(status) != etag:
            file.close()
            raise BlobChanged(f"{self.url}/{key} has changed.")
        return open_ranges(status.st_size, fetch, file.close)

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
                    _seal(file)
            with self._writing(key), FileLock(path.parent / LOCK):
                _rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / check_key(key)

    def _get(self, key: str, unless: str | None) -> Blob:
        path = self._path(key)
        with self._reading(key), _open(path) as file:
            etag = _etag_of(os.fstat(file.fileno()))
            if etag == unless:
                raise _NotModified
            return Blob(file.read(), etag)

    def _tag_or_none(self, key: str) -> str | None:
        try:
            return self.info(key).etag
        except BlobNotFound:
            return None

    def _tag_of_same(self, key: str, content: bytes) -> str:
        """Return the tag of the blob if it has this content. Raises BlobChanged if not."""
        with contextlib.suppress(BlobNotFound):
            if (blob := self.get(key)).content == content:
                return blob.etag
        raise BlobChanged(f"{self.url}/{key} does not have the expected content.")

    def _walk(self, folder: str, prefix: str, after: str) -> Iterator[BlobInfo]:
        for name, entry in _entries(self.folder / folder):
            key = folder + name
            if name[-1] == "/":
                may_match = key.startswith(prefix) or prefix.startswith(key)
                if may_match and (key > after or after.startswith(key)):
                    yield from self._walk(key, prefix, after)
            elif key > after and key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    yield _info_of(key, entry.stat(follow_symlinks=False))

    @contextlib.contextmanager
    def _temporary(self, key: str, content: bytes) -> Iterator[Path]:
        """Yield the path of a durable file in the folder of the key. It is removed at the end if it still exists."""
        folder = self._path(key).parent
        with self._writing(key):
            self._make_folder(folder)
            temporary = temporary_path(folder)
            try:
                with temporary.open("xb") as file:
                    file.write(content)
                    _seal(file)
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

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
            reason = "It is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise StoreUnavailable(f"{self.url}/{key} cannot be read: {reason}.") from None

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._not_written(key, error) from None

    def _not_written(self, key: str, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"{self.url}/{key} cannot be written: {why_denied(error) or f'{error.strerror}.'}")


class _NotModified(Exception):
    """The blob still has the tag."""


def _open(path: Path) -> BinaryIO:
    """Open a file for reading, without following a symlink or waiting for the other end of a pipe."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK))  # noqa: SIM115 - the caller closes it, and Path's has no opener
    try:
        _regular(os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def _regular(status: os.stat_result) -> os.stat_result:
    """Return the status of a regular file. Raises OSError if it belongs to something else."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "It is not a regular file")
    return status


def _etag_of(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _info_of(key: str, status: os.stat_result) -> BlobInfo:
    return BlobInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), _etag_of(status))


def _seal(file: BinaryIO) -> None:
    """Make the tag of the file unique, and fsync it."""
    file.flush()
    # Timestamps from the kernel have a resolution of milliseconds, and a new file often reuses a removed file's inode.
    now = time.time_ns()
    os.utime(file.fileno(), ns=(now, now))
    sync_file(file)


def _rename(temporary: Path, path: Path) -> str:
    """Give the file its name, and return its tag."""
    etag = _etag_of(temporary.stat())
    temporary.rename(path)
    sync_folder(path.parent)
    return etag


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
