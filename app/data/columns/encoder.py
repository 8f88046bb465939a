"""Encoder: the numbers of the design for the cells of a table, by its schema."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.data.batch import Array, in_columns
from app.data.columns.booleans import boolean_of, booleans_of
from app.data.columns.categories import GAP, UNSEEN, codes_of, levels_of
from app.data.columns.dates import date_of, dates_of
from app.data.columns.faults import STRING_FAULT, level_fault, type_fault, value_fault
from app.data.columns.gaps import Parsed
from app.data.columns.numbers import first_value, holds_text, number_of, numbers_of
from app.data.columns.schema import PLAIN, Column, Dialect
from app.data.lazy_pyarrow import pa
from app.data.names import MAX_LISTED
from app.errors import FieldError

# Effect of a level that the model does not know. refuse: an error. null: NaN. reference: the reference level.
Unknown: TypeAlias = Literal["refuse", "null", "reference"]
Mask: TypeAlias = NDArray[np.bool_]

_OF_CELLS: dict[str, "Callable[[pa.Array, Column], Parsed]"] = {
    "number": numbers_of,
    "boolean": booleans_of,
    "date": dates_of,
}
_OF_VALUE: dict[str, Callable[[object, Column], float | None]] = {
    "number": number_of,
    "boolean": boolean_of,
    "date": date_of,
}


@dataclass
class Notes:
    """Facts about the cells that were encoded, by the column's name."""

    gaps: Counter[str] = field(default_factory=Counter)  # rows with a gap
    unseen: Counter[str] = field(default_factory=Counter)  # rows with a level that is not in the schema
    rounded: dict[str, int] = field(default_factory=dict)  # first row with an integer that was rounded


class Encoded(NamedTuple):
    """The encoded cells of n rows, and where they are missing."""

    values: Array  # (n, encoded columns), each contiguous in memory
    missing: Mask | None  # (n, columns), cells that are NaN: gaps that nothing replaces, and unseen levels; or None


class Encoder:
    """Encodes some columns of a table. A gap is NaN unless the column's `missing` is `indicator` or `fill`."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        unknown: Unknown = "refuse",
        training: bool = False,
        dialect: Dialect = PLAIN,
        untyped: bool = True,
    ) -> None:
        """Prepare for cells of a format. `untyped` is its `has_untyped_text`: if False, strings are not numbers."""
        self.columns = tuple(columns)
        self.names = tuple(name for column in columns for name in column.encoded_names)
        is_typed = {column.name: column.is_typed and column.decimal == dialect.decimal for column in columns}
        # Columns that a format may read as numbers, and those that are read as the file has them.
        self.typed = tuple(name for name, typed in is_typed.items() if typed)
        self.texts = tuple(name for name, typed in is_typed.items() if not typed)
        widths = (len(column.encoded_names) for column in columns)
        self._slices = [slice(*ends) for ends in pairwise(accumulate(widths, initial=0))]
        self._parts = [
            _CategoryEncoder(column, unknown)
            if column.kind == "category"
            else _NumberEncoder(column, training, refuses_strings=not untyped and column.refuses_strings)
            for column in columns
        ]

    def encode(self, cells: "pa.RecordBatch", first_row: int, notes: Notes | None = None) -> Array:
        """Return the encoded cells, (n, len(names)), with each column contiguous in memory.

        Raises InvalidInput with the first fault of each column. `first_row` is the number of the first row.
        """
        return self.encode_with_gaps(cells, first_row, notes).values

    def encode_with_gaps(self, cells: "pa.RecordBatch", first_row: int, notes: Notes | None = None) -> Encoded:
        """Return the encoded cells, and which of them are missing. Raises InvalidInput as `encode` does."""
        notes = Notes() if notes is None else notes
        rows = cells.num_rows
        values = np.empty((len(self.names), rows))
        missing: dict[int, Mask] = {}
        faults: list[FieldError] = []
        for index, (part, place) in enumerate(zip(self._parts, self._slices, strict=True)):
            name = part.column.name
            try:
                mask = part.encode(cells.column(name), values[place], first_row, notes)
            except _Fault as fault:
                faults.append(FieldError(fault.message, row=first_row + fault.row, column=name))
                if len(faults) == MAX_LISTED:
                    break
                continue
            if mask is not None:
                missing[index] = mask
        if faults:
            raise in_columns(faults)
        if not missing:
            return Encoded(values.T, None)
        masks = np.zeros((len(self.columns), rows), dtype=bool)
        for index, mask in missing.items():
            masks[index] = mask
            if not self._parts[index].column.encoded_names:  # A category of one level has no column of its own for NaN.
                values[:, mask] = np.nan
        return Encoded(values.T, masks.T)


class _Fault(Exception):
    def __init__(self, message: str, row: int) -> None:
        self.message, self.row = message, row


class _NumberEncoder:
    """Encodes numbers, booleans and dates as one column, and another for gaps with `missing` = `indicator`."""

    def __init__(self, column: Column, training: bool, *, refuses_strings: bool) -> None:
        self.column, self._training, self._refuses_strings = column, training, refuses_strings
        self._of_cells = _OF_CELLS[column.kind]
        self._fill: float | None = None
        if column.missing in ("indicator", "fill"):
            fill = column.fill
            self._fill = _OF_VALUE[column.kind](fill, column) if isinstance(fill, str) else fill

    def encode(self, cells: "pa.Array", out: Array, first_row: int, notes: Notes) -> Mask | None:
        """Write the encoded cells into `out`, (1 or 2, n), and return which of them are missing."""
        if self._refuses_strings and holds_text(cells.type) and (row := first_value(cells)) is not None:
            raise _Fault(STRING_FAULT, row)
        try:
            result = self._of_cells(cells, self.column)
        except TypeError:
            raise _Fault(type_fault(self.column, _type_name(cells.type)), 0) from None
        if (row := result.first_fault) is not None:
            raise _Fault(value_fault(self.column, cells[row].as_py(), training=self._training), row)
        if result.rounded is not None:
            notes.rounded.setdefault(self.column.name, first_row + result.rounded)
        out[0] = result.values
        out[1:] = 0.0
        gaps = np.isnan(result.values)
        if not (count := int(gaps.sum())):
            return None
        notes.gaps[self.column.name] += count
        out[1:] = gaps
        if self._fill is None:
            return gaps
        out[0, gaps] = self._fill
        return None


class _CategoryEncoder:
    """Encodes levels as a column of 0 and 1 for each except the reference."""

    def __init__(self, column: Column, unknown: Unknown) -> None:
        self.column, self._unknown = column, unknown
        has_fill = column.missing == "fill" and column.fill in column.levels
        self._gap_code = column.levels.index(str(column.fill)) if has_fill else GAP

    def encode(self, cells: "pa.Array", out: Array, first_row: int, notes: Notes) -> Mask | None:  # noqa: ARG002
        """Write the encoded cells into `out`, (levels - 1 or more, n), and return which of them are missing."""
        try:
            levels = levels_of(cells, self.column)
        except TypeError:
            raise _Fault(type_fault(self.column, _type_name(cells.type)), 0) from None
        codes = codes_of(levels, self.column.levels)
        out[:] = 0.0
        missing = self._encode_rest(levels, codes, out, notes) if (codes < 0).any() else None
        (rows,) = np.nonzero(codes > 0)
        out[codes[rows] - 1, rows] = 1.0
        return missing

    def _encode_rest(
        self, levels: "pa.DictionaryArray", codes: NDArray[np.int32], out: Array, notes: Notes
    ) -> Mask | None:
        """Write the rows of gaps and unseen levels, or replace their codes. Return which rows are missing."""
        unseen, gaps = codes == UNSEEN, codes == GAP
        if count := int(unseen.sum()):
            if self._unknown == "refuse":
                row = int(np.argmax(unseen))
                raise _Fault(level_fault(self.column, levels[row].as_py()), row)
            notes.unseen[self.column.name] += count
        if count := int(gaps.sum()):
            notes.gaps[self.column.name] += count
        is_filled = self.column.missing == "indicator" or self._gap_code != GAP
        if self.column.missing == "indicator":
            out[-1, gaps] = 1.0
        codes[gaps] = self._gap_code
        missing = gaps & (not is_filled) | unseen & (self._unknown == "null")
        out[:, missing] = np.nan
        return missing if missing.any() else None


def _type_name(type_: "pa.DataType") -> str:
    """Return the name of a type without its parameters, which the client chose."""
    return str(type_).partition("<")[0].partition("[")[0]
