"""The protocols that formats of bodies and files implement.

The rest of the service uses these attributes and methods, and never compares the name of a format.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.data.batch import Array, CellBatch, Columns, RowBatch, Source
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import PLAIN, Dialect
from app.data.lazy_pyarrow import pa
from app.errors import LinserveError

SAVE_AS_UTF8 = (
    "Save it as UTF-8 (in Excel: CSV UTF-8), or convert it, for instance with `iconv -f WINDOWS-1252 -t UTF-8 FILE`."
)


class BodyFormat(Protocol):
    """A format of request and response bodies: JSON, or one of the file formats."""

    name: str  # in records of jobs
    media_type: str
    label: str  # in messages
    file_label: str = ""  # in messages about a file that was recognised, unless it is `label`
    names_in_rows: bool  # True if each row has the names of its columns, and a later row may have others

    def may_be(self, content: "Content", head: bytes, error: LinserveError) -> bool:  # noqa: ARG002 - for subclasses
        """Return True if a body that looks like `content` may be in this format, with `error` as its only fault."""
        return False

    def explain(self, error: LinserveError, head: bytes, dialect: Dialect) -> LinserveError:  # noqa: ARG002
        """Return an error that names the mistake behind `error`, if it shows in the first bytes, or `error`."""
        return error


@dataclass(frozen=True)
class Content:
    """A recognised kind of content: its name, what to do about it, and its format if the service reads it."""

    label: str
    advice: str
    body_format: BodyFormat | None = None
    header: str = "Content-Type"  # the header that is wrong


@dataclass(frozen=True)
class Span:
    """Some consecutive rows of a file, which can be read without those before them."""

    start: int  # row group, byte of the text or record batch in which they start, by the format
    stop: int  # the same for their end, exclusive
    first_row: int  # number of the first of them
    rows: int


def joined_spans(parts: Iterable[tuple[int, int]], size: int) -> list[Span]:
    """Return spans of about `size` bytes made of consecutive parts, given by their rows and bytes."""
    spans: list[Span] = []
    start = rows = held = 0
    row = 1
    index = -1
    for index, (count, bytes_) in enumerate(parts):
        rows, held = rows + count, held + bytes_
        if held >= size:
            spans.append(Span(start, index + 1, row, rows))
            start, row, rows, held = index + 1, row + rows, 0, 0
    if start <= index:
        spans.append(Span(start, index + 1, row, rows))
    return spans


class Output(Protocol):
    """A binary file that a table is written to."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Write all of `data` and return its length."""


class TableWriter(Protocol):
    """Writes one table. NaN becomes null."""

    def write(self, kept: "pa.RecordBatch | None", values: Array) -> None:
        """Write some rows: the kept columns, and then the numbers, (n, d)."""

    def close(self) -> None:
        """End the table, which may have no rows."""


class ResultFormat(Protocol):
    """A format that results are written in."""

    names_in_rows: bool

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        """Return a writer of a table with the columns `keep`, and then the numbers `names`."""


class TableFormat(BodyFormat, Protocol):
    """A file format of tables. Methods that only some formats need have a default."""

    signature: bytes = b""  # first bytes of every file in a binary format
    is_text: bool  # False if a short file may have any number of rows, as compressed and binary files do
    options: frozenset[str] = frozenset()  # names of the options in ReadingOptions that apply to this format
    has_untyped_text: bool = False  # True if any value may come as text, so that "1" may be a number
    names_in_rows: bool = False
    needs_whole_file: bool = False  # True if a file that is elsewhere has to be copied to this machine to be read

    def recognises(self, text: bytes) -> bool:  # noqa: ARG002
        """Return True if a text that begins like this, without a byte order mark, is probably in this format."""
        return False

    def dialect(self, source: Source, options: ReadingOptions, known: Dialect | None = None) -> Dialect:  # noqa: ARG002
        """Return how the text of a file is divided: by the options, else as `known` if that fits, else as it appears.

        Raises InvalidInput if it cannot be decided.
        """
        return PLAIN

    def first_row(self, dialect: Dialect) -> int:  # noqa: ARG002
        """Return the number of the first row of data."""
        return 1

    def column_names(self, source: Source, dialect: Dialect = PLAIN) -> list[str]:
        """Return the names of the columns; with `names_in_rows`, those in the first row.

        Raises InvalidInput if they cannot be read, or if a name appears twice.
        """

    def column_types(self, source: Source) -> dict[str, str]:  # noqa: ARG002
        """Return the kinds of types of the columns, if files have types. Columns of numbers have the same kind."""
        return {}

    def index_columns(self, source: Source) -> list[str]:  # noqa: ARG002
        """Return the names of the columns that are the index of a pandas frame."""
        return []

    def first_lines(self, source: Source, step: Callable[[], None] = lambda: None) -> dict[str, int]:  # noqa: ARG002
        """With `names_in_rows`, return the row in which each name appears first. Calls `step` regularly."""
        return {}

    def metadata_bytes(self, source: Source) -> int:  # noqa: ARG002
        """Return an estimate of the bytes that the decoded description of the columns takes."""
        return 0

    def check_size(self, source: Source, names: Sequence[str], limit: int) -> int:  # noqa: ARG002
        """Return an estimate of the bytes of these columns that are decoded at a time, in addition to the batches.

        Raises BodyTooLarge or InvalidInput if they are too large for an upload of `limit` bytes.
        """
        return 0

    def check_memory(self, source: Source, names: Sequence[str]) -> None:  # noqa: ARG002
        """Raise InvalidInput if too many bytes of these columns are decoded at a time. The file may be of any length.

        A file that is elsewhere is not checked if this would read it twice.
        """
        return

    def spans(self, source: Source, dialect: Dialect, size: int) -> list[Span]:  # noqa: ARG002
        """Return the parts of a file that can be read separately, in their order, of about `size` bytes each.

        None are returned if the file can only be read as a whole. Rows are not checked. Raises InvalidInput if the
        description of the parts is damaged.
        """
        return []

    def within(self, span: Span) -> "TableFormat":  # noqa: ARG002
        """Return a format that reads only these rows of a file. Formats without spans need no method of their own."""
        return self

    def batches(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
        """Yield the rows. Raises InvalidInput with the place of the first faulty value."""

    def cells(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[CellBatch]:
        """Yield the cells of `columns.names`.

        Those of `columns.numbers` are float64 if the file has numbers there, and a gap is null. Other columns have the
        file's own types; the cells of a text file are text there, and a gap is null if it is empty or an unquoted NA.
        Raises InvalidInput with the place of the first fault of a column of numbers.
        """

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        """Return a writer of a table with the columns `keep`, and then the numbers `names`."""
