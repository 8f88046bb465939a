"""The sheet Values: a number for each feature, level and gap, by formulas that refer to the cells of the inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from app.data.columns.schema import Column
from app.errors import NotExportable
from app.exchange.linear_form import Cell, fill_of, level_index_of_gap, marks_of_gaps, numbers_of_gaps

SHEET = "Values"
DATE_ZERO = 25_569  # The serial number of 1970-01-01 in Excel.
_EPOCH = date(1970, 1, 1)
NOT_KNOWN = "NA()"


class Exact(float):
    """A number of which xlsxwriter writes all digits. Its own format has 16, and some doubles need 17."""

    def __format__(self, _: str) -> str:
        return repr(float(self))


@dataclass(frozen=True)
class Place:
    """A cell, its row and column counted from 0."""

    sheet: str
    row: int
    column: int

    def __str__(self) -> str:
        return f"{self.sheet}!${chr(ord('A') + self.column)}${self.row + 1}"

    def to(self, row: int) -> str:
        """Return the range from this cell to one in the same column."""
        return f"{self}:${chr(ord('A') + self.column)}${row + 1}"


@dataclass(frozen=True)
class Written:
    """A formula without its equals sign, and the value that it has for the example."""

    formula: str
    value: float


class InputCells:
    """Writes rows of the sheet: the feature, a label, and a value.

    The labels are levels and marks of gaps, which the formulas compare with the input.
    """

    def __init__(self, sheet: Any) -> None:
        self._sheet, self._row = sheet, 1
        self._found: dict[Cell, Written] = {}

    def __getitem__(self, cell: Cell) -> Written:
        """Return the formula of the number of a cell. The reference level of a category is also one."""
        return self._found[cell]

    def add(self, column: Column, source: str, example: Any) -> str | None:
        """Write the rows of a feature. Return the range of the levels if it is a category."""
        if column.kind == "category":
            return self._add_category(column, source, example)
        gap = self._add_gap(column, source, numbers_of_gaps(column) if column.kind == "number" else ())
        fill = fill_of(column)
        constant = NOT_KNOWN if fill is None else self._constant(column, fill)
        number, value = _number(column.kind, source, example)
        place = self._add_formula(column, "value", f"IF({gap}=1,{constant},{number})", value)
        self._found[Cell(column)] = Written(place, value)
        return None

    def _add_category(self, column: Column, source: str, example: str) -> str:
        gap = self._add_gap(column, source, marks_of_gaps(column))
        gap_index = level_index_of_gap(column)
        first = self._row
        levels = []
        for index, level in enumerate(column.levels):
            is_level = f"EXACT({source},{Place(SHEET, self._row, 1)})"
            if index == gap_index:
                is_level = f"OR({is_level},{gap}=1)"
            levels.append(self._add_formula(column, level, f"IF({is_level},1,0)", float(level == example)))
        count = f"SUM({Place(SHEET, first, 2).to(self._row - 1)})"
        if gap_index == len(levels):
            count = f"{count}+{gap}"
        known = self._add_formula(column, "is known", f"IF({count}=1,1,{NOT_KNOWN})", 1.0)
        for level, place in zip(column.levels, levels, strict=True):
            self._found[Cell(column, "level", level)] = Written(f"{place}*{known}", float(level == example))
        return Place(SHEET, first, 1).to(first + len(levels) - 1)

    def _add_gap(self, column: Column, source: str, marks: Sequence[str | float]) -> str:
        """Write a row that is 1 if the input is a gap, after a row for each mark of one. Return its place."""
        first = self._row
        for mark in marks:
            label = Place(SHEET, self._row, 1)
            is_mark = f"EXACT(TRIM({source}),{label})" if isinstance(mark, str) else f"{source}={label}"
            self._add_formula(column, mark, f"IF({is_mark},1,0)", 0.0)
        is_gap = f'TRIM({source})=""'
        if marks:
            is_gap = f"OR({is_gap},SUM({Place(SHEET, first, 2).to(self._row - 1)})>0)"
        place = self._add_formula(column, "is missing", f"IF({is_gap},1,0)", 0.0)
        self._found[Cell(column, "gap")] = Written(place, 0.0)
        return place

    def _constant(self, column: Column, value: float) -> str:
        """Write a constant. Return its place."""
        place = self._start_row(column, "if missing")
        self._sheet.write_number(place.row, 2, Exact(value))
        return str(place)

    def _add_formula(self, column: Column, label: str | float, formula: str, value: float) -> str:
        """Write a row. Return the place of its value."""
        place = self._start_row(column, label)
        self._sheet.write_formula(place.row, 2, f"={formula}", None, Exact(value))
        return str(place)

    def _start_row(self, column: Column, label: str | float) -> Place:
        """Write all but the value. Return its place. Raises NotExportable if a label is too long."""
        self._sheet.write_string(self._row, 0, column.name)
        if not isinstance(label, str):
            self._sheet.write_number(self._row, 1, Exact(label))
        elif self._sheet.write_string(self._row, 1, label) < 0:
            raise NotExportable("A level is too long for a cell of a workbook. Export the model in another format.")
        self._row += 1
        return Place(SHEET, self._row - 1, 2)


def _number(kind: str, source: str, example: Any) -> tuple[str, float]:
    """Return the formula of the number of an input that is not a gap, and its value for the example."""
    if kind == "date":
        return f"IF(ISNUMBER({source}),{source}-{DATE_ZERO},{NOT_KNOWN})", float((example - _EPOCH).days)
    if kind == "boolean":
        is_digit = f"IF(ISNUMBER({source}),IF(OR({source}=0,{source}=1),{source},{NOT_KNOWN}),{NOT_KNOWN})"
        return f"IF(ISLOGICAL({source}),IF({source},1,0),{is_digit})", float(example)
    return f"IF(ISNUMBER({source}),{source},{NOT_KNOWN})", float(example)
