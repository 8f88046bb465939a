"""The first row of a CSV file: the names of the columns, and what to do if it holds something else."""

import codecs
import csv
import io
import re

from app.data.batch import Source, check_distinct, open_source
from app.data.columns.options import Header
from app.data.formats.base import SAVE_AS_UTF8
from app.errors import FieldError, InvalidInput

MAX_ROW_BYTES = 1 << 20  # Longest row.
MAX_INSPECTED_CELLS = 10_000  # Cells of a faulty first row that are inspected.
BOM = codecs.BOM_UTF8

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LOCAL_NUMBER = re.compile(r"[+-]?[0-9]+,[0-9]+")  # With a decimal comma, or with one comma between thousands.
_MISSING_WORDS = ("", "na", "nan", "n/a", "null")  # in lower case
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def read_beginning(source: Source) -> bytes:
    """Return the first bytes of a file. They have all of its first row."""
    with open_source(source) as file:
        return file.read(MAX_ROW_BYTES)


def header_names(beginning: bytes, header: Header | None) -> list[str]:
    """Return the names in the first row; with header "none", c1, c2 and so on for as many values as it has.

    Raises InvalidInput if there is no row, if it is not UTF-8, if a name appears twice, or if all names are numbers
    and `header` is not given.
    """
    # The encoding of later rows is checked as they are read.
    text = beginning.removeprefix(BOM).decode(errors="surrogateescape")
    try:
        names = next((row for row in csv.reader(io.StringIO(text, newline="")) if row), [])
    except csv.Error:
        raise _in_row_1(
            "Row 1 is not readable as CSV. Expected the names of the columns, separated by commas."
        ) from None
    if header == "none":
        names = [f"c{number}" for number in range(1, len(names) + 1)]
    if not names:
        expected = "rows" if header == "none" else "a header row with the names of the columns, and rows"
        raise InvalidInput(f"The file is empty. Expected {expected}.")
    try:
        "".join(names).encode()
    except UnicodeEncodeError:  # A byte that was escaped above.
        raise not_utf8(1) from None
    if header is None and _are_numbers(names):
        raise _in_row_1(
            "Row 1 holds only numbers, but the names of the columns were expected. Add a first row with the names; or "
            "add `header=none`, which names the columns c1, c2, ..., or `header=names` if the numbers are the names."
        )
    check_distinct(names, "Several columns have the same name in the header:", row=1)
    return names


def _are_numbers(names: list[str]) -> bool:
    """Return True if all names are numbers, apart from those that mark a missing value in a row."""
    given = [name.strip() for name in names if name.strip().lower() not in _MISSING_WORDS]
    return bool(given) and all(_NUMBER.fullmatch(name) for name in given)


def body_start(beginning: bytes, names: list[str], header: Header | None) -> int | None:
    """Return the offset of the rows after the header, or None if the header is more than a line."""
    if header == "none":
        return len(BOM) if beginning.startswith(BOM) else 0
    rest = beginning.removeprefix(BOM).lstrip(b"\r\n")
    line, newline, _ = rest.partition(b"\n")
    text = line.removesuffix(b"\r")
    is_whole = newline or len(beginning) < MAX_ROW_BYTES
    if not is_whole or b"\r" in text or next(csv.reader([text.decode(errors="replace")]), []) != names:
        return None
    return len(beginning) - len(rest) + len(line) + len(newline)


def has_separators(text: bytes) -> bool:
    """Return True if the first line of a text has cells."""
    first = text.partition(b"\n")[0].removesuffix(b"\r")
    try:
        # The last character may be cut off.
        line = codecs.utf_8_decode(first, "strict", False)[0]
    except UnicodeDecodeError:
        line = first.decode("latin-1")
    is_text = line.replace("\t", "").isprintable()
    return is_text and any(separator in line for separator in (",", *_SEPARATORS))


def explain_first_row(head: bytes, header: Header | None, *, in_row_1: bool) -> InvalidInput | None:
    """Return the error for a first row with other separators or without names, or None if it has neither fault.

    `in_row_1` is True if a fault in row 1 is known.
    """
    text = head.removeprefix(BOM).lstrip(b"\r\n").decode(errors="replace")
    line, _, rest = text.partition("\n")
    for separator, name in _SEPARATORS.items():
        cells = line.rstrip("\r").split(separator)[:MAX_INSPECTED_CELLS]
        if len(cells) > 1 and all("," not in cell or _LOCAL_NUMBER.fullmatch(cell.strip()) for cell in cells):
            values = re.split(f"[{re.escape(separator)}\n]", rest)
            has_local = any(_LOCAL_NUMBER.fullmatch(value.strip()) for value in [*cells, *values])
            and_points = " and points instead of decimal commas" if has_local else ""
            return _in_row_1(
                f"Row 1 has {name} between its cells, but commas were expected. Save the file with commas as "
                f"separators{and_points}; pandas does with to_csv(index=False)."
            )
    if header is not None or not in_row_1:
        return None
    try:
        cells = next(csv.reader([line]), [])[:MAX_INSPECTED_CELLS]
    except csv.Error:  # a carriage return inside the row, or a cell longer than the module reads
        return None
    numbers = sum(_NUMBER.fullmatch(cell.strip()) is not None for cell in cells)
    if not 0 < numbers < len(cells):
        return None
    return _in_row_1(
        f"Row 1 has {numbers} numbers among its {len(cells)} cells, but the names of the columns were expected: "
        "the header row seems to be missing. Add a first row with the names; or add `header=none`, which names the "
        "columns c1, c2, ..., or `header=names` if row 1 holds the names."
    )


def not_utf8(row: int | None) -> InvalidInput:
    """Return the error for a byte that is not UTF-8, in `row` if that is known."""
    if row is None:
        return InvalidInput(f"The file is not UTF-8 text. {SAVE_AS_UTF8}")
    message = f"The file is not UTF-8 text: row {row} has a byte that is not UTF-8. {SAVE_AS_UTF8}"
    return InvalidInput(message, [FieldError(message, row=row)])


def _in_row_1(message: str) -> InvalidInput:
    return InvalidInput(message, [FieldError(message, row=1)])
