"""Messages about cells that a column's kind does not allow. They never repeat a cell, except an unknown level."""

from collections.abc import Sequence

from app.data.batch import NOT_FINITE
from app.data.columns.schema import Column
from app.data.names import NULL_RESULTS, UNKNOWN_LEVEL, shown

MAX_LEVELS = 20  # known levels in a message

_EXPECTED = {
    "number": "a number",
    "boolean": "a boolean: true or false, yes or no, 1 or 0",
    "category": "a word, a number or a boolean",
}
_TRAINING_ADVICE = "Correct the value, or name its text in `na` if it marks a gap."
_DATE_EXAMPLES = {None: "Dec 31 2000", "dmy": "31/12/2000", "mdy": "12/31/2000", "ymd": "2000/12/31"}


STRING_FAULT = "Expected a number, found a string. Send numbers without quotes, or convert the column to numbers."


def expected(column: Column) -> str:
    """Return a description of the values of a column."""
    if column.kind == "date":
        return f"a date such as 2000-12-31 or {_DATE_EXAMPLES[column.dates]}"
    return _EXPECTED[column.kind]


def value_fault(column: Column, value: object, *, training: bool) -> str:
    """Return the message for a value that is not of the column's kind."""
    if column.kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return NOT_FINITE
    advice = _TRAINING_ADVICE if training else "Correct the value."
    return f"Expected {expected(column)}, found {_described(value)}. {advice}"


def type_fault(column: Column, type_name: str) -> str:
    """Return the message for a column of an Arrow type that its kind does not allow."""
    return f"Expected {expected(column)}, found the type {type_name}. Convert the column."


def level_fault(column: Column, level: str) -> str:
    """Return the message for a level that the model does not know. Only its first sentence may be logged."""
    return (
        f"{UNKNOWN_LEVEL} Received {shown(level)}. Known levels: {_levels(column.levels)}. Send one of them, "
        f"{NULL_RESULTS}"
    )


def _levels(levels: Sequence[str]) -> str:
    more = len(levels) - MAX_LEVELS
    return ", ".join(map(shown, levels[:MAX_LEVELS])) + (f" and {more} more" if more > 0 else "")


def _described(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "a number"
    return "an array or an object"
