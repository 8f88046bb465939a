"""The fragments of files: row groups of Parquet, ranges of CSV, and batches of Arrow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.data.batch import RangedFile
from app.data.formats.base import Span

MIN_FRAGMENT_BYTES = 1 << 22
MAX_FRAGMENT_BYTES = 1 << 26  # Largest fragment, unless there would be more than MOST_FRAGMENTS.
FRAGMENTS = 64  # Fragments of a set of files, if their size is between the two above.
MOST_FRAGMENTS = 100_000  # Most fragments, because the trainer takes milliseconds for each. Then they are larger.


class FragmentFile(Protocol):
    """A file that other processes can open too."""

    @property
    def name(self) -> str:
        """The file's name for messages; empty if there is only one file."""

    @property
    def size(self) -> int:
        """Bytes."""

    def source(self) -> Path | RangedFile:
        """Return the file as formats read it."""


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine."""

    path: str
    name: str = ""

    @property
    def size(self) -> int:
        return Path(self.path).stat().st_size

    def source(self) -> Path:
        return Path(self.path)


@dataclass(frozen=True)
class Fragment:
    """Some consecutive rows of a file, or the whole file if it has no span."""

    file: int  # index of the file
    span: Span | None

    @property
    def rows(self) -> int:
        """The number of rows as the file describes them, or 0 if it is not known."""
        return 0 if self.span is None else self.span.rows


def fragment_bytes(files: Sequence[FragmentFile]) -> int:
    """Return the size of fragments. It depends only on the files, so that the same files give the same bits."""
    total = sum(file.size for file in files)
    return max(min(max(total // FRAGMENTS, MIN_FRAGMENT_BYTES), MAX_FRAGMENT_BYTES), total // MOST_FRAGMENTS)
