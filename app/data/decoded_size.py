"""How much a file may come to once it is decoded, which a few bytes can make any amount of."""

import mmap

from app.data.part import Source
from app.errors import BodyTooLarge, InvalidInput

INFLATION = 8  # times as much as an upload may have is what its rows may come to as numbers
HELD_BYTES = 1 << 28  # may be held in memory at once of any file, and of a longer one as much as it has itself
METADATA_BYTES = 1 << 21  # of a footer or a message: each byte of it may take hundreds in memory


def check_rows(rows: int, columns: int, limit: int) -> None:
    """Raises BodyTooLarge where so many rows are more than fit into an upload of `limit` bytes, however packed."""
    if rows * columns * 8 > INFLATION * limit:
        raise BodyTooLarge(f"The file's rows come to more than {INFLATION} times the {limit} bytes of an upload.")


def check_held(size: int, file_size: int) -> None:
    """Raises InvalidInput where a file is not to be read but with so many bytes of it in memory at once."""
    if size > HELD_BYTES + file_size:
        raise InvalidInput("Too much of the file would be in memory at once; smaller pages or batches will do.")


def check_metadata(size: int) -> None:
    if size > METADATA_BYTES:
        raise InvalidInput(
            f"What describes the file's columns is longer than {METADATA_BYTES} bytes; fewer row groups or columns "
            "will do."
        )


def view_of(source: Source) -> memoryview:
    """The file's bytes, of which only those that are looked at are read."""
    if isinstance(source, bytes):
        return memoryview(source)
    with source.open("rb") as file:
        if not source.stat().st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
