"""Encoder: the numbers of the design for the cells of a table, by its schema."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.data.batch import Array, in_columns
from app.data.columns.booleans import boolean_of, booleans_of
from app.data.columns.categories import GAP, UNSEEN, codes_of, level_of
from app.data.columns.dates import date_of, dates_of
from app.data.columns.faults import level_fault, type_fault, value_fault
from app.data.columns.gaps import Parsed
from app.data.columns.numbers import number_of, numbers_of
from app.data.columns.schema import PLAIN, Column, Dialect
from app.data.lazy_pyarrow import pa
from app.data.names import MAX_LISTED
from app.data.rounding import first_rounded
from app.errors import FieldError, InvalidInput

# Effect of a level that the model does not know. refuse: an error. null: NaN. reference: the reference level.
Unknown: TypeAlias = Literal["refuse", "null", "reference"]
Encoded: TypeAlias = tuple[float, ...]

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


class Encoder:
    """Encodes some columns of a table. A gap is NaN unless the column's `missing` is `indicator` or `fill`."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        unknown: Unknown = "refuse",
        training: bool = False,
        dialect: Dialect = PLAIN,
    ) -> None:
        self.columns = tuple(columns)
        self.names = tuple(name for column in columns for name in column.encoded_names)
        # Columns that a format may read as numbers, and those that are read as the file has them.
        self.typed = tuple(column.name for column in columns if _is_typed(column, dialect))
        self.texts = tuple(column.name for column in columns if not _is_typed(column, dialect))
        self._training = training
        ends = np.cumsum([len(column.encoded_names) for column in columns]).tolist()
        starts = [0, *ends[:-1]]
        self._slices = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
        self._parts = [column_encoder(column, unknown=unknown) for column in columns]

    def encode(self, cells: "pa.RecordBatch", first_row: int, notes: Notes | None = None) -> Array:
        """Return the encoded cells, (n, len(names)), with each column contiguous in memory.

        Raises InvalidInput with the first fault of each column. `first_row` is the number of the first row.
        """
        notes = Notes() if notes is None else notes
        values = np.empty((len(self.names), cells.num_rows))
        faults: list[FieldError] = []
        for part, place in zip(self._parts, self._slices, strict=True):
            name = part.column.name
            try:
                part.encode(cells.column(name), values[place], first_row, notes)
            except _Fault as fault:
                faults.append(FieldError(fault.message, row=first_row + fault.row, column=name))
                if len(faults) == MAX_LISTED:
                    break
        if faults:
            raise in_columns(faults)
        return values.T

    def encode_value(self, index: int, value: object) -> Encoded:
        """Return the numbers of a value of a JSON document in column `index`. Raises InvalidInput for a fault."""
        return self._parts[index](value)


def column_encoder(column: Column, *, unknown: Unknown = "refuse") -> "ColumnEncoder":
    """Return the encoder of one column. It is a function of a value of a JSON document, too."""
    return CategoryEncoder(column, unknown) if column.kind == "category" else NumberEncoder(column)


class _Fault(Exception):
    def __init__(self, message: str, row: int) -> None:
        self.message, self.row = message, row


def _is_typed(column: Column, dialect: Dialect) -> bool:
    return column.is_typed and column.decimal == dialect.decimal


class NumberEncoder:
    """Encodes numbers, booleans and dates as one column, and another for gaps with `missing` = `indicator`."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self._of_cells, self._of_value = _OF_CELLS[column.kind], _OF_VALUE[column.kind]
        fill = np.nan
        if column.missing in ("indicator", "fill") and column.fill is not None:
            number = self._of_value(column.fill, column) if isinstance(column.fill, str) else column.fill
            fill = np.nan if number is None else number
        self._fill = fill
        self._gap: Encoded = (fill, 1.0) if column.missing == "indicator" else (fill,)

    def __call__(self, value: object) -> Encoded:
        number = self._of_value(value, self.column)
        if number is None:
            raise InvalidInput(value_fault(self.column, value))
        if number != number:  # noqa: PLR0124 - NaN
            return self._gap
        return (number, 0.0) if len(self._gap) > 1 else (number,)

    def encode(self, cells: "pa.Array", out: Array, first_row: int, notes: Notes) -> None:
        """Write the encoded cells into `out`, (1 or 2, n)."""
        try:
            result = self._of_cells(cells, self.column)
        except TypeError:
            raise _Fault(type_fault(self.column, _type_name(cells.type)), 0) from None
        if (row := result.first_fault) is not None:
            raise _Fault(value_fault(self.column, cells[row].as_py()), row)
        out[0] = result.values
        gaps = np.isnan(result.values)
        if count := int(gaps.sum()):
            notes.gaps[self.column.name] += count
            out[0, gaps] = self._fill
        if len(out) > 1:
            out[1] = gaps
        if self.column.kind == "number" and (row := first_rounded(cells, result.values)) is not None:
            notes.rounded.setdefault(self.column.name, first_row + row)


class CategoryEncoder:
    """Encodes levels as a column of 0 and 1 for each except the reference."""

    def __init__(self, column: Column, unknown: Unknown) -> None:
        self.column, self._unknown = column, unknown
        self._codes = {level: code for code, level in enumerate(column.levels)}
        self._width = len(column.encoded_names)
        self._gap_code = GAP
        if column.missing == "fill" and isinstance(column.fill, str):
            self._gap_code = self._codes.get(column.fill, GAP)

    def __call__(self, value: object) -> Encoded:
        code = self._codes.get(value) if isinstance(value, str) else None  # nearly always a known level
        if code is None:
            return self._rare(value)
        return self._row(code)

    def _row(self, code: int) -> Encoded:
        """Return the row of a level."""
        if code == 0:
            return (0.0,) * self._width
        return (*(0.0,) * (code - 1), 1.0, *(0.0,) * (self._width - code))

    def _rare(self, value: object) -> Encoded:
        """Return the row of a gap, an unseen level, or a level that is not text."""
        try:
            level = level_of(value, self.column)
        except TypeError:
            raise InvalidInput(value_fault(self.column, value)) from None
        if level is None:
            if self.column.missing == "indicator":
                return self._row(self._width)
            return self._row(self._gap_code) if self._gap_code != GAP else (np.nan,) * self._width
        if level in self._codes:
            return self._row(self._codes[level])
        if self._unknown == "refuse":
            raise InvalidInput(level_fault(self.column, level))
        return (np.nan,) * self._width if self._unknown == "null" else self._row(0)

    def encode(self, cells: "pa.Array", out: Array, first_row: int, notes: Notes) -> None:  # noqa: ARG002
        """Write the encoded cells into `out`, (levels - 1 or more, n)."""
        try:
            codes = codes_of(cells, self.column)
        except TypeError:
            raise _Fault(type_fault(self.column, _type_name(cells.type)), 0) from None
        out[:] = 0.0
        self._encode_rest(cells, codes, out, notes)
        (rows,) = np.nonzero(codes > 0)
        out[codes[rows] - 1, rows] = 1.0

    def _encode_rest(self, cells: "pa.Array", codes: NDArray[np.int32], out: Array, notes: Notes) -> None:
        """Write the rows of gaps and unseen levels."""
        if not (codes < 0).any():
            return
        unseen, gaps = codes == UNSEEN, codes == GAP
        if count := int(unseen.sum()):
            if self._unknown == "refuse":
                row = int(np.argmax(unseen))
                raise _Fault(level_fault(self.column, str(cells[row].as_py())), row)
            notes.unseen[self.column.name] += count
            if self._unknown == "null":
                out[:, unseen] = np.nan
        if count := int(gaps.sum()):
            notes.gaps[self.column.name] += count
            if self.column.missing == "indicator":
                out[-1, gaps] = 1.0
            elif self._gap_code == GAP:
                out[:, gaps] = np.nan
            else:
                codes[gaps] = self._gap_code


ColumnEncoder: TypeAlias = NumberEncoder | CategoryEncoder


def _type_name(type_: "pa.DataType") -> str:
    """Return the name of a type without its parameters, which the client chose."""
    return str(type_).partition("<")[0].partition("[")[0]
