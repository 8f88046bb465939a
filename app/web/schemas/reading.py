"""Options of reading a table. Their names are the same in a query, in JSON and for single columns."""

import json
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from app.data.columns.options import (
    ColumnOptions,
    DateOrder,
    Decimal,
    Encoding,
    GapPolicy,
    Header,
    Kind,
    ReadingOptions,
    Separator,
    Thousands,
)
from app.data.names import MAX_NAME_LENGTH, MAX_NAMES, shown
from app.web.schemas.solver_options import Options

HEADER_TEXT = (
    "For CSV and spreadsheets: `names` if the first row holds the columns' names, which may then be numbers; `none` if "
    "it holds values, and the columns are called c1, c2, ... Default: `names`, refused if all of them are numbers."
)
MAX_TEXTS = 100  # Texts in a list of gaps or of signs.
MAX_TEXT_LENGTH = 1000  # Characters of a level, a gap or a constant.
MAX_SKIPPED = 10_000  # Lines before the header.


_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " ", "spaces": " "}
_SIGNS = {"comma": ",", "point": ".", "dot": ".", "space": " ", "none": "", "apostrophe": "'", "underscore": "_"}
_ENCODINGS = {
    "utf8": "utf-8",
    "utf-8-sig": "utf-8",
    "utf16": "utf-16",
    "utf-16le": "utf-16",
    "utf-16be": "utf-16",
    "cp1252": "windows-1252",
    "latin-1": "iso-8859-1",
    "latin1": "iso-8859-1",
    "iso8859-1": "iso-8859-1",
}


def _word(words: dict[str, str]) -> BeforeValidator:
    return BeforeValidator(lambda value: words.get(value.lower(), value) if isinstance(value, str) else value)


def _lower(value: Any) -> Any:
    return _ENCODINGS.get(value.lower(), value.lower()) if isinstance(value, str) else value


def _sign(text: str) -> str:
    """Return a sign to remove next to a number. Raises ValueError if it may be a part of the number itself."""
    if re.search(r"[\d+\N{MINUS SIGN}-]", text) or not re.sub(r"[eE.,\s]", "", text):
        raise ValueError(
            "A sign to remove may not have a digit, + or -, and must not consist of e, E, points, commas and spaces: "
            "they are parts of numbers. Give signs such as $ and %"
        )
    return text


def _type_of(value: Any) -> str:
    return "word" if isinstance(value, str) else "number"


Text: TypeAlias = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
Texts: TypeAlias = Annotated[list[Text], Field(max_length=MAX_TEXTS)]
ColumnName: TypeAlias = Annotated[str, Field(max_length=MAX_NAME_LENGTH)]
Sign: TypeAlias = Annotated[Text, AfterValidator(_sign)]
Signs: TypeAlias = Annotated[list[Sign], Field(max_length=MAX_TEXTS)]
Names: TypeAlias = Annotated[list[ColumnName], Field(max_length=MAX_NAMES)]
# Tagged, so that a fault is reported for one of the two types.
Constant: TypeAlias = Annotated[Annotated[Text, Tag("word")] | Annotated[float, Tag("number")], Discriminator(_type_of)]
Sheet: TypeAlias = Annotated[
    Annotated[str, Field(max_length=MAX_NAME_LENGTH), Tag("word")] | Annotated[int, Field(ge=1), Tag("number")],
    Discriminator(_type_of),
]
DecimalOption: TypeAlias = Annotated[Decimal | None, _word(_SIGNS)]
ThousandsOption: TypeAlias = Annotated[Thousands | None, _word(_SIGNS)]


class ColumnFields(Options):
    """Options of one column. Without an option, the one of the whole table applies, or it is inferred."""

    kind: Kind | None = None
    """`number`, `boolean` (0 and 1), `date` (days since 1970-01-01 UTC) or `category` (an indicator for each level)."""
    decimal: DecimalOption = None
    thousands: ThousandsOption = None
    na: Texts | None = None
    strip: Signs | None = None
    dates: DateOrder | None = None
    reference: Text | None = None
    """Level of a category with which the others are compared. Default: the first in the order of code points."""
    missing: GapPolicy | None = None
    fill: Constant | None = None
    """Constant in place of a gap."""

    def value(self) -> ColumnOptions:
        return ColumnOptions(
            kind=self.kind,
            decimal=self.decimal,
            thousands=self.thousands,
            na=_tuple(self.na),
            strip=_tuple(self.strip),
            dates=self.dates,
            reference=self.reference,
            missing=self.missing,
            fill=self.fill,
        )


class CellOptions(Options):
    """Options about the meaning of cells, for every format."""

    decimal: DecimalOption = None
    """Decimal sign of numbers in text: `.` or `,`. Default: what fits the file."""
    thousands: ThousandsOption = None
    """Sign between groups of three digits: `,`, `.`, `space`, `'` or `_`. Default: none."""
    na: Texts = Field(default_factory=list)
    """Further texts that mark a gap, which is a cell without a value. Empty, NA, NaN, null and the like always do."""
    strip: Signs = Field(default_factory=list)
    """Signs to remove before or after a number, such as `$` and `%`."""
    dates: DateOrder | None = None
    """Order of dates such as 03/04/2020: `dmy`, `mdy` or `ymd`. Default: the one that fits all dates of the column."""
    categories: Names = Field(default_factory=list)
    """Columns whose values are levels, even if they look like numbers or like identifiers."""
    numbers: Names = Field(default_factory=list)
    """Columns whose values are numbers, even if they were sent as strings."""
    booleans: Names = Field(default_factory=list)
    """Columns whose values are true and false."""
    drop: Names = Field(default_factory=list)
    """Columns to leave out."""
    reference: dict[ColumnName, Text] = Field(default_factory=dict)
    """Reference level of categories, with which the other levels are compared. Default: the first in the order of code
    points; for a new version, the current version's."""
    missing: GapPolicy | None = None
    """What to do with a gap, a cell without a value. `drop`: leave the row out and count it; `refuse`: fail the job;
    `indicator`: use the mean of the column and add an indicator column, or in a category add a level for gaps;
    `fill`: use the column's constant in `fill`. Default: `drop`; for a new version, the current version's."""
    fill: dict[ColumnName, Constant] = Field(default_factory=dict)
    """Constants in place of gaps, by column."""
    columns: dict[ColumnName, ColumnFields] = Field(default_factory=dict, max_length=MAX_NAMES)
    """Options of single columns, by name: `kind`, `decimal`, `thousands`, `na`, `strip`, `dates`, `reference`,
    `missing` and `fill`."""

    @model_validator(mode="after")
    def _names_each_kind_once(self) -> Self:
        columns = self._columns()
        if both := sorted({*self.drop} & {*columns}):
            raise ValueError(f"The column {shown(both[0])} has options, and `drop` leaves it out. Give one of the two")
        if self.missing == "fill" and not any(options.fill is not None for options in columns.values()):
            raise ValueError("`missing: fill` needs `fill`, the constants of the columns with gaps, as in `fill=age:0`")
        reading = ReadingOptions(decimal=self.decimal, thousands=self.thousands, columns=columns)
        for name in (None, *columns):
            signs = reading.of(name or "")
            if signs.decimal is not None and signs.decimal == signs.thousands:
                where = f" for the column {shown(name)}" if name is not None else ""
                raise ValueError(f"`decimal` and `thousands` are the same sign{where}. Give two different signs")
        for name, options in columns.items():
            if options.missing == "fill" and options.fill is None:
                raise ValueError(f"The column {shown(name)} has `missing: fill`, and needs `fill`, its constant")
            if options.fill is not None and options.missing not in (None, "fill", "indicator"):
                raise ValueError(
                    f"The column {shown(name)} has a constant for its gaps, and `missing: {options.missing}`. "
                    "Give one of the two"
                )
            if isinstance(options.fill, float) and not math.isfinite(options.fill):
                raise ValueError(f"The constant of the column {shown(name)} is not a finite number")
        return self

    def _columns(self) -> dict[str, ColumnOptions]:
        """Return the options of single columns. Raises ValueError if one is given twice with other values."""
        columns = {name: options.model_dump(exclude_none=True) for name, options in self.columns.items()}
        kinds: tuple[tuple[list[str], Kind], ...] = (
            (self.categories, "category"),
            (self.numbers, "number"),
            (self.booleans, "boolean"),
        )
        given: Iterable[tuple[str, str, Any]] = (
            *((name, "kind", kind) for names, kind in kinds for name in names),
            *((name, "reference", level) for name, level in self.reference.items()),
            *((name, "fill", constant) for name, constant in self.fill.items()),
        )
        for name, option, value in given:
            options = columns.setdefault(name, {})
            if options.setdefault(option, value) != value:
                raise ValueError(f"The column {shown(name)} was given more than one `{option}`. Give one")
            if option == "reference" and options.setdefault("kind", "category") != "category":
                raise ValueError(f"Only a category has a reference level; {shown(name)} is a {options['kind']}")
        return {name: ColumnFields(**options).value() for name, options in columns.items()}

    def reading(self) -> ReadingOptions:
        """Return the options of the table."""
        return ReadingOptions(
            decimal=self.decimal,
            thousands=self.thousands,
            na=tuple(self.na),
            strip=tuple(self.strip),
            dates=self.dates,
            missing=self.missing,
            drop=tuple(self.drop),
            columns=self._columns(),
        )


class TextOptions(Options):
    """Options about how a file is divided into cells."""

    sep: Annotated[Separator | None, _word(_SEPARATORS)] = None
    """Separator of values in CSV: `,`, `;`, `tab`, `|`, or `space` for runs of spaces. Default: the one that gives all
    rows the same number of values."""
    encoding: Annotated[Encoding | None, BeforeValidator(_lower)] = None
    """Encoding of CSV. Default: the `charset` in Content-Type, or UTF-8. A byte order mark overrides it."""
    header: Header | None = Field(None, description=HEADER_TEXT)
    skip: int = Field(0, ge=0, le=MAX_SKIPPED)
    """Lines before the header that are not read."""
    sheet: Sheet | None = None
    """Sheet of a workbook, by its name or its number from 1. Default: the first visible sheet with a table."""


class KnownTextOptions(TextOptions):
    """Options about how a table is read whose columns a version knows."""

    decimal: DecimalOption = None
    """Decimal sign of numbers in text: `.` or `,`. Default: the training rows', if it fits."""
    thousands: ThousandsOption = None
    """Sign between groups of three digits. Default: the training rows'."""
    dates: DateOrder | None = None
    """Order of dates such as 03/04/2020. Default: the training rows'."""

    def reading(self) -> ReadingOptions:
        """Return how to read the table."""
        return ReadingOptions(
            sep=self.sep,
            decimal=self.decimal,
            thousands=self.thousands,
            encoding=self.encoding,
            header=self.header,
            skip=self.skip,
            sheet=int(self.sheet) if isinstance(self.sheet, str) and self.sheet.isdecimal() else self.sheet,
            dates=self.dates,
        )


def _tuple(texts: list[str] | None) -> tuple[str, ...] | None:
    return None if texts is None else tuple(texts)


NAME_LISTS = ("categories", "numbers", "booleans", "drop")
TEXT_LISTS = ("na", "strip")
MAPPINGS = ("reference", "fill")


def parse_mapping(texts: Iterable[str]) -> dict[str, str]:
    """Return a mapping written as `name:value` items. Raises ValueError."""
    items = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon:
            raise ValueError("Expected names of columns with a value each, as in NAME:VALUE,NAME:VALUE.")
        if name in items:
            raise ValueError(f"The column {shown(name)} is given more than once. Give it once.")
        items[name] = value
    return items


def constants(texts: dict[str, str], categories: Iterable[str]) -> dict[str, float | str]:
    """Return the constants in a query. Those of `categories` are levels; others are numbers if possible."""
    levels = {*categories}
    return {name: text if name in levels else _number(text) for name, text in texts.items()}


def _number(text: str) -> float | str:
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def parse_columns(text: str) -> Any:
    """Return the JSON of the option `columns` in a query. Raises ValueError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(
            'Expected a JSON object of options by column, as in {"species": {"kind": "category"}}.'
        ) from None
