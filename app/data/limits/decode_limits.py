"""Limits on the size of a decoded file, because a short file can decode to any size."""

import contextlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from app.data.batch import RangedFile, Source
from app.errors import BodyTooLarge, InvalidInput

MAX_EXPANSION = 8  # Bytes of rows, as numbers, for each byte that an upload may have.
HELD_BYTES = 1 << 28  # Bytes of a file that may be in memory at once, in addition to the file's own length.
WHOLE_BYTES = 1 << 29  # Longest file elsewhere that is read into memory.
METADATA_BYTES = 1 << 21  # Bytes of a footer or a message. Each of them may take hundreds of bytes in memory.


def check_rows(rows: int, columns: int, limit: int) -> None:
    """Raise BodyTooLarge if the rows take more than MAX_EXPANSION times `limit` bytes, the limit of an upload."""
    if rows * columns * 8 > MAX_EXPANSION * limit:
        raise BodyTooLarge(f"The file's rows take more than {MAX_EXPANSION} times the {limit} bytes of an upload.")


def check_held(size: int, file_size: int) -> None:
    """Raise InvalidInput if reading a file would take too much memory at once; `size` bytes are needed."""
    if size > HELD_BYTES + file_size:
        raise InvalidInput(
            f"Reading the file takes {size} bytes of memory at once, and the limit is {HELD_BYTES + file_size}. Write "
            "it with smaller pages or batches."
        )


def check_metadata(size: int) -> None:
    """Raise InvalidInput if a footer or a message has more than METADATA_BYTES."""
    if size > METADATA_BYTES:
        raise InvalidInput(
            f"The file's metadata is longer than {METADATA_BYTES} bytes. Write fewer row groups or columns."
        )


@contextlib.contextmanager
def refuse_damage(message: str) -> Iterator[None]:
    """Raise InvalidInput with `message` if reading at the places that the file names fails."""
    try:
        yield
    except (IndexError, KeyError, OverflowError, TypeError, struct.error):
        raise InvalidInput(message) from None


def view_of(source: Source) -> memoryview:
    """Return the bytes of a file. Of one on this machine, only the bytes that are accessed are read.

    Raises InvalidInput if one that is elsewhere has more than WHOLE_BYTES.
    """
    if isinstance(source, bytes):
        return memoryview(source)
    if isinstance(source, RangedFile):
        if source.size > WHOLE_BYTES:
            raise InvalidInput(
                f"The file is read into memory as a whole, and is longer than {WHOLE_BYTES >> 20} MiB. Write shorter "
                "files, or Parquet."
            )
        with source.open() as file:
            return memoryview(file.read())
    assert isinstance(source, Path)
    with source.open("rb") as file:
        if not source.stat().st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
