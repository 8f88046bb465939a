"""Find the faults of NDJSON lines, row by row, after the fast reader failed."""

from collections.abc import Container, Iterator, Sequence
from typing import Any

from app.data.batch import Columns, in_columns, row_error
from app.data.json_faults import MIXED, allowed_types, fault_of, kind_of
from app.data.names import MAX_LISTED, instead, listed, shown
from app.errors import FieldError, InvalidInput


def names_in(rows: Sequence[Any]) -> set[str]:
    return set[str]().union(*(row for row in rows if isinstance(row, dict)))


def other_names(rows: Sequence[Any], columns: Columns) -> set[str]:
    """Return the names that are not read."""
    return names_in(rows).difference(columns.numbers, columns.keep)


def has_unknown(rows: Sequence[Any], columns: Columns) -> bool:
    """Return True if objects have names that they may not have."""
    return columns.only and not other_names(rows, columns) <= columns.ignored


def all_faults(rows: Sequence[Any], columns: Columns, first: int, row_type: type) -> InvalidInput:
    """Return the first fault of a row as a whole or, if values are at fault before it, the first of each column."""
    details: dict[str, FieldError] = {}
    for line, row in enumerate(rows, first):
        if fault := _fault_of_row(row, columns, row_type):
            return in_columns(list(details.values())) if details else row_error(fault, row=line)
        for name, message in _faults_in(row, columns, details):
            details[name] = FieldError(f"{message}{_first_line(name, columns)}", row=line, column=name)
            if len(details) >= MAX_LISTED:
                return in_columns(list(details.values()))
    return in_columns(list(details.values()))


def _fault_of_row(row: Any, columns: Columns, row_type: type) -> str | None:
    """Return what is wrong with a row, apart from its values."""
    if not isinstance(row, dict | list):
        return f"Expected an object or an array of numbers, found {kind_of(row)}. Write one object in each line."
    if type(row) is not row_type:
        return f"{MIXED} This line has {kind_of(row)}, line 1 {'an object' if row_type is dict else 'an array'}."
    if isinstance(row, list):
        if columns.keep:
            return "Expected an object: an array is read only if all columns are numbers. Write objects."
        if len(row) != len(columns.numbers):
            return f"Expected {len(columns.numbers)} values ({listed(columns.numbers)}), found {len(row)}."
    elif has_unknown([row], columns):
        known = {*columns.numbers, *columns.keep, *columns.ignored}
        unknown = [name for name in row if name not in known]
        return f"Found {listed(unknown)}, which no line before has. Remove the names. `keep` passes columns through."
    return None


def _faults_in(row: dict[str, Any] | list[Any], columns: Columns, known: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield the columns of a row whose values are at fault, apart from the `known` ones, each with a message."""
    if isinstance(row, dict):
        for name in (*(() if columns.missing else columns.numbers), *columns.keep):
            if name not in row and name not in known:
                yield name, f"The value is missing: the line has no name {shown(name)}.{instead(name, row)}"
    allowed = allowed_types(missing=columns.missing)
    for index, name in enumerate(columns.numbers):
        value = row.get(name) if isinstance(row, dict) else row[index]
        if name not in known and (fault := fault_of(value, allowed)):
            yield name, fault


def _first_line(name: str, columns: Columns) -> str:
    return f" The name first appears in line {columns.late[name]}." if name in columns.late else ""
