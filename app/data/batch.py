"""Batches of rows, and the errors about rows and columns, which are the same for all formats."""

import io
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.data.columns.schema import PLAIN, Dialect
from app.data.lazy_pyarrow import pa
from app.data.names import MAX_LISTED, extra_columns, listed, missing_columns, shown, without_level
from app.data.rounding import Rounded, are_small, first_rounded, has_large
from app.errors import FieldError, InvalidInput

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class RangedFile:
    """A file that is not on this machine. Parts of it are read when they are needed. It can be pickled if `opener` can.

    `opener` returns a file that can be sought.
    """

    size: int  # bytes
    opener: Callable[[], BinaryIO]

    def open(self) -> BinaryIO:
        return self.opener()


class SetFile(Protocol):
    """One of several files."""

    @property
    def name(self) -> str:
        """The file's name, for messages."""

    def source(self) -> Path | RangedFile:
        """Return the file as formats read it."""


class FileSet:
    """Several files with the same columns, in their order. Rows are counted when a file was read to its end."""

    def __init__(self, files: Sequence[SetFile], limit: int | None = None) -> None:
        """With a limit, their rows are bounded as those of an upload of `limit` bytes."""
        self.files = tuple(files)
        self.limit = limit
        self.columns: Mapping[str, str] | None = None  # names and types of the first file, once it was opened
        self._rows: list[int] = []

    def note_rows(self, place: int, rows: int) -> None:
        """Note the number of rows of the file at this place. It is the same in each pass."""
        if place == len(self._rows):
            self._rows.append(rows)

    def place(self, index: int) -> tuple[str, int]:
        """Return the name of the file that has a row, numbered from 0 over all files, and the row's number in it."""
        for file, rows in zip(self.files, self._rows, strict=False):
            if index < rows:
                return file.name, index
            index -= rows
        return self.files[min(len(self._rows), len(self.files) - 1)].name, index


Body: TypeAlias = Path | bytes  # a file on this machine, or its content
Source: TypeAlias = Body | RangedFile | FileSet

BATCH_BYTES = 1 << 21  # Approximate bytes of numbers in a batch.
MAX_KEPT_BYTES = 1 << 20  # Bytes of kept columns in a batch that `split_wide` returns.
MAX_COLUMNS = 10_000  # Columns of a file, including those that are not read.
MISSING = "The value is missing, but a number was expected."
NOT_FINITE = "The value is not a finite number. Write a number that a 64-bit float can hold, or leave the row out."


class Columns(NamedTuple):
    """The columns to read."""

    numbers: Sequence[str]  # in this order
    keep: Sequence[str] = ()  # passed through unchanged
    missing: bool = False  # True if a number may be missing; it is then NaN
    only: bool = False  # True if other columns are refused
    ignored: AbstractSet[str] = frozenset()  # with `only`: names of other columns that are allowed and not read
    dialect: Dialect = PLAIN  # for text
    na: tuple[str, ...] = ()  # for text: further texts that mark a gap in the columns of numbers
    training: bool = True  # True if messages may advise the training options that leave out columns or rows
    unchanged: AbstractSet[str] = frozenset()  # of `keep`, for cells: text of which nothing becomes null
    late: Mapping[str, int] = MappingProxyType({})  # NDJSON: the lines of names that appear first after line 1

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*self.numbers, *self.keep]))


class CellBatch(NamedTuple):
    """The cells of some consecutive rows of a file."""

    cells: "pa.RecordBatch"  # numbers as float64 if they were asked for as numbers, and otherwise as the file has them
    rounded: Mapping[str, int] = MappingProxyType({})  # column of numbers -> first row, from 0, of a rounded integer
    others: frozenset[str] = frozenset()  # as in RowBatch


class RowBatch(NamedTuple):
    """Some consecutive rows of a file."""

    values: Array  # (n, d), with each column contiguous in memory
    kept: "pa.RecordBatch | None" = None
    rounded: Rounded = ()
    others: frozenset[str] = frozenset()  # NDJSON: names in these rows that are not read, unless `only`
    is_complete: bool = False  # True if it is known that no value is NaN

    def slice(self, start: int, end: int) -> "RowBatch":
        """Return some of the rows, without `others`."""
        kept = None if self.kept is None else self.kept.slice(start, end - start)
        rounded = tuple((column, row - start) for column, row in self.rounded if start <= row < end)
        return RowBatch(self.values[start:end], kept, rounded)


def open_source(source: Source) -> BinaryIO:
    """Open a file for reading, the first of several. It can be sought."""
    if isinstance(source, FileSet):
        source = source.files[0].source()
    if isinstance(source, RangedFile):
        return source.open()
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


def batch_rows(columns: Columns) -> int:
    """Return the number of rows of a batch with these columns."""
    return max(256, BATCH_BYTES // (8 * max(1, len(columns.numbers))))


def wide_batch_bytes(columns: Columns) -> int:
    """Return the bytes of numbers in a batch if they exceed BATCH_BYTES because its rows are wide, and otherwise 0."""
    size = 8 * len(columns.numbers) * batch_rows(columns)
    return size if size > BATCH_BYTES else 0


def split_wide(batch: RowBatch, row_bytes: int, first_row: int | None = None) -> Iterator[RowBatch]:
    """Yield the rows in batches with at most MAX_KEPT_BYTES kept, and BATCH_BYTES of results at `row_bytes` a row.

    Raises InvalidInput if one row has more than MAX_KEPT_BYTES to keep. `first_row` is the number of the first row.
    """
    rows = len(batch.values)
    is_kept_short = batch.kept is None or batch.kept.nbytes <= MAX_KEPT_BYTES
    if is_kept_short and (rows <= 1 or rows * row_bytes <= BATCH_BYTES):
        yield batch
        return
    if rows <= 1:
        message = f"The columns that are kept have more than {MAX_KEPT_BYTES} bytes in this row. Keep shorter ones."
        raise row_error(message, row=first_row) if first_row is not None else InvalidInput(message)
    half = rows // 2
    yield from split_wide(batch.slice(0, half), row_bytes, first_row)
    yield from split_wide(batch.slice(half, rows), row_bytes, None if first_row is None else first_row + half)


def from_record_batch(
    batch: "pa.RecordBatch",
    columns: Columns,
    first_row: int,
    exact: "Callable[[Array], pa.RecordBatch | None] | None" = None,
) -> RowBatch:
    """Return the columns of a record batch. Raises InvalidInput with the place of the first value that is not a number.

    If the floats of the batch were parsed from text, `exact` returns the text, to find integers that were rounded. It
    takes the values, (d, n), and is called only if one may have been rounded.
    """
    values = np.empty((len(columns.numbers), batch.num_rows))
    for index, name in enumerate(columns.numbers):
        column = batch.column(name)
        if not pa.types.is_float64(column.type):
            column = column.cast(pa.float64(), safe=False)
        values[index] = column.to_numpy(zero_copy_only=False)  # null comes out as NaN
    kept = batch.select(list(columns.keep)) if columns.keep else None
    if are_small(values):
        return RowBatch(values.T, kept, is_complete=True)
    check(values.T, columns, first_row)
    rounded = _rounded(exact(values) if exact else batch, columns, values) if has_large(values) else ()
    return RowBatch(values.T, kept, rounded)


def _rounded(batch: "pa.RecordBatch | None", columns: Columns, values: Array) -> Rounded:
    """Return the places of integers that were rounded in `values`, (d, n), made from those columns of the batch."""
    if batch is None:
        return ()
    present = set(batch.schema.names)
    places = []
    for index, name in enumerate(columns.numbers):
        if name in present and (row := first_rounded(batch.column(name), values[index])) is not None:
            places.append((index, row))
    return tuple(places)


def check(values: Array, columns: Columns, first_row: int) -> None:
    """Raise InvalidInput with the place of the first value of each column that is missing or not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):  # One pass; nearly always enough.
            return
    faults = np.isinf(values) if columns.missing else ~np.isfinite(values)
    choice = "leave such rows out with `missing=drop`" if columns.training else "get null results with `missing=null`"
    details = []
    for index in np.flatnonzero(faults.any(axis=0))[:MAX_LISTED].tolist():
        row = int(np.argmax(faults[:, index]))
        fault = f"{MISSING} Fill it in, or {choice}." if np.isnan(values[row, index]) else NOT_FINITE
        details.append(FieldError(fault, row=first_row + row, column=columns.numbers[index]))
    if details:
        raise in_columns(details)


def check_present(present: Sequence[str], columns: Columns, index: Collection[str] = ()) -> None:
    """Raise InvalidInput if a wanted column is missing or, with `columns.only`, if there is an unknown one.

    `index` has the names of columns that are the index of a pandas frame.
    """
    names = set(present)
    missing = [name for name in columns.names if name not in names]
    known = {*columns.names, *columns.ignored, *index}
    others = [name for name in present if name not in known] if columns.only else []
    if missing:
        error = missing_columns(missing, present)
        extra = extra_columns(others, present, columns.names).details if others else ()
        raise InvalidInput(error.message, [*error.details, *extra][:MAX_LISTED])
    if others:
        raise extra_columns(others, present, columns.names)


def check_distinct(names: Sequence[str], message: str, *, row: int | None = None) -> None:
    """Raise InvalidInput if a column's name appears twice, with `message`, or if there are too many columns."""
    if len(names) > MAX_COLUMNS:
        raise InvalidInput(f"The file has more than {MAX_COLUMNS} columns: {len(names)}. Leave some out.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        details = [
            FieldError(f"Columns {_places(name, names)} have the same name. Rename all but one.", row=row, column=name)
            for name in twice[:MAX_LISTED]
        ]
        raise InvalidInput(f"{message} {listed(twice)}. Each column needs a name of its own.", details)


def _places(name: str, names: Sequence[str]) -> str:
    places = [str(place) for place, other in enumerate(names, 1) if other == name]
    return ", ".join(places[:MAX_LISTED]) + ", ..." * (len(places) > MAX_LISTED)


def in_columns(details: Sequence[FieldError]) -> InvalidInput:
    """Return the error for values at fault, with one detail for each column."""
    details = sorted(details, key=lambda detail: (detail.file or "", detail.row or 0))[:MAX_LISTED]
    first = details[0]
    row = f"row {first.row}" if first.file is None else f"row {first.row} of {first.file}"
    place = f"{row}, column {shown(first.column or '')}: {without_level(first.message)}"
    if len(details) == 1:
        return InvalidInput(place[0].upper() + place[1:], details)
    return InvalidInput(f"{len(details)} columns have values at fault. The first: {place}", details)


def row_error(message: str, *, row: int, column: str | None = None) -> InvalidInput:
    """Return the error for a row, or for its value in a column."""
    if column is not None:
        return in_columns([FieldError(message, row=row, column=column)])
    return InvalidInput(f"Row {row}: {message}", [FieldError(message, row=row)])
