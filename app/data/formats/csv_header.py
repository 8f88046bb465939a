"""The first row of a CSV file: the names of the columns, and what to do if it holds something else."""

import codecs
import csv
import re
from typing import NamedTuple

from app.data.batch import Source, check_distinct
from app.data.columns.dialect import cells_of
from app.data.columns.encodings import BOM, beginning
from app.data.columns.schema import Dialect
from app.data.columns.text_rows import MAX_ROW_BYTES, after_line, row_end, row_start, skipped
from app.data.formats.base import SAVE_AS_UTF8
from app.errors import FieldError, InvalidInput

MAX_INSPECTED_CELLS = 10_000  # Cells of a faulty first row that are inspected.
ROW_NAMES = ""  # Name of a column that R's header lacks.
_END = "\0"  # Name, for pyarrow, of the empty column after the last separator.

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LOCAL_NUMBER = re.compile(r"[+-]?[0-9]+,[0-9]+")  # With a decimal comma, or with one comma between thousands.
_MISSING_WORDS = ("", "na", "nan", "n/a", "null")  # in lower case
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class Layout(NamedTuple):
    """The columns and the beginning of the rows of a file."""

    dialect: Dialect
    columns: tuple[str, ...]  # all of them in the file's order, as pyarrow has to call them
    start: int | None  # offset in the text of the first row after the header; None if the header has no end
    first_row: int  # its number

    @property
    def names(self) -> list[str]:
        return [name for name in self.columns if name != _END]

    @property
    def end(self) -> str | None:
        """The column that has to be empty, or None."""
        return _END if self.dialect.empty_end else None


def read_layout(source: Source, dialect: Dialect) -> Layout:
    """Return the layout of a file: the names in its first row or, with header "none", c1, c2 and so on.

    Raises InvalidInput if there is no row, if it is not UTF-8, if a name appears twice, or if all names are numbers
    and the dialect's `header` is not given.
    """
    text, _ = beginning(source, dialect.encoding, MAX_ROW_BYTES)
    start = skipped(text, dialect.skip)
    text = text[start:]
    names = _names(text, dialect)
    check_distinct(names, _twice(names), row=dialect.skip + 1)
    columns = (*names, _END) if dialect.empty_end else tuple(names)
    first_row = dialect.skip + 1 + (dialect.header != "none")
    if dialect.header == "none":
        return Layout(dialect, columns, start, first_row)
    end = row_end(text, row_start(text, 0, dialect.sep), dialect.sep)
    return Layout(dialect, columns, None if end is None else start + after_line(text, end), first_row)


def _names(text: bytes, dialect: Dialect) -> list[str]:
    row = dialect.skip + 1
    try:
        # The encoding of later rows is checked as they are read.
        names = next(cells_of(text, dialect.sep, spaces=dialect.spaces, errors="surrogateescape"), [])
    except csv.Error:
        raise _in_row(row, f"Row {row} is not readable as CSV. Expected the names of the columns.") from None
    if dialect.empty_end and names and not names[-1].strip():
        names = names[:-1]
    if dialect.header == "none":
        names = [f"c{number}" for number in range(1, len(names) + 1)]
    if not names:
        expected = "rows" if dialect.header == "none" else "a header row with the names of the columns, and rows"
        if dialect.skip:
            message = f"No row follows the {dialect.skip} skipped line(s). Expected {expected}. Give a smaller `skip`."
            raise InvalidInput.of_parameter("skip", message)
        raise InvalidInput(f"The file is empty. Expected {expected}.")
    try:
        "".join(names).encode()
    except UnicodeEncodeError:  # A byte that was escaped above.
        raise not_utf8(row) from None
    if dialect.header is None and _are_numbers(names):
        raise _in_row(
            row,
            f"Row {row} holds only numbers, but the names of the columns were expected. Add a first row with the "
            "names; or add `header=none`, which names the columns c1, c2, ..., or `header=names` if the numbers are "
            "the names.",
        )
    if dialect.spaces:
        names = [name.strip(" ") for name in names]
    return [ROW_NAMES, *names] if dialect.row_names else names


def _are_numbers(names: list[str]) -> bool:
    """Return True if all names are numbers, apart from those that mark a missing value in a row."""
    given = [name.strip() for name in names if name.strip().lower() not in _MISSING_WORDS]
    return bool(given) and all(_NUMBER.fullmatch(name) for name in given)


def _twice(names: list[str]) -> str:
    """Return the beginning of the message for a name that appears twice."""
    if names.count("") > 1:
        return (
            "Several columns have no name in the header. If the names are in a later row, give the number of lines "
            "before it, as in `skip=1`. Received twice:"
        )
    return "Several columns have the same name in the header:"


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


def explain_first_row(head: bytes, dialect: Dialect, *, in_first_row: bool) -> InvalidInput | None:
    """Return the error for a first row with other separators or without names, or None if it has neither fault.

    `in_first_row` is True if a fault in that row is known.
    """
    row = dialect.skip + 1
    text = head.removeprefix(BOM)
    line, _, rest = text[skipped(text, dialect.skip) :].lstrip(b"\r\n").decode(errors="replace").partition("\n")
    if dialect.sep == "," and (error := _explain_separator(row, line, rest)):
        return error
    if dialect.header is not None or not in_first_row:
        return None
    try:
        cells = next(cells_of(line.encode(), dialect.sep), [])[:MAX_INSPECTED_CELLS]
    except csv.Error:  # a carriage return inside the row, or a cell longer than the module reads
        return None
    numbers = sum(_NUMBER.fullmatch(cell.strip()) is not None for cell in cells)
    if not 0 < numbers < len(cells):
        return None
    return _in_row(
        row,
        f"Row {row} has {numbers} numbers among its {len(cells)} cells, but the names of the columns were expected: "
        "the header row seems to be missing. Add a first row with the names; or add `header=none`, which names the "
        f"columns c1, c2, ..., or `header=names` if row {row} holds the names.",
    )


def _explain_separator(row: int, line: str, rest: str) -> InvalidInput | None:
    """Return the error for a first row that another separator divides, or None."""
    for separator, name in _SEPARATORS.items():
        cells = line.rstrip("\r").split(separator)[:MAX_INSPECTED_CELLS]
        if len(cells) > 1 and all("," not in cell or _LOCAL_NUMBER.fullmatch(cell.strip()) for cell in cells):
            values = re.split(f"[{re.escape(separator)}\n]", rest)
            has_local = any(_LOCAL_NUMBER.fullmatch(value.strip()) for value in [*cells, *values])
            and_points = " and points instead of decimal commas" if has_local else ""
            return _in_row(
                row,
                f"Row {row} has {name} between its cells, but commas were expected. Save the file with commas as "
                f"separators{and_points}; pandas does with to_csv(index=False).",
            )
    return None


def not_utf8(row: int | None) -> InvalidInput:
    """Return the error for a byte that is not UTF-8, in `row` if that is known."""
    place = "" if row is None else f": row {row} has a byte that is not UTF-8"
    message = (
        f"The file is not UTF-8 text{place}. {SAVE_AS_UTF8} Or name its encoding, as in `encoding=windows-1252`, which "
        "Excel writes in Western Europe."
    )
    return InvalidInput(message, [] if row is None else [FieldError(message, row=row)])


def header_without_end(layout: Layout) -> InvalidInput:
    """Return the error for a first row with a quote that has no end."""
    return _in_row(
        layout.dialect.skip + 1, f"Row {layout.dialect.skip + 1} has a quote without an end. Close it, or remove it."
    )


def _in_row(row: int, message: str) -> InvalidInput:
    return InvalidInput(message, [FieldError(message, row=row)])
