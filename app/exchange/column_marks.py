"""Gaps of a column, for exports: the number in their place, and the values that mark them."""

from app.data.columns.booleans import boolean_of
from app.data.columns.dates import date_of
from app.data.columns.gaps import gap_texts, numeric_gaps
from app.data.columns.numbers import number_of
from app.data.columns.schema import Column

_OF_VALUE = {"number": number_of, "boolean": boolean_of, "date": date_of}


def number_for_gaps(column: Column) -> float | None:
    """Return the number in place of a gap of a number, a boolean or a date; None if its row has no prediction."""
    if column.missing not in ("fill", "indicator") or column.fill is None:
        return None
    if isinstance(column.fill, str):
        return _OF_VALUE[column.kind](column.fill, column)
    return float(column.fill)


def numeric_marks(column: Column) -> tuple[float, ...]:
    """Return the numbers that mark a gap of a number."""
    return numeric_gaps(column.na) if column.kind == "number" else ()


def text_marks(column: Column) -> tuple[str, ...]:
    """Return the texts that mark a gap of a category."""
    return tuple(sorted(gap_texts(column)))


def fills_gaps(column: Column) -> bool:
    """Return True if a row with a gap in this column has a prediction."""
    if column.kind == "category":
        return column.missing == "indicator" or (column.missing == "fill" and column.fill in column.levels)
    return number_for_gaps(column) is not None
