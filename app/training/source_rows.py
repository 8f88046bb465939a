"""The files of a job's source: found when the job first runs, and the same for each of its attempts."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.data.batch import FileSet, RangedFile
from app.errors import BodyTooLarge, SourceChanged, Unavailable
from app.storage.store import BlobChanged, BlobNotFound
from app.storage.temp import TempStorage
from app.training.request import TrainingRequest
from app.training.source_url import AllowedSources
from app.training.sources import SourceFile, SourceFiles, resolve
from app.training.uploads import UploadStore

MAX_INSPECTED = 100  # Files of a source that are read to inspect it.
COPY_BYTES = 1 << 20  # Bytes copied at a time.


def files_of(request: TrainingRequest, allowed: AllowedSources, uploads: UploadStore) -> SourceFiles | None:
    """Return the files of a request's source, or None if its rows were uploaded.

    Raises as `resolve` does if this is the first attempt at the job, Forbidden if a recorded file is not under a prefix
    of this trainer, Unavailable if the record is damaged, and StoreUnavailable.
    """
    if request.source is None:
        return None
    name = uploads.files(request.upload)
    content = uploads.recorded(name)
    if content is None:
        found = resolve(request.source, allowed, request.format)
        content = uploads.record_once(name, msgspec.json.encode(found))
    try:
        files = msgspec.json.decode(content, type=SourceFiles)
    except msgspec.DecodeError:  # also if it is JSON and no record
        raise Unavailable("The record of this job's files is damaged. Send the request again.") from None
    for file in files.files:
        allowed.check_recorded(file.url)
    return files


@dataclass(frozen=True)
class _File:
    file: SourceFile
    wait: Callable[[float], None] | None

    @property
    def name(self) -> str:
        return self.file.name

    def source(self) -> Path | RangedFile:
        return self.file.source(self.wait)


@dataclass(frozen=True)
class _Copy:
    name: str
    path: Path

    def source(self) -> Path:
        return self.path


@contextlib.contextmanager
def local_copies(files: SourceFiles, scratch: TempStorage, limit: int) -> Iterator[FileSet]:
    """Yield the rows of files to inspect, bounded as those of an upload of `limit` bytes.

    Binary files in a store are copied, because only a file on this machine can be checked before it is decompressed.
    Raises StoreUnavailable, SourceChanged and SpoolFull.
    """
    with contextlib.ExitStack() as copies:
        found: list[_File | _Copy] = []
        for file in files.files:
            if file.path is not None or files.table_format.is_text:
                found.append(_File(file, None))
                continue
            copy = copies.enter_context(scratch.open(file.size))
            try:
                with file.open() as blob:
                    while part := blob.read(COPY_BYTES):
                        copy.write(part)
            except (BlobChanged, BlobNotFound):
                raise SourceChanged(file.name) from None
            found.append(_Copy(file.name, copy.path))
        yield FileSet(found, limit)


def file_set(files: SourceFiles, wait: Callable[[float], None] | None) -> FileSet:
    """Return the rows of the files.

    While the store is unavailable, their readers call `wait` with the seconds before the next try, or raise
    StoreUnavailable if it is None.
    """
    return FileSet([_File(file, wait) for file in files.files])


def first_files(files: SourceFiles, max_bytes: int) -> SourceFiles:
    """Return the first MAX_INSPECTED of the files, with at most `max_bytes` in all.

    Raises BodyTooLarge if the first has more.
    """
    sizes = itertools.accumulate(file.size for file in files.files[:MAX_INSPECTED])
    count = sum(size <= max_bytes for size in sizes)
    if not count:
        name, size = files.files[0].name, files.files[0].size
        raise BodyTooLarge(f"{name} has {size} bytes, and at most {max_bytes} are read to inspect files.")
    return SourceFiles(files.files[:count], files.format)


def check_unchanged(files: SourceFiles) -> None:
    """Raise SourceChanged if a file on this machine was changed since it was found.

    One in a store is read on condition of its tag.
    """
    for file in files.files:
        if file.path is not None:
            file.check()
