"""Options of reading a table. Without an option, the cells decide."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Header: TypeAlias = Literal["names", "none"]  # content of the first row of a text file
Kind: TypeAlias = Literal["number", "boolean", "date", "category"]
DateOrder: TypeAlias = Literal["dmy", "mdy", "ymd"]
# Effect of a gap, which is a cell without a value. drop: the row is left out. refuse: the job fails. indicator: a
# constant takes its place, and an indicator column is added. fill: a constant takes its place.
GapPolicy: TypeAlias = Literal["drop", "refuse", "indicator", "fill"]
Separator: TypeAlias = Literal[",", ";", "\t", "|", " "]  # " " means a run of spaces
Decimal: TypeAlias = Literal[".", ","]
Thousands: TypeAlias = Literal["", ",", ".", " ", "'", "_"]
Encoding: TypeAlias = Literal["utf-8", "utf-16", "windows-1252", "iso-8859-1"]


@dataclass(frozen=True)
class ColumnOptions:
    """The options of one column. None: the option of the table, or else inferred."""

    kind: Kind | None = None
    strings: bool = True  # with the kind `number`: numbers may be strings in a format that has numbers
    decimal: Decimal | None = None
    thousands: Thousands | None = None
    na: tuple[str, ...] | None = None  # further texts that mark a gap
    strip: tuple[str, ...] | None = None  # signs to remove before or after a number, such as "$" or "%"
    dates: DateOrder | None = None
    reference: str | None = None  # level of a category to which the others are compared
    missing: GapPolicy | None = None
    fill: float | str | None = None  # constant that replaces a gap

    def decimal_or(self, default: Decimal) -> Decimal:
        """Return the decimal sign: as given, else one that does not separate thousands, else the default."""
        others: dict[str | None, Decimal] = {".": ",", ",": "."}
        return self.decimal or others.get(self.thousands, default)


@dataclass(frozen=True)
class ReadingOptions:
    """The options of a whole table, and those of single columns."""

    sep: Separator | None = None
    decimal: Decimal | None = None
    thousands: Thousands | None = None
    na: tuple[str, ...] = ()
    encoding: Encoding | None = None
    header: Header | None = None
    skip: int = 0  # lines before the header
    sheet: str | int | None = None  # name of a sheet, or its number from 1
    strip: tuple[str, ...] = ()
    dates: DateOrder | None = None
    missing: GapPolicy | None = None
    drop: tuple[str, ...] = ()  # columns that are left out
    columns: Mapping[str, ColumnOptions] = field(default_factory=dict)

    def of(self, name: str) -> ColumnOptions:
        """Return the options of a column. Those that it does not have are the table's."""
        own = self.columns.get(name, _NO_OPTIONS)
        return ColumnOptions(
            kind=own.kind,
            strings=own.strings,
            decimal=own.decimal or self.decimal,
            thousands=self.thousands if own.thousands is None else own.thousands,
            na=self.na if own.na is None else own.na,
            strip=self.strip if own.strip is None else own.strip,
            dates=own.dates or self.dates,
            reference=own.reference,
            missing=own.missing or ("fill" if own.fill is not None else self.missing),
            fill=own.fill,
        )


_NO_OPTIONS = ColumnOptions()
