"""The schema of a table: the kind of each column, its levels, its gaps and how its cells are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from app.data.columns.options import DateOrder, Decimal, Encoding, GapPolicy, Header, Kind, Separator, Thousands

MISSING_LEVEL = "missing"  # label of the indicator of gaps, as in `age[missing]`


@dataclass(frozen=True)
class Dialect:
    """How the text of a file is divided into cells."""

    sep: Separator = ","
    decimal: Decimal = "."
    encoding: Encoding = "utf-8"
    header: Header | None = None  # None: names, which must not all be numbers
    skip: int = 0  # lines before the header, a `sep=` line among them
    spaces: bool = False  # True if spaces follow separators and belong to no cell
    row_names: bool = False  # True if the header lacks the name of the first column, as R writes it
    empty_end: bool = False  # True if each row, or the header too, ends with a separator
    sheet: str | int | None = None


PLAIN = Dialect()


@dataclass(frozen=True)
class Column:
    """One column of a table, and how its cells become numbers."""

    name: str
    kind: Kind = "number"
    levels: tuple[str, ...] = ()  # of a category; the first is the reference
    missing: GapPolicy = "drop"
    fill: float | str | None = None  # constant in place of a gap; with a category's `indicator`, the gap is a level
    decimal: Decimal = "."
    thousands: Thousands = ""
    na: tuple[str, ...] = ()  # texts that mark a gap, in addition to those that always do
    strip: tuple[str, ...] = ()
    dates: DateOrder | None = None  # None: ISO 8601, or with the name of the month
    strings: bool = False  # True if numbers may be strings in a format that has numbers, because `numbers` said so

    @property
    def is_plain(self) -> bool:
        """True if the cells are numbers as every format writes them, and a gap leaves the row out or is refused."""
        return self.missing in ("drop", "refuse") and self.is_typed

    @property
    def is_typed(self) -> bool:
        """True if a format that knows the decimal sign can read the cells as numbers."""
        return self.kind == "number" and not (self.thousands or self.strip or self.na)

    @property
    def refuses_strings(self) -> bool:
        """True if a string is not a number in a format that has numbers."""
        return self.is_typed and not self.strings

    @property
    def encoded_names(self) -> tuple[str, ...]:
        """Names of the columns of the design that are made from this one."""
        indicator = (f"{self.name}[{MISSING_LEVEL}]",) if self.missing == "indicator" else ()
        if self.kind != "category":
            return (self.name, *indicator)
        return (*(f"{self.name}[{level}]" for level in self.levels[1:]), *indicator)

    @property
    def indicators(self) -> int:
        """Number of the last of `encoded_names` that are 0 or 1 in each row, and at most one of them 1."""
        return len(self.encoded_names) - (self.kind != "category")


@dataclass(frozen=True)
class LeftOut:
    """A column of the training rows that is not used, and why."""

    name: str
    reason: Literal["index", "identifier", "drop"]


@dataclass(frozen=True)
class TableSchema:
    """The columns that a version was trained on. It is applied to every later table."""

    features: tuple[Column, ...]
    targets: tuple[Column, ...]  # numbers and booleans
    weight: Column | None = None
    dialect: Dialect = PLAIN
    left_out: tuple[LeftOut, ...] = ()
    rows: int = 0  # rows sent for the version and for those that it updates, complete or not
    incomplete_rows: int = 0  # those that were left out because of a gap

    @classmethod
    def of_numbers(cls, features: Sequence[str], targets: Sequence[str], weight: str | None = None) -> "TableSchema":
        """Return the schema of columns of numbers, which versions from before schemas have."""
        return cls(
            tuple(map(Column, features)), tuple(map(Column, targets)), None if weight is None else Column(weight)
        )

    @property
    def numbers(self) -> tuple[Column, ...]:
        """Features, targets and weight: the order of the values of an encoded row."""
        return (*self.features, *self.targets, *([self.weight] if self.weight is not None else []))

    @cached_property
    def encoded_features(self) -> tuple[str, ...]:
        """Names of the columns of the design, before terms."""
        return tuple(name for column in self.features for name in column.encoded_names)

    @property
    def is_plain(self) -> bool:
        """True if each column is plain, so that the rows can be read without an encoder."""
        return all(column.is_plain and column.decimal == self.dialect.decimal for column in self.numbers)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """Places of the indicator columns in `encoded_features`, a slice for each column that has some."""
        return tuple(self._blocks())

    def _blocks(self) -> Iterator[slice]:
        end = 0
        for column in self.features:
            end += len(column.encoded_names)
            if column.indicators:
                yield slice(end - column.indicators, end)

    def column(self, name: str) -> Column | None:
        """Return the column of this name, or None."""
        return next((column for column in self.numbers if column.name == name), None)

    def with_dialect(self, dialect: Dialect) -> "TableSchema":
        return replace(self, dialect=dialect)
