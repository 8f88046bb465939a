"""The upload of a merge: one or more version files, each after its length in 8 bytes, little-endian."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from app.errors import InvalidInput

VERSION = "version"  # format of such an upload in the request of a job
MAX_FILES = 100
_LENGTH_BYTES = 8


class Place(NamedTuple):
    """The place of one file in an upload."""

    offset: int
    size: int


class VersionFilesWriter:
    """Writes version files of which the lengths are not known before their ends."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begin: int | None = None  # of the content of the file that is written
        self._count = 0

    def begin(self) -> None:
        """End the file that is written, if any, and begin the next one. Raises InvalidInput if there are too many."""
        self.end()
        if self._count == MAX_FILES:
            raise InvalidInput(f"One request merges at most {MAX_FILES} files. Send the others in another one.")
        self._count += 1
        self._file.write(bytes(_LENGTH_BYTES))
        self._begin = self._file.tell()

    def write(self, content: bytes | bytearray) -> None:
        self._file.write(content)

    def end(self) -> None:
        """Write the length of the file before it, if one is written."""
        if self._begin is None:
            return
        end = self._file.tell()
        self._file.seek(self._begin - _LENGTH_BYTES)
        self._file.write((end - self._begin).to_bytes(_LENGTH_BYTES, "little"))
        self._file.seek(end)
        self._begin = None


def places_of(path: Path) -> Iterator[Place]:
    """Yield the places of the files in an upload. Raises InvalidInput if there are none, or if it is truncated."""
    size, offset = path.stat().st_size, 0
    if not size:
        raise InvalidInput("The body is empty. Send a version file, as `GET /models/{model}/versions/{n}/file` has it.")
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            place = Place(offset + _LENGTH_BYTES, int.from_bytes(file.read(_LENGTH_BYTES), "little"))
            offset = place.offset + place.size
            if offset > size:
                raise InvalidInput("The upload of the version files is truncated. Send them again.")
            yield place
