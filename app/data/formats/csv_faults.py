"""The errors about the rows of a CSV file: what pyarrow reports, without the input that it quotes."""

import re

from app.data.batch import Columns, row_error
from app.data.columns.dialect import SEPARATOR_LABELS
from app.data.formats.csv_header import Layout
from app.errors import InvalidInput

_MAX_DESCRIBED = 100  # Characters of a text that is inspected.
_DESCRIPTIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"[^0-9]{0,3}[0-9]+(?:[.,][0-9]+)*,[0-9]+(?:\.[0-9]+)?[^0-9]{0,3}"),
        "a number with a comma. Write decimals with a point, and no separators between thousands",
    ),
    (
        re.compile(r"[+-]?[0-9]{1,3}(?:[ '_\u00a0\u2009\u202f\u2019][0-9]{3})+(?:\.[0-9]+)?"),
        "a number with separators between thousands. Write it without them",
    ),
    (
        re.compile(r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}(?:[ T].*)?|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}.*)?"),
        "a date or a time. Convert it to a number, such as days since a date",
    ),
    (
        re.compile(r"[^0-9.+\-]{1,4}[0-9.]+|[+-]?[0-9.]+ ?[^0-9. ]{1,5}"),
        "a number with a unit or a sign. Write the number alone",
    ),
    (re.compile(r"true|false|yes|no", re.IGNORECASE), "a boolean. Write 1 or 0"),
    (re.compile(r"[?\-.*]|none|missing|unknown|#n/a|<na>|nil", re.IGNORECASE), "a mark for a missing value"),
)


def explained_fault(message: str, layout: Layout, columns: Columns, first_row: int) -> InvalidInput:
    """Return an error for pyarrow's message about a block that begins with row `first_row`."""
    if place := re.match(r"In CSV column #(\d+): Row #(\d+)", message):
        value = re.search(r"invalid value '(.*)'\Z", message, re.DOTALL)
        received = _describe_text(value[1]) if value else "text"
        choice = " `features` chooses the columns to read." if columns.training else ""
        fault = f"Expected a number, found {received}.{choice}"
        return row_error(fault, row=first_row + int(place[2]) - 1, column=layout.columns[int(place[1])])
    if place := re.match(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+)(: #)?", message):
        label = SEPARATOR_LABELS[layout.dialect.sep]
        advice = f"put a value with a {label} in quotes"
        if layout.dialect.sep == "," and layout.dialect.decimal == ".":
            advice += ", and write decimals with a point"
        if place[4]:
            advice = "remove the comments, because a line that begins with # is a row like all others"
        return row_error(
            f"Expected {place[2]} values, found {place[3]}. Each row needs as many as row {layout.dialect.skip + 1}: "
            f"{advice}.",
            row=first_row + int(place[1]) - 1,
        )
    return InvalidInput("The file is not readable as CSV. Expected rows of values with separators between the values.")


def value_after_end(row: int) -> InvalidInput:
    """Return the error for a value in the column that is empty in other rows."""
    message = "There is a value after the last separator, where other rows have none. Give its column a name."
    return row_error(message, row=row)


def _describe_text(text: str) -> str:
    """Describe a text that is not a number, with a hint if there is one. The text itself is never repeated."""
    text = text.strip()
    if len(text) <= _MAX_DESCRIBED:
        for pattern, description in _DESCRIPTIONS:
            if pattern.fullmatch(text):
                return description
    return "text"
