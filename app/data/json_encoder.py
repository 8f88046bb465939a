"""Decoded JSON rows as the matrix of a design."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.data.columns.encoder import Unknown
from app.data.columns.schema import Column
from app.data.json_columns import JsonColumn
from app.data.json_faults import all_faults, are_objects
from app.data.json_rows import to_matrix, without_names

MAX_DESIGN_VALUES = 1 << 18  # Values of the columns of a design that are made at once.


class CodedRows(NamedTuple):
    """Rows as codes, (n, columns). A gap is NaN, and so is an unseen level if it is to be null."""

    codes: NDArray[np.float64]
    unseen: Mapping[str, int] = MappingProxyType({})  # number of unseen levels, by column with any


class JsonEncoder:
    """Reads rows as codes, of which it makes the columns of the design. Plain numbers are their own codes.

    Codes take less memory, because a category may have thousands of columns.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = [JsonColumn(column) for column in columns]
        self.names = tuple(column.name for column in columns)
        self.is_plain = all(column.is_plain and not column.strings for column in columns)
        self.places = [slice(*ends) for ends in pairwise(accumulate((each.width for each in self.columns), initial=0))]
        self.width = self.places[-1].stop
        # Most rows for `design`.
        self.rows_at_once = sys.maxsize if self.is_plain else max(1, MAX_DESIGN_VALUES // max(1, self.width))

    def read(
        self,
        rows: Sequence[Any],
        pointer: str,
        *,
        missing: bool,
        unknown: Unknown,
        ignored: AbstractSet[str] = frozenset(),
    ) -> CodedRows:
        """Return the codes of rows as `to_matrix` takes them, with the values that their columns may have.

        Raises InvalidInput with the first place of every fault. `pointer` is the place of the rows in the body.
        """
        if self.is_plain:
            return CodedRows(to_matrix(rows, self.names, pointer, missing=missing, ignored=ignored))
        values = _by_column(rows, self.names)
        if values is None and ignored:
            rows = [without_names(row, ignored) if isinstance(row, dict) else row for row in rows]
            values = _by_column(rows, self.names)
        if values is not None and (coded := self._read(values, missing=missing, unknown=unknown)) is not None:
            return coded
        checks = [
            column.check((_value(row, name, place) for row in rows), missing=missing, unknown=unknown)
            for place, (name, column) in enumerate(zip(self.names, self.columns, strict=True))
        ]
        raise all_faults(rows, self.names, pointer, checks)

    def _read(self, values: Sequence[Sequence[Any]], *, missing: bool, unknown: Unknown) -> CodedRows | None:
        """Return the rows whose columns have these values, or None if one is at fault."""
        codes = np.empty((len(values[0]), len(self.columns)))
        unseen: dict[str, int] = {}
        for index, (column, one) in enumerate(zip(self.columns, values, strict=True)):
            found = column.codes(one)
            if found is None or (not missing and not column.fills_gaps and np.isnan(found).any()):
                return None
            if count := column.completed(found, unknown):
                if unknown == "refuse":
                    return None
                unseen[column.column.name] = count
            codes[:, index] = found
        return CodedRows(codes, unseen)

    def design(self, codes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the columns of the design for codes, (n, columns). NaN stays NaN."""
        if self.is_plain:
            return codes
        out = np.empty((len(codes), self.width))
        for column, place, one in zip(self.columns, self.places, codes.T, strict=True):
            column.write(one, out[:, place])
        return out


class OrdinaryEncoder:
    """Encodes rows of ordinary values fast: words, booleans and dates that need no further look.

    It raises LookupError, TypeError or ValueError if JsonEncoder might refuse a value or give null results.
    """

    def __init__(self, encoder: JsonEncoder) -> None:
        self._zeros = [0.0] * encoder.width
        # The place of a number in a row, or -1 for a category, whose reader returns it, or -1 for the reference level.
        self._columns: list[tuple[int, Callable[[Any], Any]]] = []
        for json_column, place in zip(encoder.columns, encoder.places, strict=True):
            levels = json_column.column.levels
            if json_column.column.kind == "category":
                ends = [-1, *range(place.start, place.start + len(levels) - 1)]
                self._columns.append((-1, dict(zip(levels, ends, strict=True)).__getitem__))
            else:
                self._columns.append((place.start, json_column.ordinary_reader()))

    def few(self, rows: Sequence[Sequence[Any]]) -> list[list[float]]:
        """Return the encoded rows as lists."""
        out = [self._zeros.copy() for _ in rows]
        self._write(rows, out)
        return out

    def matrix(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
        """Return the encoded rows as a matrix."""
        out = np.zeros((len(rows), len(self._zeros)))
        self._write(rows, out)
        return out

    def _write(self, rows: Sequence[Sequence[Any]], out: Iterable[Any]) -> None:
        columns = self._columns
        for row, values in zip(rows, out, strict=True):
            for (place, read), value in zip(columns, row):  # noqa: B905 - equally long; strict=True is slower
                if place >= 0:
                    values[place] = read(value)
                elif (level := read(value)) >= 0:
                    values[level] = 1.0


def _by_column(rows: Sequence[Any], names: Sequence[str]) -> Sequence[Sequence[Any]] | None:
    """Return the values of each column, or None unless all rows are objects with these names, or arrays as long."""
    width = len(names)
    if width == 1 and not any(isinstance(row, dict | list) for row in rows):
        return [rows]
    try:
        if {len(row) for row in rows} != {width}:
            return None
        if are_objects(rows):
            return [[row[name] for row in rows] for name in names]
    except (KeyError, TypeError):
        return None
    return list(zip(*rows, strict=True)) if all(type(row) is list for row in rows) else None


def _value(row: object, name: str, place: int) -> object:
    if isinstance(row, dict):
        return row.get(name)
    return row[place] if isinstance(row, list) and place < len(row) else None
