"""Decoded JSON rows as the matrix of a design."""

from collections.abc import Callable, Mapping, Sequence
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


class EncodedRows(NamedTuple):
    """Rows as a matrix, (n, encoded columns). A gap is NaN, and so is an unseen level if it is to be null."""

    values: NDArray[np.float64]
    unseen: Mapping[str, int] = MappingProxyType({})  # number of unseen levels, by column with any


class JsonEncoder:
    """Encodes rows of columns. Those of numbers alone are converted as before columns had kinds."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = [JsonColumn(column) for column in columns]
        self.names = tuple(column.name for column in columns)
        self.is_plain = all(column.is_plain for column in columns)
        self._places = [slice(*ends) for ends in pairwise(accumulate((each.width for each in self.columns), initial=0))]
        self.width = self._places[-1].stop

    def encode(
        self,
        rows: Sequence[Any],
        pointer: str,
        *,
        missing: bool,
        unknown: Unknown,
        ignored: AbstractSet[str] = frozenset(),
    ) -> EncodedRows:
        """Return rows as `to_matrix` takes them, with the values that their columns may have.

        Raises InvalidInput with the first place of every fault. `pointer` is the place of the rows in the body.
        """
        if self.is_plain:
            return EncodedRows(to_matrix(rows, self.names, pointer, missing=missing, ignored=ignored))
        values = _by_column(rows, self.names)
        if values is None and ignored:
            rows = [without_names(row, ignored) if isinstance(row, dict) else row for row in rows]
            values = _by_column(rows, self.names)
        if values is not None and (encoded := self._encode(values, missing=missing, unknown=unknown)) is not None:
            return encoded
        checks = [
            column.check((_value(row, name, place) for row in rows), missing=missing, unknown=unknown)
            for place, (name, column) in enumerate(zip(self.names, self.columns, strict=True))
        ]
        raise all_faults(rows, self.names, pointer, checks)

    def _encode(self, values: Sequence[Sequence[Any]], *, missing: bool, unknown: Unknown) -> EncodedRows | None:
        """Return the rows whose columns have these values, or None if one is at fault."""
        out = np.empty((len(values[0]), self.width))
        unseen: dict[str, int] = {}
        for column, place, one in zip(self.columns, self._places, values, strict=True):
            codes = column.codes(one)
            if codes is None:
                return None
            count = column.write(codes, out[:, place], unknown)
            if count and unknown == "refuse":
                return None
            if count and unknown == "null":
                unseen[column.column.name] = count
            if not missing and not column.fills_gaps and np.isnan(codes).any():
                return None
        return EncodedRows(out, unseen)

    def ordinary(self) -> Callable[[Sequence[Sequence[Any]]], list[list[float]]]:
        """Return a function that encodes few rows of ordinary values fast.

        It raises LookupError or ValueError if `encode` might refuse a value or answer null.
        """
        encoders = [column.ordinary() for column in self.columns]

        def encode(rows: Sequence[Sequence[Any]]) -> list[list[float]]:
            encoded = []
            for row in rows:
                values: list[float] = []
                for encoder, value in zip(encoders, row):  # noqa: B905 - equally long; strict=True is slower
                    values += encoder(value)
                encoded.append(values)
            return encoded

        return encode


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
