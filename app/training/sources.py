"""Training files that are already in a store or on this machine, named by a URL under an allowed prefix."""

import contextlib
import functools
import os
import re
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote

import msgspec

from app.data.batch import RangedFile
from app.data.formats import BY_NAME
from app.data.formats.arrow import ARROW
from app.data.formats.base import TableFormat
from app.data.formats.csv import CSV
from app.data.formats.parquet import PARQUET
from app.errors import Forbidden, InvalidInput, SourceChanged, WorkerBusy
from app.storage.keys import check_key, check_prefix
from app.storage.store import BlobChanged, BlobNotFound
from app.training.outages import PatientFile
from app.training.source_url import AllowedSources, SourceURL, parse_source

if TYPE_CHECKING:
    from app.storage.store import Store

MAX_FILES = 10_000  # Files of one source.
MAX_LISTED = 100_000  # Names that are looked at to find them.
REQUEST_SECONDS = 5.0  # Time in which a request has to find them. A trainer may take longer.
MAX_SEARCHES = 2  # Requests of this process that look for files at the same time, because they share a thread pool.

_searches = threading.BoundedSemaphore(MAX_SEARCHES)
_DESCRIPTORS = Path("/proc/self/fd")  # Folder in which Linux opens the files of descriptors again.

# Formats of sources by the extensions of the files.
FORMATS: dict[str, TableFormat] = {
    "parquet": PARQUET, "pq": PARQUET, "csv": CSV, "tsv": CSV, "arrow": ARROW, "feather": ARROW, "ipc": ARROW,
}  # fmt: skip
FORMAT_NAMES = ("parquet", "csv", "arrow")


class OpenedPath(type(Path())):  # type: ignore[misc]
    """The path of a descriptor that is open as long as this object exists, so a rename does not change the file."""

    @classmethod
    def of(cls, file: BinaryIO) -> "OpenedPath":
        descriptor = os.dup(file.fileno())
        path = cls(_DESCRIPTORS / str(descriptor))
        weakref.finalize(path, os.close, descriptor)
        return path


@dataclass(frozen=True)
class SourceFile:
    """One file of a source. Its size and its tag are those of the time when the job first ran. It can be pickled."""

    url: str  # normalised and percent-encoded; the path of a file on this machine has no symbolic links
    size: int  # bytes
    etag: str

    @property
    def name(self) -> str:
        """The last segment of the URL, for messages."""
        return unquote(self.url.rpartition("/")[2])

    @property
    def path(self) -> Path | None:
        """The path of a file on this machine, and None for one in a store."""
        return Path(unquote(self.url.removeprefix("file://"))) if self.url.startswith("file:") else None

    def open(self) -> BinaryIO:
        """Open the file for reading. It can be sought. Raises SourceChanged if it is another one now."""
        if (path := self.path) is not None:
            return _open_local(path, self)
        store, key = _store_of(self.url)
        try:
            return store.open_read(key, self.etag)
        except (BlobNotFound, BlobChanged):
            raise SourceChanged(self.name) from None

    def source(self, wait: Callable[[float], None] | None = time.sleep) -> Path | RangedFile:
        """Return the file as formats read it. Raises SourceChanged if it is another one now.

        While the store is unavailable, its readers call `wait` with the seconds before the next try; if it is None,
        they raise StoreUnavailable.
        """
        if (path := self.path) is not None:
            with _open_local(path, self) as file:
                return OpenedPath.of(file) if _DESCRIPTORS.exists() else path
        return RangedFile(
            self.size, self.open if wait is None else functools.partial(PatientFile.open, self.open, wait)
        )

    def check(self) -> None:
        """Raise SourceChanged if the file is another one now, for instance because it was replaced meanwhile."""
        if self.path is not None:
            self.open().close()
            return
        store, key = _store_of(self.url)
        try:
            found = store.info(key)
        except BlobNotFound:
            raise SourceChanged(self.name) from None
        if found.etag != self.etag:
            raise SourceChanged(self.name)


class SourceFiles(msgspec.Struct, frozen=True):
    """The files of a source, sorted by their URLs, and the name of their format."""

    files: tuple[SourceFile, ...]
    format: str

    @property
    def table_format(self) -> TableFormat:
        return BY_NAME[self.format]


def resolve_quickly(source: str, allowed: AllowedSources, format_name: str | None = None) -> SourceFiles:
    """Return the files that a URL of a request names, as `resolve` does.

    Raises InvalidInput if it takes longer than REQUEST_SECONDS, and WorkerBusy if MAX_SEARCHES requests do the same.
    """
    if not _searches.acquire(blocking=False):
        raise WorkerBusy(f"{MAX_SEARCHES} requests look for the files of a source now. Send this one again later.")
    try:
        return resolve(source, allowed, format_name, REQUEST_SECONDS)
    finally:
        _searches.release()


def resolve(
    source: str, allowed: AllowedSources, format_name: str | None = None, seconds: float | None = None
) -> SourceFiles:
    """Return the files that a URL names, which may have the signs `*` and `?`.

    Raises Forbidden unless the URL is under an allowed prefix, InvalidInput if it names no file, too many, or files of
    several formats, or if the names cannot be listed in `seconds`, and StoreUnavailable.
    """
    allowed.check_any()
    url = parse_source(source)
    allowed.check(url)
    search = _Search(None if seconds is None else time.monotonic() + seconds)
    found = _local_files(url, allowed, search) if url.scheme == "file" else _blobs(url, search)
    files = sorted({file.url: file for file in _at_most(MAX_FILES, found)}.values(), key=lambda file: file.url)
    if not files:
        raise InvalidInput.at("/source", "No file has this URL." if not url.patterns else "No file matches this URL.")
    return SourceFiles(tuple(files), format_name or _format_of(files))


def _format_of(files: Sequence[SourceFile]) -> str:
    formats = {}
    for file in files:
        table_format = FORMATS.get(file.name.rpartition(".")[2].lower())
        if table_format is None:
            raise InvalidInput.at(
                "/source",
                f"{file.name}: the format does not follow from the extension. Sources are Parquet, CSV and Arrow IPC "
                f"files; give one of {', '.join(FORMAT_NAMES)} as `format`.",
            )
        formats[table_format.name] = file
    if len(formats) > 1:
        names = " and ".join(file.name for file in formats.values())
        raise InvalidInput.at("/source", f"The files have several formats: {names}. Name files of one format.")
    return next(iter(formats))


def _at_most(limit: int, files: Iterator[SourceFile]) -> Iterator[SourceFile]:
    for count, file in enumerate(files):
        if count == limit:
            raise InvalidInput.at(
                "/source", f"More than {limit} files match the URL. Name fewer, or write larger files."
            )
        yield file


@dataclass
class _Search:
    """The names that were compared with a URL, and the time at which the search ends."""

    end: float | None
    listed: int = 0

    def count(self) -> None:
        """Count a name. Raises InvalidInput if there are too many, or if the search takes too long."""
        self.listed += 1
        if self.listed > MAX_LISTED:
            message = f"More than {MAX_LISTED} names had to be compared with the URL. Name a folder with fewer files."
            raise InvalidInput.at("/source", message)
        if self.end is not None and time.monotonic() > self.end:
            message = f"Listing the files took longer than {REQUEST_SECONDS:g} s. Name a folder with fewer files."
            raise InvalidInput.at("/source", message)


def _is_valid(check: Callable[[str], str], key: str) -> bool:
    """Return True if the store accepts a key or prefix that is made from others' names."""
    try:
        check(key)
    except ValueError:
        return False
    return True


def _blobs(url: SourceURL, search: _Search) -> Iterator[SourceFile]:
    prefix = "".join(f"{folder}/" for folder in url.folders)
    if not _is_valid(check_prefix, prefix):
        return
    store = _store(url.root)
    if not url.patterns:
        key = prefix.rstrip("/")
        try:
            blob = store.info(key)
        except BlobNotFound:
            return
        yield SourceFile(url.url_of(key), blob.size, blob.etag)
        return
    for blob in store.list_blobs(prefix):
        search.count()
        rest = blob.key.split("/")[len(url.folders) :]
        if len(rest) == len(url.patterns) and _matches(url, rest) and _is_valid(check_key, blob.key):
            yield SourceFile(url.url_of(blob.key), blob.size, blob.etag)


def _matches(url: SourceURL, names: Sequence[str]) -> bool:
    return all(pattern.fullmatch(name) for pattern, name in zip(url.patterns, names, strict=True))


def _local_files(url: SourceURL, allowed: AllowedSources, search: _Search) -> Iterator[SourceFile]:
    for path in _local_paths(url.path, url.patterns, allowed, search):
        try:
            real = allowed.real_path(path)
            status = real.stat()
        except Forbidden:
            if not url.patterns:
                raise
            continue  # a link out of the folder, which a pattern does not follow
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and _is_utf8(str(real)):
            yield SourceFile(url.url_of(str(real)), status.st_size, _etag(status))


def _local_paths(
    folder: Path, patterns: Sequence["re.Pattern[str]"], allowed: AllowedSources, search: _Search
) -> Iterator[Path]:
    """Yield the paths below a folder whose names match the patterns, or the folder itself if there are none."""
    if not patterns:
        yield folder
        return
    # There may be no such folder, it may be private, or a link to somewhere else.
    with contextlib.suppress(OSError, Forbidden), os.scandir(allowed.real_path(folder)) as entries:
        for entry in entries:
            search.count()
            if patterns[0].fullmatch(entry.name):
                yield from _local_paths(folder / entry.name, patterns[1:], allowed, search)


def _is_utf8(path: str) -> bool:
    """Return True if a URL can name a path. Others have surrogates in place of bytes that are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _etag(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _path_of(descriptor: int, path: Path) -> str:
    """Return the path of an open file without symbolic links; without /proc, that of the name `path`."""
    return str((_DESCRIPTORS / str(descriptor)).readlink()) if _DESCRIPTORS.exists() else os.path.realpath(path)


def _open_local(path: Path, file: SourceFile) -> BinaryIO:
    """Open a file on this machine. Raises SourceChanged unless it is the one that was found, at the same place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise SourceChanged(file.name) from None
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):  # which Python opens as no file
        os.close(descriptor)
        raise SourceChanged(file.name)
    opened = os.fdopen(descriptor, "rb")
    # The place is that of the open file, because a folder above the name may become a link at any time.
    is_same = _path_of(descriptor, path) == str(path) and _etag(status) == file.etag
    if not stat.S_ISREG(status.st_mode) or not is_same:
        opened.close()
        raise SourceChanged(file.name)
    return opened


@functools.lru_cache(maxsize=8)
def _store(root: str) -> "Store":
    from app.storage import open_store  # obstore is loaded for sources in a bucket only

    return open_store(root)


def _store_of(url: str) -> tuple["Store", str]:
    """Return the store of a normalised URL, and the key."""
    scheme, rest = url.split("://", 1)
    bucket, _, key = rest.partition("/")
    return _store(f"{scheme}://{bucket}"), unquote(key)
