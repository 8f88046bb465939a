"""NDJSON: a JSON object or array in each line."""

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from app.data.batch import (
    MAX_COLUMNS,
    Array,
    CellBatch,
    Columns,
    RowBatch,
    Source,
    check,
    check_distinct,
    check_present,
    open_source,
    row_error,
)
from app.data.columns.schema import PLAIN, Dialect
from app.data.formats.arrow_cells import cell_batch
from app.data.formats.base import Content, Output, TableFormat, TableWriter
from app.data.formats.json import JSON, rows_as_objects
from app.data.formats.ndjson_cells import CellReader
from app.data.formats.ndjson_faults import all_faults, has_unknown, names_in, other_names
from app.data.json_faults import MIXED, allowed_types, kind_of
from app.data.json_rows import kept_columns
from app.data.lazy_pyarrow import pa
from app.data.names import MAX_LISTED, listed, shown
from app.data.rounding import rounded_numbers
from app.errors import FieldError, InvalidInput, LinserveError

BLOCK_BYTES = 1 << 17  # Bytes of lines decoded at a time, if lines are shorter: decoded, a byte may take a hundred.
LINE_BYTES = 1 << 20  # Longest line, in addition to BLOCK_BYTES.
EMPTY = "The file is empty. Expected a JSON object in each line."

_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_DECODER = msgspec.json.Decoder()
_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw])  # Skips the values.


class NdjsonFormat(TableFormat):
    """Lines with a JSON object or array each. Rows are lines, counted from 1; empty ones do not count."""

    name = "ndjson"
    media_type = "application/x-ndjson"
    label = "NDJSON (a JSON object in each line)"
    is_text = True
    names_in_rows = True

    def recognises(self, text: bytes) -> bool:
        first, _, rest = text.partition(b"\n")
        return text.startswith(b"{") and first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")

    def may_be(self, content: Content, head: bytes, error: LinserveError) -> bool:  # noqa: ARG002
        line, newline, _ = head.strip().partition(b"\n")
        is_whole = not newline or line.rstrip().endswith(b"}")
        return content.label == JSON.label and is_whole and b'"instances"' not in line

    def column_names(self, source: Source, dialect: Dialect = PLAIN) -> list[str]:  # noqa: ARG002
        """Return the names in the first line. Raises InvalidInput if there is no object in it."""
        for _, rows in _rows(source):
            if not isinstance(rows[0], dict):
                raise row_error(_no_object(rows[0]), row=1)
            names = list(rows[0])
            check_distinct(names, "Several values have the same name in the first line:", row=1)
            return names
        raise InvalidInput(EMPTY)

    def first_lines(self, source: Source, step: Callable[[], None] = lambda: None) -> dict[str, int]:
        """Return the line in which each name appears first, in that order. Calls `step` once per block.

        Raises InvalidInput if a line is not an object, or if there are too many names.
        """
        first: dict[str, int] = {}
        line = 0
        for block in _blocks(source):
            step()
            for text in _lines(block):
                line += 1
                names = _names(text, line)
                if not names.keys() <= first.keys():
                    first |= {name: line for name in names if name not in first}
                    if len(first) > MAX_COLUMNS:
                        raise InvalidInput(f"The lines up to {line} have more than {MAX_COLUMNS} different names.")
        if not line:
            raise InvalidInput(EMPTY)
        return first

    def batches(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:  # noqa: ARG002
        """Yield the rows of objects, or of arrays with the numbers in the order of the columns.

        A name that an object lacks is a missing value, unless all of them lack it.
        """
        for first, rows, row_type in _checked_rows(source, columns, columns.numbers):
            values = _values(rows, columns, first, row_type)
            check(values, columns, first)
            rounded = rounded_numbers(values, rows, columns.numbers)
            yield RowBatch(values, kept_columns(rows, columns.keep), rounded, _others(rows, columns, row_type))

    def cells(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[CellBatch]:  # noqa: ARG002
        """Yield the cells of objects, or of arrays if all columns are numbers. A name that an object lacks is a gap."""
        names, reader = columns.names, CellReader()
        for first, rows, row_type in _checked_rows(source, columns, names):
            if {*map(type, rows)} != {row_type} or has_unknown(rows, columns):
                raise all_faults(rows, columns, first, row_type)
            if row_type is list:
                values = _values(rows, columns, first, row_type)
                arrays = [pa.array(column, from_pandas=True) for column in values.T]
            else:
                arrays = [reader.array(name, [row.get(name) for row in rows], first) for name in names]
            batch = cell_batch(pa.RecordBatch.from_arrays(arrays, names=names), columns, first)
            yield batch._replace(rounded=reader.rounded | dict(batch.rounded), others=_others(rows, columns, row_type))

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        return _NdjsonWriter(file, keep, names)


NDJSON = NdjsonFormat()


class _NdjsonWriter:
    def __init__(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> None:
        self._file, self._keep, self._names = file, keep, names

    def write(self, kept: "pa.RecordBatch | None", values: Array) -> None:
        if len(values):
            self._file.write(rows_as_objects(kept, values, self._keep, self._names, b"\n"))
            self._file.write(b"\n")

    def close(self) -> None:
        pass


def _names(text: bytes, line: int) -> dict[str, Any]:
    try:
        return _KEYS.decode(text)
    except _FAULTS:
        (row,) = _decoded(text, line)  # raises if it is not JSON
    if isinstance(row, dict):
        return row
    if line == 1:
        raise row_error(_no_object(row), row=1)
    raise row_error(f"{MIXED} This line has {kind_of(row)}.", row=line)


def _no_object(row: object) -> str:
    return f"Expected an object whose names are the columns, found {kind_of(row)}. Write one object in each line."


def _no_line_has(missing: Sequence[str]) -> InvalidInput:
    details = [FieldError(f"No line has the name {shown(name)}. Add it.") for name in missing[:MAX_LISTED]]
    return InvalidInput(f"Columns are missing: no line has {listed(missing)}. Add them to the objects.", details)


def _rows(source: Source) -> Iterator[tuple[int, list[Any]]]:
    """Yield decoded lines, some at a time, with the number of the first."""
    first = 1
    for block in _blocks(source):
        rows = _decoded(block, first)
        if rows:
            yield first, rows
            first += len(rows)


def _checked_rows(source: Source, columns: Columns, names: Sequence[str]) -> Iterator[tuple[int, list[Any], type]]:
    """Yield decoded lines as `_rows` does, with the type of the first.

    Raises InvalidInput if the first line is not a row, if a line lacks a required name, or if all lines lack one of
    `names`.
    """
    row_type: type | None = None
    unseen: set[str] = set()
    for first, rows in _rows(source):
        if row_type is None:
            row_type = type(rows[0])
            if row_type not in (dict, list):
                raise all_faults(rows, columns, first, row_type)
            if row_type is dict and not columns.missing:
                check_present([*rows[0], *columns.late], columns)
            elif row_type is dict and columns.only:
                unseen = {*names}
        yield first, rows, row_type
        if unseen:
            unseen -= names_in(rows)
    if unseen:
        raise _no_line_has([name for name in names if name in unseen])


def _others(rows: Sequence[Any], columns: Columns, row_type: type) -> frozenset[str]:
    return frozenset() if columns.only or row_type is list else frozenset(other_names(rows, columns))


def _blocks(source: Source) -> Iterator[bytes]:
    """Yield whole lines, about BLOCK_BYTES at a time, or with one line of up to LINE_BYTES more."""
    with open_source(source) as file:
        if file.read(len(BOM_UTF8)) != BOM_UTF8:
            file.seek(0)
        while block := file.read(BLOCK_BYTES):
            yield block + file.readline(LINE_BYTES)


def _lines(block: bytes) -> list[bytes]:
    return [line for line in block.split(b"\n") if line.strip()]


def _decoded(block: bytes, first: int) -> list[Any]:
    lines = _lines(block)
    try:
        return [_DECODER.decode(line) for line in lines]
    except _FAULTS:
        for row, line in enumerate(lines, first):
            try:
                _DECODER.decode(line)
            except _FAULTS:
                raise row_error(
                    f"The line is not JSON{_why(line)}. Write one JSON object in each line.", row=row
                ) from None
        raise


def _why(line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return ", because it is not UTF-8 text"
    return ""


def _values(rows: Sequence[Any], columns: Columns, first: int, row_type: type) -> Array:
    names, allowed = columns.numbers, allowed_types(missing=columns.missing)
    try:
        if {type(row) for row in rows} == {row_type} and not has_unknown(rows, columns) and not _lacks(rows, columns):
            values = rows if row_type is list else _objects(rows, columns)
            if set(map(len, values)) == {len(names)} and set(map(type, chain.from_iterable(values))) <= allowed:
                return np.array(values, dtype=np.float64).reshape(len(rows), len(names))
    except (KeyError, TypeError, OverflowError):
        pass
    raise all_faults(rows, columns, first, row_type)


def _objects(rows: Sequence[dict[str, Any]], columns: Columns) -> list[list[Any]]:
    """Return the values of the columns. Raises KeyError if one is absent that may not be missing."""
    if columns.missing:
        return [[row.get(name) for name in columns.numbers] for row in rows]
    return [[row[name] for name in columns.numbers] for row in rows]


def _lacks(rows: Sequence[Any], columns: Columns) -> bool:
    """Return True if a row lacks a column of `keep`."""
    return bool(columns.keep) and any(isinstance(row, list) or name not in row for row in rows for name in columns.keep)
