"""The first rows of a file as text, and single rows after them, so that a person sees what was sent.

Rows that cannot be read as a table are shown too, because they are the ones to look at.
"""

import contextlib
import csv
from codecs import BOM_UTF8
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import msgspec

from app.data.batch import Columns, Source, open_source
from app.data.columns.dialect import SAMPLE_BYTES, cells_of
from app.data.columns.encodings import beginning, text_chunks
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import PLAIN, Dialect
from app.data.columns.text_rows import count_rows, skipped, whole_rows
from app.data.formats.base import TableFormat
from app.data.lazy_pyarrow import pa
from app.errors import InvalidInput, LinserveError

MAX_SHOWN_ROWS = 20
MAX_SHOWN_COLUMNS = 60
MAX_CELL = 60  # Characters of a cell.
BLOCK_BYTES = 1 << 20  # Bytes of text searched for a row at a time.
LINE_BYTES = 1 << 20  # Bytes of a line of NDJSON that are read.
SPAN_BYTES = 1 << 24  # Bytes of the parts of a binary file of which one is read for a row.
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
COLUMN_BYTES = 1 << 20  # Bytes of the shown cells of a column, above which none of them is shown.

Cell: TypeAlias = str | None  # None is a gap in a format that has types

_ROW = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw])
_VALUE = msgspec.json.Decoder()


class ShownRow(NamedTuple):
    number: int  # as in messages about faults
    cells: tuple[Cell, ...]  # cut; there may be more or fewer than columns if the row has a fault


@dataclass(frozen=True)
class FirstRows:
    """Some rows of a file, in their order."""

    names: tuple[str, ...] = ()  # of the columns that are shown
    columns: int = 0  # number of all columns
    rows: tuple[ShownRow, ...] = ()


def first_rows(
    source: Source,
    table_format: TableFormat,
    options: ReadingOptions,
    also: Collection[int] = (),
    reserve: Callable[[int], object] = lambda _: None,
) -> FirstRows:
    """Return the first MAX_SHOWN_ROWS rows, and the rows with the numbers `also`, with at most MAX_SHOWN_COLUMNS cells.

    Rows after a fault, which cannot be read, are left out. `reserve` is called with the bytes of memory that it takes.
    """
    wanted = _Wanted(also)
    found = FirstRows()
    # A fault of the file is the subject of another message.
    with contextlib.suppress(LinserveError, csv.Error, OSError):
        if table_format.names_in_rows:
            return _of_lines(source, wanted)
        dialect = _dialect(source, table_format, options)
        if table_format.is_text:
            return _of_text(source, dialect, wanted)
        found = _of_cells(source, table_format, dialect, wanted, reserve)
    return found


class _Wanted:
    """The numbers of the rows to show."""

    def __init__(self, also: Collection[int]) -> None:
        self._also = frozenset(also)
        self._last = max(also, default=0)
        self.first = 1  # number of the first row of the file

    def __contains__(self, number: int) -> bool:
        return number < self.first + MAX_SHOWN_ROWS or number in self._also

    def any_from(self, start: int, count: int) -> bool:
        """Return True if one of `count` rows from this one is wanted."""
        return start < self.first + MAX_SHOWN_ROWS or any(start <= number < start + count for number in self._also)

    def is_past(self, number: int) -> bool:
        """Return True if no row from this one on is wanted."""
        return number >= self.first + MAX_SHOWN_ROWS and number > self._last

    @property
    def beyond(self) -> list[int]:
        """The rows that are not among the first, in their order."""
        return sorted(number for number in self._also if number >= self.first + MAX_SHOWN_ROWS)


def cut(text: str) -> str:
    """Return a text with at most MAX_CELL characters, all of them visible."""
    shown = text[:MAX_CELL]
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else _invisible(char) for char in shown)
    return shown if len(text) <= MAX_CELL else f"{shown}{ELLIPSIS}"


def _invisible(char: str) -> str:
    return " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"


def _dialect(source: Source, table_format: TableFormat, options: ReadingOptions) -> Dialect:
    try:
        return table_format.dialect(source, options)
    except InvalidInput:  # It cannot be decided, but the rows can be shown.
        return replace(PLAIN, sep=options.sep or PLAIN.sep, skip=options.skip, header=options.header)


def _of_text(source: Source, dialect: Dialect, wanted: _Wanted) -> FirstRows:
    number = dialect.skip + 1
    names: tuple[str, ...] | None = None
    columns = 0
    rows: list[ShownRow] = []
    wanted.first = number + (dialect.header != "none")
    with contextlib.suppress(LinserveError, csv.Error):
        for block in _text_blocks(source, dialect):
            if not wanted.any_from(number, count := count_rows(block, dialect.sep) + 1):
                number += count - 1 if block.endswith((b"\n", b"\r")) else count
                continue
            for cells in cells_of(block, dialect.sep, spaces=dialect.spaces):
                if names is None:
                    names, columns = _names(cells, dialect)
                if number in wanted and number >= wanted.first:
                    rows.append(ShownRow(number, tuple(map(cut, cells[: MAX_SHOWN_COLUMNS + 1]))))
                number += 1
                if wanted.is_past(number):
                    break
            if wanted.is_past(number):
                break
    return FirstRows(names or (), columns, tuple(rows))


def _text_blocks(source: Source, dialect: Dialect) -> Iterator[bytes]:
    """Yield the text after the skipped lines in blocks of whole rows, the first of which is short."""
    head, _ = beginning(source, dialect.encoding, SAMPLE_BYTES)
    start = skipped(head, dialect.skip)
    return whole_rows(text_chunks(source, dialect.encoding, BLOCK_BYTES, start), dialect.sep)


def _names(cells: Sequence[str], dialect: Dialect) -> tuple[tuple[str, ...], int]:
    """Return the names of the columns that are shown, and the number of all."""
    names = list(cells)
    if dialect.empty_end and names and not names[-1].strip():
        names.pop()
    if dialect.header == "none":
        names = [f"c{number}" for number in range(1, len(names) + 1)]
    elif dialect.row_names:
        names.insert(0, "")
    if dialect.spaces:
        names = [name.strip(" ") for name in names]
    return tuple(names[:MAX_SHOWN_COLUMNS]), len(names)


def _of_lines(source: Source, wanted: _Wanted) -> FirstRows:
    """Return rows of NDJSON: the names are those in the rows that are shown."""
    decoded: list[tuple[int, dict[str, Cell] | str]] = []
    names: dict[str, None] = {}
    for number, line in _numbered_lines(source, wanted):
        try:
            row = _ROW.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            decoded.append((number, line.strip()[: 4 * MAX_CELL].decode(errors="replace")))
            continue
        items = row.items() if isinstance(row, dict) else ((f"c{place}", raw) for place, raw in enumerate(row, 1))
        cells = {name: _json_text(raw) for name, raw in items}
        names |= dict.fromkeys(cells)
        decoded.append((number, cells))
    shown = tuple(names)[:MAX_SHOWN_COLUMNS]
    rows = (
        ShownRow(number, (cut(cells),) if isinstance(cells, str) else tuple(cells.get(name) for name in shown))
        for number, cells in decoded
    )
    return FirstRows(shown, len(names), tuple(rows))


def _numbered_lines(source: Source, wanted: _Wanted) -> Iterator[tuple[int, bytes]]:
    number = 0
    with open_source(source) as file:
        if file.read(len(BOM_UTF8)) != BOM_UTF8:
            file.seek(0)
        while not wanted.is_past(number + 1) and (line := file.readline(LINE_BYTES)):
            if line.strip():
                number += 1
                if number in wanted:
                    yield number, line


def _json_text(raw: msgspec.Raw) -> Cell:
    """Return a JSON value as it is in the file, but a string without its quotes."""
    text = bytes(raw)
    if text == b"null":
        return None
    if text.startswith(b'"'):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return cut(_VALUE.decode(text))
    return cut(text[: 4 * MAX_CELL].decode(errors="replace"))


def _of_cells(
    source: Source,
    table_format: TableFormat,
    dialect: Dialect,
    wanted: _Wanted,
    reserve: Callable[[int], object],
) -> FirstRows:
    all_names = table_format.column_names(source, dialect)
    names = all_names[:MAX_SHOWN_COLUMNS]
    wanted.first = table_format.first_row(dialect)
    reserve(table_format.check_size(source, names, 1 << 62))
    readable, rows = list(names), dict[int, dict[str, Cell]]()
    while readable:
        try:
            rows = _cells_by_row(source, table_format, Columns((), readable, dialect=dialect), wanted)
            break
        except InvalidInput as error:  # Lists, structures and binary values are not read.
            unreadable = {detail.column for detail in error.details}
            if unreadable.isdisjoint(readable):
                raise
            readable = [name for name in readable if name not in unreadable]
    found = (ShownRow(number, tuple(cells.get(name) for name in names)) for number, cells in sorted(rows.items()))
    return FirstRows(tuple(names), len(all_names), tuple(found))


def _cells_by_row(
    source: Source, table_format: TableFormat, columns: Columns, wanted: _Wanted
) -> dict[int, dict[str, Cell]]:
    rows = dict(_rows_of(source, table_format, columns, wanted, stop=wanted.first + MAX_SHOWN_ROWS))
    if wanted.beyond:
        spans = table_format.spans(source, columns.dialect, SPAN_BYTES)
        for number in wanted.beyond:
            span = next((span for span in spans if span.first_row <= number < span.first_row + span.rows), None)
            part = table_format if span is None else table_format.within(span)
            rows |= dict(_rows_of(source, part, columns, wanted, stop=number + 1, start=number))
    return rows


def _rows_of(
    source: Source, table_format: TableFormat, columns: Columns, wanted: _Wanted, *, stop: int, start: int = 0
) -> Iterator[tuple[int, dict[str, Cell]]]:
    first = table_format.first_row(columns.dialect)
    for batch in table_format.cells(source, columns):
        end = first + batch.cells.num_rows
        for number in range(max(first, start), min(end, stop)):
            if number in wanted:
                yield number, _texts(batch.cells.slice(number - first, 1))
        if end >= stop:
            return
        first = end


def _texts(row: "pa.RecordBatch") -> dict[str, Cell]:
    return {name: _text(row.column(name)) for name in row.schema.names}


def _text(column: "pa.Array") -> Cell:
    if column.nbytes > COLUMN_BYTES and not pa.types.is_dictionary(column.type):
        return ELLIPSIS
    try:
        value: Any = column[0].as_py()
    except (ValueError, OverflowError, pa.ArrowException):  # a date that Python does not have
        return cut(str(column[0]))
    if value is None:
        return None
    return cut(value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value))
