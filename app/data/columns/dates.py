"""Dates and times: days since 1970-01-01 UTC, exact to the microsecond in the years 1800 to 2140."""

import contextlib
import datetime as dt
import functools
import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np

from app.data.batch import Array
from app.data.columns.gaps import SPACES, Parsed, first_valid, is_gap, trimmed, without_gaps
from app.data.columns.numbers import as_text, is_text, parsed
from app.data.columns.options import DateOrder
from app.data.columns.schema import Column
from app.data.lazy_pyarrow import pa

# Written form of a date. iso: ISO 8601. words: with the name of the month. Others: the order of day, month and year.
DateForm: TypeAlias = Literal["iso", "words", DateOrder]

_DAY_NS = 86_400_000_000_000
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": _DAY_NS}
_FIRST_DAY = -719_162  # 0001-01-01, in days since 1970-01-01
_EPOCH = 719_163  # date.toordinal() of 1970-01-01
_NOON, _HOURS, _MINUTES = 12, 24, 60
_MAX_LENGTH = 64  # characters of a text that is inspected
_CACHED = 1 << 14  # texts whose days are cached

_NAMES = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november")
_NUMBERED = [*enumerate((*_NAMES, "december"), 1)]
_MONTHS = {name: month for month, name in _NUMBERED} | {name[:3]: month for month, name in _NUMBERED} | {"sept": 9}

_TIME = (
    r"(?:(?:T|,? +)(?P<hour>[0-9]{1,2})"
    r"(?::(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?)?"
    r"(?: ?(?P<half>[AaPp])[Mm])?(?: ?(?P<zone>Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?))?)?"
)
_D, _M, _Y, _WORD = "(?P<day>[0-9]{1,2})", "(?P<month>[0-9]{1,2})", "(?P<year>[0-9]{4})", r"(?P<month>[A-Za-z]{3,9})\.?"
_SIGN = "(?P<sign>[/.-])"
_DATES: Mapping[DateForm, tuple[str, ...]] = {
    "iso": (_Y + "-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})",),
    "words": (f"{_WORD} +{_D},? +{_Y}", rf"{_D}\.?[ -]{_WORD},?[ -]{_Y}"),
    "dmy": (f"{_D}{_SIGN}{_M}(?P=sign){_Y}",),
    "mdy": (f"{_M}{_SIGN}{_D}(?P=sign){_Y}",),
    "ymd": (f"{_Y}{_SIGN}{_M}(?P=sign){_D}", _Y + "(?P<month>[0-9]{2})(?P<day>[0-9]{2})"),
}
_PATTERNS = {form: tuple(re.compile(date + _TIME) for date in dates) for form, dates in _DATES.items()}


def parse_dates(texts: "pa.Array", column: Column) -> Parsed:
    """Return the days of a column of text. Texts that are not dates, such as 31 February, are faults.

    ISO 8601 and names of months are read in any column. `column.dates` is the order of other dates.
    """
    texts = without_gaps(trimmed(texts), column)
    if (type_ := _timestamp_type(texts)) is not None:
        with contextlib.suppress(pa.ArrowInvalid):
            days = _days(texts.cast(type_))
            if not (days < _FIRST_DAY).any():
                return Parsed(days)
    unique = texts.dictionary_encode()
    values = [_day(text, column.dates) for text in unique.dictionary.to_pylist()]
    return parsed(unique.dictionary, np.array(values, np.float64)).take(unique.indices)


def _timestamp_type(texts: "pa.Array") -> "pa.DataType | None":
    """Return the type to which the first text can be cast, or None."""
    first = first_valid(texts)
    for type_ in (pa.timestamp("us"), pa.timestamp("us", "UTC")):  # ISO 8601 without and with a zone
        with contextlib.suppress(pa.ArrowInvalid):
            first.cast(type_)
            return type_
    return None


def _day(text: str, order: DateOrder | None) -> float | None:
    """Return the days of a text, or None if it is not a date."""
    return _cached_day(text, order) if len(text) <= _MAX_LENGTH else None


@functools.lru_cache(_CACHED)
def _cached_day(text: str, order: DateOrder | None) -> float | None:
    for form in ("iso", "words", order):
        if form is not None and (day := _in_form(text, form)) is not None:
            return day
    return None


def _in_form(text: str, form: DateForm) -> float | None:
    """Return the days of a text in one form, or None if it does not have this form."""
    match = next((match for pattern in _PATTERNS[form] if (match := pattern.fullmatch(text))), None)
    if match is None:
        return None
    parts = match.groupdict()
    month = _MONTHS.get(parts["month"].lower(), 0) if form == "words" else int(parts["month"])
    try:
        day = dt.date(int(parts["year"]), month, int(parts["day"])).toordinal() - _EPOCH
    except ValueError:
        return None
    if parts["hour"] is None:
        return float(day)
    nanoseconds = _nanoseconds(**{name: parts[name] or "" for name in ("hour", "minute", "second", "fraction", "half")})
    offset = _offset(parts["zone"] or "")
    if nanoseconds is None or offset is None:
        return None
    days, rest = divmod(nanoseconds - offset * _MINUTES * 1_000_000_000, _DAY_NS)
    return day + days + rest / _DAY_NS


def _nanoseconds(hour: str, minute: str, second: str, fraction: str, half: str) -> int | None:
    """Return the nanoseconds since midnight, or None for a time that does not exist."""
    hours, minutes, seconds = int(hour), int(minute or 0), int(second or 0)
    if half:
        if not 1 <= hours <= _NOON:
            return None
        hours = hours % _NOON + _NOON * (half in "Pp")
    if hours >= _HOURS or minutes >= _MINUTES or seconds >= _MINUTES:
        return None
    return ((hours * _MINUTES + minutes) * _MINUTES + seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))


def _offset(zone: str) -> int | None:
    """Return the offset of a zone from UTC in minutes, or None if it does not exist."""
    if zone in ("", "Z", "UTC"):
        return 0
    hours, minutes = int(zone[1:3]), int(zone[3:].removeprefix(":") or 0)
    if hours >= _HOURS or minutes >= _MINUTES:
        return None
    return (hours * _MINUTES + minutes) * (-1 if zone[0] == "-" else 1)


def _days(moments: "pa.Array") -> Array:
    """Return the days of a column of Arrow timestamps, with NaN for null."""
    per_day = _PER_DAY[moments.type.unit]
    numbers = moments.view(pa.int64())
    missing = numbers.is_null().to_numpy(zero_copy_only=False) if numbers.null_count else None
    whole, rest = np.divmod(numbers.fill_null(0).to_numpy(), per_day)
    days: Array = whole.astype(np.float64) + rest / per_day
    if missing is not None:
        days[missing] = np.nan
    return days


def dates_of(cells: "pa.Array", column: Column) -> Parsed:
    """Return the days of cells of any type. Raises TypeError if no value of the type is a date."""
    type_ = cells.type
    if isinstance(cells, pa.DictionaryArray):
        return dates_of(cells.dictionary, column).take(cells.indices)
    if is_text(type_):
        return parse_dates(as_text(cells), column)
    if pa.types.is_timestamp(type_):
        return Parsed(_days(cells))
    if pa.types.is_date64(type_):
        return Parsed(_days(cells.view(pa.int64()).view(pa.timestamp("ms"))))
    if pa.types.is_integer(type_) and column.dates == "ymd":
        return parse_dates(cells.cast(pa.string()), column)
    if pa.types.is_date32(type_):
        cells = cells.view(pa.int32())
    elif not pa.types.is_null(type_):
        raise TypeError
    return Parsed(np.array(cells.cast(pa.float64()).to_numpy(zero_copy_only=False)))


def date_of(value: object, column: Column) -> float | None:
    """Return the days of a value of a JSON document, NaN for a gap, or None if it is not a date."""
    if type(value) is int and column.dates == "ymd":
        value = str(value)
    if is_gap(value, column):
        return np.nan
    return _day(value.strip(SPACES), column.dates) if isinstance(value, str) else None
