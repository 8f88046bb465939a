"""NDJSON: a JSON object or array in each line."""

import io
from codecs import BOM_UTF8
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from app.data.batch import (
    MAX_COLUMNS,
    Array,
    Columns,
    RowBatch,
    Source,
    check,
    check_distinct,
    check_names,
    in_columns,
    row_error,
)
from app.data.json_rows import MIXED, NUMBERS, fault_of, kept_columns, kind_of
from app.data.name_hints import MAX_LISTED, instead, listed, shown
from app.data.rounding import Rounded, rounded_numbers
from app.errors import FieldError, InvalidInput

BLOCK_BYTES = 1 << 20  # a line has to fit into one
EMPTY = "The file is empty. Expected a JSON object in each line."
PIECE_BYTES = 1 << 17  # Bytes of lines decoded at a time, if lines are shorter: decoded, a byte may take a hundred.

_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_DECODER = msgspec.json.Decoder()
_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw])  # Skips the values.


def ndjson_names(source: Source) -> list[str]:
    """The names in the first line. Raises InvalidInput where there is no object in it."""
    for _, rows in _rows(source):
        if not isinstance(rows[0], dict):
            raise row_error(_no_object(rows[0]), row=1)
        names = list(rows[0])
        check_distinct(names, "Several values have the same name in the first line:", row=1)
        return names
    raise InvalidInput(EMPTY)


def ndjson_keys(source: Source, step: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Return the names of all lines in the order in which they appear, and the line in which each appears first.

    Calls `step` once per block. Raises InvalidInput if a line is not an object, or if there are too many names.
    """
    keys: dict[str, int] = {}
    line = 0
    for block in _blocks(source):
        step()
        for text in _lines(block):
            line += 1
            names = _names(text, line)
            if not names.keys() <= keys.keys():
                keys |= {name: line for name in names if name not in keys}
                if len(keys) > MAX_COLUMNS:
                    raise InvalidInput(f"The lines up to {line} have more than {MAX_COLUMNS} different names.")
    if not line:
        raise InvalidInput(EMPTY)
    return keys


def _names(text: bytes, line: int) -> dict[str, Any]:
    try:
        return _KEYS.decode(text)
    except _FAULTS:
        (row,) = _decoded(text, line)  # says so if it is not JSON
    if isinstance(row, dict):
        return row
    if line == 1:
        raise row_error(_no_object(row), row=1)
    raise row_error(f"{MIXED} This line has {kind_of(row)}.", row=line)


def _no_object(row: object) -> str:
    return f"Expected an object whose names are the columns, found {kind_of(row)}. Write one object in each line."


def read_ndjson(source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:  # noqa: ARG001 - as all readers
    """The rows: objects, of whose names those of the columns are read, or arrays of the numbers in their order.

    A name that an object lacks is a missing value, unless all of them lack it. Raises InvalidInput with the place of
    the first line or value that is not as it should be. Rows are lines, counted from 1; empty ones do not count.
    """
    kind: type | None = None
    unseen: set[str] = set()
    for first, rows in _rows(source):
        if kind is None:
            kind = type(rows[0])
            if kind is dict and not columns.missing:
                check_names([*rows[0], *columns.late], columns)
            elif kind is dict and columns.only:
                unseen = {*columns.numbers}
        values = _values(rows, columns, first, kind)
        check(values, columns, first)
        if unseen:
            unseen -= _names_in(rows)
        others = frozenset() if columns.only or kind is list else frozenset(_others(rows, columns))
        yield RowBatch(values, kept_columns(rows, columns.keep), _rounded(values, rows, columns), others)
    if unseen:
        missing = [name for name in columns.numbers if name in unseen]
        details = [FieldError(f"No line has the name {shown(name)}. Add it.") for name in missing[:MAX_LISTED]]
        raise InvalidInput(f"Columns are missing: no line has {listed(missing)}. Add them to the objects.", details)


def _rows(source: Source) -> Iterator[tuple[int, list[Any]]]:
    """Decoded lines, some at a time, with the number of the first."""
    first = 1
    for block in _blocks(source):
        rows = _decoded(block, first)
        if rows:
            yield first, rows
            first += len(rows)


def _blocks(source: Source) -> Iterator[bytes]:
    """Whole lines, about PIECE_BYTES at a time, or one line of up to BLOCK_BYTES more."""
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        if file.read(len(BOM_UTF8)) != BOM_UTF8:
            file.seek(0)
        while block := file.read(PIECE_BYTES):
            yield block + file.readline(BLOCK_BYTES)


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


def _rounded(values: Array, rows: Sequence[Any], columns: Columns) -> Rounded:
    names = columns.numbers
    return rounded_numbers(
        values,
        lambda row, column: rows[row][names[column]] if isinstance(rows[row], dict) else rows[row][column],
    )


def _values(rows: Sequence[Any], columns: Columns, first: int, kind: type) -> Array:
    names, allowed = columns.numbers, _allowed(columns)
    try:
        if {type(row) for row in rows} == {kind} and not _unknown(rows, columns) and not _lacks(rows, columns):
            values = rows if kind is list else _objects(rows, columns)
            if set(map(len, values)) == {len(names)} and set(map(type, chain.from_iterable(values))) <= allowed:
                return np.array(values, dtype=np.float64).reshape(len(rows), len(names))
    except (KeyError, TypeError, OverflowError):
        pass
    raise _all_faults(rows, columns, first, kind)


def _objects(rows: Sequence[dict[str, Any]], columns: Columns) -> list[list[Any]]:
    """The values of the columns. Raises KeyError if one is absent that may not be missing."""
    if columns.missing:
        return [[row.get(name) for name in columns.numbers] for row in rows]
    return [[row[name] for name in columns.numbers] for row in rows]


def _allowed(columns: Columns) -> frozenset[type]:
    return NUMBERS | {type(None)} if columns.missing else NUMBERS


def _names_in(rows: Sequence[Any]) -> set[str]:
    return set[str]().union(*(row for row in rows if isinstance(row, dict)))


def _others(rows: Sequence[Any], columns: Columns) -> set[str]:
    """Return the names that are not read."""
    return _names_in(rows).difference(columns.numbers, columns.keep)


def _unknown(rows: Sequence[Any], columns: Columns) -> bool:
    """Return True if objects have names that they may not have."""
    return columns.only and not _others(rows, columns) <= columns.ignored


def _lacks(rows: Sequence[Any], columns: Columns) -> bool:
    """Whether there are rows without a value that is to be kept."""
    return bool(columns.keep) and any(isinstance(row, list) or name not in row for row in rows for name in columns.keep)


def _all_faults(rows: Sequence[Any], columns: Columns, first: int, kind: type) -> InvalidInput:
    """Return the first fault of a row as a whole or, if values are at fault before it, the first of each column."""
    details: dict[str, FieldError] = {}
    for line, row in enumerate(rows, first):
        if fault := _fault_of_row(row, columns, kind):
            return in_columns(list(details.values())) if details else row_error(fault, row=line)
        for name, message in _faults_in(row, columns, details):
            details[name] = FieldError(f"{message}{_first_line(name, columns)}", row=line, column=name)
            if len(details) >= MAX_LISTED:
                return in_columns(list(details.values()))
    return in_columns(list(details.values()))


def _fault_of_row(row: Any, columns: Columns, kind: type) -> str | None:
    """Return what is wrong with a row, apart from its values."""
    if not isinstance(row, dict | list):
        return f"Expected an object or an array of numbers, found {kind_of(row)}. Write one object in each line."
    if type(row) is not kind:
        return f"{MIXED} This line has {kind_of(row)}, line 1 {'an object' if kind is dict else 'an array'}."
    if isinstance(row, list):
        if columns.keep:
            return "Expected an object: an array has no columns to keep. Write objects, or leave `keep` out."
        if len(row) != len(columns.numbers):
            return f"Expected {len(columns.numbers)} values ({listed(columns.numbers)}), found {len(row)}."
    elif _unknown([row], columns):
        known = {*columns.numbers, *columns.keep, *columns.ignored}
        unknown = [name for name in row if name not in known]
        return f"Found {listed(unknown)}, which no line before has. `keep` passes columns through; or remove the names."
    return None


def _faults_in(row: dict[str, Any] | list[Any], columns: Columns, found: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield the columns of a row whose values are at fault, apart from those found before, each with a message."""
    if isinstance(row, dict):
        for name in (*(() if columns.missing else columns.numbers), *columns.keep):
            if name not in row and name not in found:
                yield name, f"The value is missing: the line has no name {shown(name)}.{instead(name, row)}"
    for index, name in enumerate(columns.numbers):
        if name in found:
            continue
        if fault := fault_of(row.get(name) if isinstance(row, dict) else row[index], _allowed(columns)):
            yield name, fault


def _first_line(name: str, columns: Columns) -> str:
    return f" The name first appears in line {columns.late[name]}." if name in columns.late else ""
