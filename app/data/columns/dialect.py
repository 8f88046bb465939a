"""Guess the dialect of a CSV file from its first rows: separator, decimal sign, skipped lines and odd columns."""

import contextlib
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, get_args

from app.data.columns.options import ColumnOptions, Decimal, Header, ReadingOptions, Separator
from app.data.columns.schema import PLAIN, Column, Dialect
from app.data.columns.text_rows import last_row_end, row_start, skipped, without_quoted, without_spaces
from app.data.names import shown
from app.errors import FieldError, InvalidInput

SAMPLE_BYTES = 1 << 20  # Bytes of a file from which its dialect is guessed.
PART_BYTES = 1 << 15  # Bytes that are enough to rule most separators out.
SEPARATORS: tuple[Separator, ...] = get_args(Separator)
SEPARATOR_LABELS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar", " ": "run of spaces"}
_COMPARED_ROWS = 50  # Rows whose numbers are counted if several separators fit.
_SEP_LINE = re.compile(rb'"?sep=(.)"?[ \t]*(?=[\r\n]|\Z)', re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")
_WITH_POINT = re.compile(r"[+-]?[0-9]*\.[0-9]*(?:[eE][+-]?[0-9]+)?")
_WITH_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]*(?:[eE][+-]?[0-9]+)?|[+-]?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_GROUPED_BY_POINTS = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+")


def sniff(text: bytes, options: ReadingOptions, known: Dialect | None = None) -> Dialect:
    """Return the dialect of a file that begins with `text`, in UTF-8. Its encoding is not decided here.

    Options decide first, then the line `sep=`, then `known` if it fits, and then the counts of values in the rows.
    Raises InvalidInput if the header is not in the first row, or if commas in numbers can be read in two ways.
    """
    named = _named_separator(text)
    header = options.header or (known.header if known else None)
    skip = max(options.skip, int(named is not None))
    if not skip and known and known.skip and not _begins_with_header(text):
        skip = known.skip if _begins_with_header(text[skipped(text, known.skip) :]) else 0
    rest = text[skipped(text, skip) :]
    sep = options.sep or named
    shape = _Shape.of(rest, sep) if sep else _best_shape(rest, known, header)
    form = shape.form(header, known)
    if options.sep and shape.counts[:1] == (1,):
        _check_separator(rest, options.sep, header, skip + 1)
    is_single = known is not None and shape.sep == known.sep and shape.width == 1
    if form is None and not is_single:
        _check_header_row(rest, [shape] if sep else _shapes(rest, header, known), header, skip)
    form = form or _Form(spaces=shape.has_spaces)
    dialect = Dialect(sep=shape.sep, header=header, skip=skip, **form._asdict())
    return replace(dialect, decimal=_decimal(rest, dialect, options, known))


def with_thousands(options: ReadingOptions, columns: Iterable[Column]) -> ReadingOptions:
    """Return the options with the points between thousands of a model's columns, unless the options have such signs.

    A number such as 1.500 is then no sign of a decimal point.
    """
    if options.decimal is not None or options.thousands is not None:
        return options
    grouped = {
        column.name: replace(options.columns.get(column.name, ColumnOptions()), thousands=".")
        for column in columns
        if column.thousands == "." and not _has_own_signs(options, column.name)
    }
    return replace(options, columns={**options.columns, **grouped}) if grouped else options


def _named_separator(text: bytes) -> Separator | None:
    """Return the separator that the first line `sep=` names, as Excel writes it, or None without such a line."""
    line = _SEP_LINE.match(text)
    if line is None:
        return None
    for separator in SEPARATORS:
        if line[1] == separator.encode():
            return separator
    raise InvalidInput(
        "The line `sep=` names an unknown separator. Expected a comma, a semicolon, a tab, a vertical bar or a space.",
        [FieldError("Expected `sep=` with another separator.", row=1)],
    )


def _begins_with_header(text: bytes) -> bool:
    """Return True if the first row may be a header: it has distinct names, and the other rows have as many values."""
    shape = _best_shape(text, None, None)
    names = next(_readable_cells(text, shape.sep), [])
    are_names = all(names[1:]) and len(set(names)) == len(names) and not all(map(_NUMBER.fullmatch, names))
    return are_names and shape.form(None, None) is not None


def _check_separator(text: bytes, sep: Separator, header: Header | None, row: int) -> None:
    """Raise InvalidInput if the option `sep` names a separator that the first row lacks, and another one fits."""
    if other := next((shape.sep for shape in _shapes(text, header, None) if shape.form(header, None)), None):
        message = (
            f"Row {row} has no {SEPARATOR_LABELS[sep]}, which the option `sep` gives as the separator. The separator "
            f"appears to be a {SEPARATOR_LABELS[other]}. Correct `sep`, or leave it out."
        )
        raise InvalidInput(message, [FieldError(message, row=row, parameter="sep")])


class _Form(NamedTuple):
    """The parts of a dialect that follow from the numbers of values in the rows."""

    row_names: bool = False
    empty_end: bool = False
    spaces: bool = False


class _Shape(NamedTuple):
    """The numbers of values in the rows of a text for one separator."""

    sep: Separator
    text: bytes
    counts: tuple[int, ...]  # of each row that is not empty, the header among them
    ends: tuple[bool, bool]  # whether the first row, and each later one, ends with a separator
    has_spaces: bool  # True if a space follows any separator

    @classmethod
    def of(cls, text: bytes, sep: Separator) -> "_Shape":
        separator = sep.encode()
        text = text[: last_row_end(text, sep)]
        whole = without_spaces(text, sep) if sep == " " else text
        unquoted = without_quoted(whole, sep)
        lines = [line for line in unquoted.splitlines() if line]
        counts = tuple(line.count(separator) + 1 for line in lines)
        first = bool(lines) and lines[0].endswith(separator)
        others = len(lines) > 1 and all(line.endswith(separator) for line in lines[1:])
        has_spaces = sep != " " and separator + b" " in unquoted
        return cls(sep, text, counts, (first, others), has_spaces)

    @property
    def width(self) -> int | None:
        """Number of values in each row after the header, or in the header if it is alone. None if they differ."""
        counts = set(self.counts[1:] or self.counts)
        return counts.pop() if len(counts) == 1 else None

    def form(self, header: Header | None, known: Dialect | None) -> _Form | None:
        """Return the form of the rows, or None unless all have the same number of values and at least two."""
        width = self.width
        if width is None or width < 2:  # noqa: PLR2004 - more than one value
            return None
        ends_empty = self.ends[1] and (self.ends[0] or (header != "none" and self.counts[0] == width - 1))
        if self.counts[0] == width or ends_empty:
            return _Form(empty_end=ends_empty, spaces=self.has_spaces)
        lacks_a_name = header != "none" and 1 < self.counts[0] == width - 1
        if lacks_a_name and ((known is not None and known.row_names) or self._has_row_names()):
            return _Form(row_names=True, spaces=self.has_spaces)
        return None

    def _has_row_names(self) -> bool:
        """Return True if the first values are row names as R writes them: quoted, or numbered from 1, or words."""
        rows = self.text[row_start(self.text, 1, self.sep) :]
        if rows.startswith(b'"'):
            return True
        names = [row[0] for row in _readable_cells(rows, self.sep)]
        if len(names) < 2:  # noqa: PLR2004 - one number proves nothing
            return False
        are_words = len(set(names)) == len(names) and not any(map(_NUMBER.fullmatch, names))
        return are_words or names == [str(number) for number in range(1, len(names) + 1)]


def _shape(text: bytes, sep: Separator, header: Header | None, known: Dialect | None) -> _Shape:
    """Return the shape of a text, or only of its first PART_BYTES if the separator does not fit them."""
    part = _Shape.of(text[:PART_BYTES], sep)
    is_enough = len(part.counts) > 1 and part.form(header, known) is None
    return part if is_enough or len(text) <= PART_BYTES else _Shape.of(text, sep)


def _shapes(text: bytes, header: Header | None, known: Dialect | None) -> list[_Shape]:
    """Return the shapes for all separators. Runs of spaces separate only if no name is next to another separator."""
    shapes = [_shape(text, sep, header, known) for sep in SEPARATORS if sep != " "]
    if header == "none" or all(shape.counts[:1] in ((), (1,)) for shape in shapes):
        shapes.append(_shape(text, " ", header, known))
    return shapes


def _best_shape(text: bytes, known: Dialect | None, header: Header | None) -> _Shape:
    """Return the shape that fits all rows, or otherwise that of the separator in the first row."""
    if known is not None and (shape := _shape(text, known.sep, header, known)).form(header, known):
        return shape
    shapes = _shapes(text, header, known)
    if fitting := [shape for shape in shapes if shape.form(header, known)]:
        return fitting[0] if len(fitting) == 1 else max(fitting, key=_likelihood)
    for candidate in shapes:
        if candidate.counts[:1] > (1,) and candidate.sep != " ":
            return candidate
    return shape if known is not None and shape.width == 1 else shapes[0]


def _likelihood(shape: _Shape) -> tuple[int, bool, float, bool]:
    """Return a score of a separator: stray quotes and line breaks lower it, and numbers raise it."""
    cells = [cell for row in islice(_readable_cells(shape.text, shape.sep), _COMPARED_ROWS) for cell in row]
    odd = sum('"' in cell or "\n" in cell for cell in cells)
    numbers = sum(_NUMBER.fullmatch(cell.strip()) is not None for cell in cells)
    # A comma between numbers may be a decimal sign.
    return -odd, shape.sep != " ", numbers / max(1, len(cells)), shape.sep != ","


def _check_header_row(text: bytes, shapes: Sequence[_Shape], header: Header | None, skip: int) -> None:
    """Raise InvalidInput if the first rows have fewer or more values than all others, as titles and comments do."""
    for shape in shapes:
        width, titles = shape.counts[-1] if shape.counts else 1, len(shape.counts)
        while titles and shape.counts[titles - 1] == width:
            titles -= 1
        if width == 1 or not 0 < titles <= len(shape.counts) // 2 or shape.counts[0] == width:
            continue
        if len(shape.counts) - titles < 2:  # noqa: PLR2004 - a header and a row
            continue
        first = skip + 1
        message = f"Row {first} has {shape.counts[0]} value(s), but the rows after it have {width}."
        if header != "none" and shape.counts[0] == width - 1 and titles == 1:
            message += " Each value needs a name. Either a name is missing, or commas in numbers separate values."
        else:
            lines = skip + len(text[: row_start(text, titles, shape.sep)].splitlines())
            message += (
                " If titles or comments precede the names of the columns, give the number of these lines, as in "
                f"`skip={lines}`."
            )
        raise InvalidInput(message, [FieldError(message, row=first)])


def cells_of(text: bytes, sep: Separator, *, spaces: bool = True, errors: str = "replace") -> Iterator[list[str]]:
    """Yield the rows of a text as lists of cells, without empty rows; `spaces` before cells are left out.

    Raises csv.Error.
    """
    whole = without_spaces(text, sep) if sep == " " else text
    lines = io.StringIO(whole.decode(errors=errors), newline="")
    return filter(None, csv.reader(lines, delimiter=sep, skipinitialspace=spaces))


def _readable_cells(text: bytes, sep: Separator) -> Iterator[list[str]]:
    """Yield the rows up to the first that the module `csv` cannot read."""
    with contextlib.suppress(csv.Error):
        yield from cells_of(text, sep)


def _decimal(text: bytes, dialect: Dialect, options: ReadingOptions, known: Dialect | None) -> Decimal:
    """Return the decimal sign of the numbers. Raises InvalidInput if their commas can be read in two ways."""
    if options.decimal is not None:
        return options.decimal
    if options.thousands == ".":
        return ","
    expected = known.decimal if known is not None else PLAIN.decimal
    if dialect.sep == "," or options.thousands == "," or (b"," not in text and expected == "."):
        return "."
    first = _first_numbers(text, dialect, options)
    if "point" in first:
        return "."
    if "comma" in first:
        return ","
    if "ambiguous" in first and known is None:
        raise _ambiguous(*first["ambiguous"])
    return expected


def _first_numbers(text: bytes, dialect: Dialect, options: ReadingOptions) -> dict[str, tuple[int, str]]:
    """Return row and column of the first number of each kind, except ambiguous ones in columns with own options."""
    first: dict[str, tuple[int, str]] = {}
    names: Sequence[str] = ()
    last = "point" if b"." in text else "comma"  # The search ends at the first number of this kind.
    has_groups = any(own.thousands == "." for own in options.columns.values())
    for row, cells in enumerate(_readable_cells(text, dialect.sep), dialect.skip + 1):
        if last in first:
            break
        if not names:
            has_names = dialect.header != "none"
            names = [*[""] * dialect.row_names, *cells] if has_names else [f"c{n + 1}" for n in range(len(cells))]
            if has_names:
                continue
        for name, cell in zip(names, cells, strict=False):
            kind = _kind_of_number(cell)
            if kind == "point" and has_groups and _GROUPED_BY_POINTS.fullmatch(cell.strip()):
                continue
            if kind and kind not in first and not (kind == "ambiguous" and _has_own_signs(options, name)):
                first[kind] = row, name
    return first


def _has_own_signs(options: ReadingOptions, name: str) -> bool:
    own = options.of(name)
    return own.decimal is not None or own.thousands is not None


def _kind_of_number(cell: str) -> str:
    """Return "point" or "comma" for a number with that decimal sign, "ambiguous" if its commas may separate thousands.

    Return "" for whole numbers and everything else.
    """
    if "," in cell:
        cell = cell.strip()
        if _GROUPED.fullmatch(cell):
            return "ambiguous"
        return "comma" if _WITH_COMMA.fullmatch(cell) else ""
    return "point" if "." in cell and _WITH_POINT.fullmatch(cell.strip()) else ""


def _ambiguous(row: int, column: str) -> InvalidInput:
    message = (
        f"Row {row}, column {shown(column)}: three digits follow the comma in every number, so it may be a decimal "
        "sign or separate thousands. Decide with `decimal=,` or `thousands=,`."
    )
    return InvalidInput(message, [FieldError(message, row=row, column=column, parameter="decimal")])
