"""The kind of a column: number, boolean, date or category, as its cells suggest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.data.columns.dates import parse_dates
from app.data.columns.disguise import option_for_numbers
from app.data.columns.gaps import GAP_TEXTS, SPACES
from app.data.columns.number_profile import NumberProfile
from app.data.columns.options import DateOrder
from app.data.columns.profile import ColumnProfile
from app.data.columns.schema import Column
from app.data.columns.tally import Tally
from app.data.columns.text_profile import TextProfile
from app.data.lazy_pyarrow import pa


class KindFault(Exception):
    """The kind of a column cannot be decided. `row` counts from 0."""

    def __init__(self, message: str, row: int | None) -> None:
        super().__init__(message)
        self.message, self.row = message, row or 0


@dataclass(frozen=True)
class Decided:
    """A column with its kind, and its values."""

    column: Column
    profile: ColumnProfile
    values: tuple[NumberProfile, ...] = ()  # parts of the values of numbers, booleans and dates
    found_thousands: bool = False  # True if separators between thousands were found

    @property
    def count(self) -> int:
        """Number of cells with a value."""
        return self.profile.texts.count if self.column.kind == "category" else sum(part.count for part in self.values)

    @property
    def gaps(self) -> int:
        return self.profile.rows - self.count

    @property
    def mean(self) -> float:
        count = self.count
        return sum(part.mean * (part.count / count) for part in self.values if part.count) if count else 0.0

    @property
    def counts_rows(self) -> bool:
        """True if the values count the rows, from 0 or 1."""
        return self.profile.rows > 1 and self.gaps == 0 and all(part.counts_rows for part in self.values)

    @property
    def is_yyyymmdd(self) -> bool:
        """True if all values are integers that look like a date."""
        return self.count > 0 and all(part.is_yyyymmdd for part in self.values)

    @property
    def all_differ(self) -> bool:
        """True if all values are integers, and the first of them differ."""
        parts = [part for part in self.values if part.count]
        return len(parts) == 1 and parts[0].all_differ

    @property
    def low_outlier(self) -> bool:
        """True if the lowest value is far from the others and may mark gaps, as -999 does."""
        return any(part.outlier is part.lowest for part in self.values)

    @property
    def high_outlier(self) -> bool:
        """True if the highest value is far from the others and may mark gaps, as 9999 does."""
        return any(part.outlier is part.highest for part in self.values)

    @property
    def range(self) -> tuple[float, float] | None:
        """The lowest and the highest value."""
        parts = [part for part in self.values if part.count]
        return (min(part.minimum for part in parts), max(part.maximum for part in parts)) if parts else None


def decide(profile: ColumnProfile, *, untyped: bool, commas: bool = False) -> Decided:
    """Return a column with its kind. `untyped` is True if any value of the format may come as text.

    With `commas`, texts such as 1,234 are numbers: the file is separated by commas, so they were in quotes.

    Raises KindFault if the kind cannot be decided, or if cells contradict the kind that was asked for.
    """
    column, texts = profile.column, profile.texts
    if profile.unusable is not None:
        raise KindFault(
            f"Expected {'numbers, words, booleans or dates' if profile.is_open else _EXPECTED[column.kind]}, found the "
            f"type {profile.unusable}. Convert the column, or leave it out with `drop`.",
            profile.unusable_row,
        )
    if not profile.is_open:
        return _as_asked(profile)
    if profile.is_dictionary:
        return _category(profile)
    kinds = [f"{kind}s" for kind, tally in profile.typed.items() if tally.fits or tally.faults]
    if len(found := [*kinds, *["texts"] * (texts.count > 0)]) > 1:
        raise KindFault(f"Found {' and '.join(found)} in one column. Write values of one kind.", texts.first)
    if not texts.count:
        return _typed(profile)
    return _of_texts(profile, untyped=untyped, commas=commas) or _category(profile)


_EXPECTED = {
    "number": "numbers",
    "boolean": "booleans",
    "date": "dates",
    "category": "words, numbers or booleans",
}

_STRINGS = (
    "Numbers sent as strings: all values of the column are strings that hold numbers. Expected numbers, or words. Send "
    "them without quotes, or name the column in `numbers=` to read them as numbers, or in `categories=` if they are "
    "labels."
)
_NO_STRINGS = (
    "Expected numbers, found a string. Send them without quotes, or name the column in `numbers=` to read numbers from "
    "strings."
)
_ORDERS: dict[DateOrder | None, str] = {
    "dmy": "day, month, year",
    "mdy": "month, day, year",
    "ymd": "year, month, day",
}
_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
_READ_AS = {"number": "finite numbers", "boolean": "true or false", "date": "dates"}


def _category(profile: ColumnProfile) -> Decided:
    return Decided(replace(profile.column, kind="category"), profile)


def _as_asked(profile: ColumnProfile) -> Decided:
    """Return a column with the kind that was asked for."""
    column = profile.column
    if column.kind == "category":
        return _category(profile)
    if profile.first_string is not None:
        raise KindFault(_NO_STRINGS, profile.first_string)
    tally = _date_tally(profile) if profile.dates else profile.typed[column.kind]
    if tally.faults:
        read_as = f"{_READ_AS[column.kind]}{_in_order(column.dates if column.kind == 'date' else None)}"
        raise KindFault(
            f"{_count(tally.faults, tally.fits + tally.faults, read_as)}. If they mark gaps, name them with `na`.",
            tally.first,
        )
    return Decided(tally.column, profile, (tally.numbers,))


def _date_tally(profile: ColumnProfile) -> Tally:
    """Return the dates in the order that fits all, or else most. Raises KindFault if the order is ambiguous."""
    fitting = [order for order in profile.dates if _fits(profile.dates[order])]
    if None not in fitting and len(fitting) > 1:
        raise KindFault(_ambiguous(fitting), profile.dates[None].first)
    if fitting:
        return profile.dates[fitting[0]]
    return max((tally for tally in profile.dates.values() if tally.is_tried), key=lambda tally: tally.fits)


def _typed(profile: ColumnProfile) -> Decided:
    """Decide a column without texts."""
    found = [tally for tally in profile.typed.values() if tally.fits or tally.faults]
    tally = found[0] if found else profile.typed["number"]
    if tally.faults:
        raise KindFault("The value is not finite. Write a finite number, or leave the gap empty.", tally.first)
    if _fits(profile.days) and tally.column.kind == "number":
        return Decided(profile.days.column, profile, (profile.days.numbers,))
    return Decided(tally.column, profile, (tally.numbers,))


def _of_texts(profile: ColumnProfile, *, untyped: bool, commas: bool) -> Decided | None:
    """Return a column of texts that is not a category, or None."""
    column, texts = profile.column, profile.texts
    number, thousands = texts.number, texts.thousands
    if column.dates == "ymd" and _fits(texts.dates["ymd"]):
        return Decided(texts.dates["ymd"].column, profile, (texts.dates["ymd"].numbers,))
    if number.is_tried and not number.faults and (number.fits or untyped):
        if not untyped:
            raise KindFault(_STRINGS, texts.first)
        return Decided(number.column, profile, (number.numbers,))
    if commas and column.thousands == "" and _fits(thousands):
        return Decided(thousands.column, profile, (number.numbers, thousands.numbers), found_thousands=True)
    if not number.fits and not texts.weak:
        if untyped and _are_booleans(texts):
            return Decided(texts.boolean.column, profile, (texts.boolean.numbers,))
        if dates := _dates(profile):
            return dates
    _refuse_disguised_numbers(profile)
    _refuse_faulty_dates(texts)
    return None


def _are_booleans(texts: TextProfile) -> bool:
    """Return True if all texts are true or false, all yes or no, or the first letters of one of these pairs."""
    if texts.is_full or texts.boolean.faults or not texts.boolean.fits:
        return False
    words = {text.strip(SPACES).lower() for text in texts.levels if text.strip(SPACES) not in GAP_TEXTS}
    return any(words <= pair for pair in _BOOLEANS)


def _dates(profile: ColumnProfile) -> Decided | None:
    """Return a column all of whose texts are dates, or None. Raises KindFault if their order is ambiguous."""
    dates = profile.texts.dates
    iso = dates.get(None)
    if iso is None:
        return None
    if iso.is_tried and iso.fits and not iso.faults:
        return Decided(replace(iso.column, dates=profile.column.dates), profile, (iso.numbers,))
    fitting = [order for order in dates if order and _fits(dates[order])]
    if not fitting:
        return None
    if len(fitting) > 1:
        raise KindFault(_ambiguous(fitting), profile.texts.first)
    tally = dates[fitting[0]]
    return Decided(tally.column, profile, (iso.numbers, tally.numbers))


def _fits(tally: Tally) -> bool:
    return tally.is_tried and tally.fits > 0 and not tally.faults


def _ambiguous(orders: Sequence[DateOrder | None]) -> str:
    readings = " and as ".join(_ORDERS[order] for order in orders)
    options = " or ".join(f"`dates={order}`" for order in orders)
    return f"The dates can be read as {readings}. Give the option {options}."


def _in_order(order: DateOrder | None) -> str:
    return "" if order is None else f" in the order {_ORDERS[order]} (`dates={order}`)"


def _refuse_disguised_numbers(profile: ColumnProfile) -> None:
    """Raise KindFault if most values are numbers, or would be with an option."""
    texts = profile.texts
    if option := option_for_numbers(texts.levels, profile.column):
        raise KindFault(
            f"The values are numbers with signs or separators that are not expected. {option} reads them as numbers; "
            "name the column in `categories` if they are labels.",
            texts.number.first or texts.first,
        )
    values = texts.number.fits + texts.number.faults
    if texts.number.is_tried and 2 * texts.number.fits > values:
        raise KindFault(
            f"{_count(texts.number.faults, values, 'finite numbers')}, but most can. If they mark gaps, "
            f"name them with `na`, as in `na=unknown`; name the column in `categories` if its values are labels.",
            texts.number.first,
        )


def _refuse_faulty_dates(texts: TextProfile) -> None:
    """Raise KindFault if most values and most distinct texts are dates, in any order."""
    given = texts.column.dates
    best = max(texts.dates.values(), key=lambda tally: tally.fits if tally.column.dates else 0)
    orders = (None, best.column.dates)
    tried = [tally for order, tally in texts.dates.items() if tally.is_tried and order in orders]
    fits = sum(tally.fits for tally in tried)
    advice = "name them with `na` if they mark gaps; name the column in `categories` if its values are labels."
    if 2 * fits > texts.count and _are_mostly_dates(texts, best.column):
        read_as = f"dates{_in_order(given) or ' of one order'}"
        raise KindFault(
            f"{_count(texts.count - fits, texts.count, read_as)}, but most can. Correct them, or {advice}",
            best.first if best.fits else tried[0].first,
        )
    others = [order for order in _ORDERS if order != given] if given else []
    if any(_are_mostly_dates(texts, replace(best.column, dates=order)) for order in others):
        raise KindFault(
            f"{_count(texts.count - fits, texts.count, f'dates{_in_order(given)}')}, but most can in another order. "
            f"Correct `dates`, or {advice}",
            best.first,
        )


def _are_mostly_dates(texts: TextProfile, column: Column) -> bool:
    values = parse_dates(pa.array(texts.levels, pa.string()), column).values
    return bool(2 * np.isfinite(values).sum() > len(values))


def _count(faults: int, values: int, kind: str) -> str:
    return f"{faults:,} of {values:,} values cannot be read as {kind}, first in this row"
