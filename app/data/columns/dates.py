"""Dates and times: days since 1970-01-01 UTC, exact to the microsecond in the years 1800 to 2140."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.data.batch import Array
from app.data.columns.gaps import Parsed, is_gap, trimmed, without_gaps
from app.data.columns.numbers import as_text, is_text, parsed
from app.data.columns.options import DateOrder
from app.data.columns.schema import Column
from app.data.lazy_pyarrow import pa

# How a text writes a date. iso: ISO 8601. words: with the name of the month. The others are orders of day, month, year.
DateForm: TypeAlias = Literal["iso", "words", DateOrder]
FORMS: tuple[DateForm, ...] = ("iso", "words", "dmy", "mdy", "ymd")

_DAY_NS = 86_400_000_000_000
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": _DAY_NS}
_MONTHS_OF_YEAR, _NOON, _HOURS, _MINUTES = 12, 12, 24, 60  # of an hour, and seconds of a minute
_YEAR_1 = -719_162  # in days since 1970

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october")
_MONTH_NUMBERS = {
    **{name: number for number, name in enumerate((*_MONTHS, "november", "december"), 1)},
    **{name[:3]: number for number, name in enumerate((*_MONTHS, "november", "december"), 1)},
    "sept": 9,
}
_TIME = (
    r"(?:(?:T|,? +)(?P<hour>[0-9]{1,2})"
    r"(?::(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?)?"
    r"(?: ?(?P<half>[AaPp])[Mm])?(?: ?(?P<zone>Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?))?)?"
)
_D, _M, _Y = "(?P<day>[0-9]{1,2})", "(?P<month>[0-9]{1,2})", "(?P<year>[0-9]{4})"
_WORD = r"(?P<word>[A-Za-z]{3,9})\.?"
_PATTERNS: Mapping[DateForm, tuple[str, ...]] = {
    "iso": (_Y + "-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})",),
    "words": (f"{_WORD} +{_D},? +{_Y}", rf"{_D}\.?[ -]{_WORD},?[ -]{_Y}"),
    "dmy": tuple(f"{_D}{sep}{_M}{sep}{_Y}" for sep in ("/", "-", r"\.")),
    "mdy": tuple(f"{_M}{sep}{_D}{sep}{_Y}" for sep in ("/", "-", r"\.")),
    "ymd": (*(f"{_Y}{sep}{_M}{sep}{_D}" for sep in ("/", "-", r"\.")), _Y + "(?P<month>[0-9]{2})(?P<day>[0-9]{2})"),
}


def parse_dates(texts: "pa.Array", column: Column) -> Parsed:
    """Return the days of a column of text. Texts that are no dates, such as 31 February, are faults.

    ISO 8601 and names of months are read in any column. `column.dates` is the order of other dates.
    """
    texts = without_gaps(trimmed(texts), column)
    for type_ in (pa.timestamp("us"), pa.timestamp("us", "UTC")):  # ISO 8601 without and with a zone
        try:
            days = _days(texts.cast(type_))
        except pa.ArrowInvalid:
            continue
        if not (days < _YEAR_1).any():
            return parsed(texts, days)
    unique = texts.dictionary_encode()
    values = np.full(len(unique.dictionary), np.nan)
    for form in _forms(column.dates):
        missing = np.isnan(values)
        if missing.any():
            values[missing] = _read(unique.dictionary.filter(pa.array(missing)), form)
    return parsed(unique.dictionary, values).take(unique.indices)


def possible_forms(texts: "pa.Array") -> frozenset[DateForm]:
    """Return the forms in which all texts are dates. Nulls are ignored; without texts, all forms are possible."""
    texts = trimmed(texts).unique().drop_null()
    return frozenset(form for form in FORMS if not np.isnan(_read(texts, form)).any())


def _forms(order: DateOrder | None) -> tuple[DateForm, ...]:
    return ("iso", "words") if order is None else ("iso", "words", order)


def _read(texts: "pa.Array", form: DateForm) -> Array:
    """Return the days of texts in one form, with NaN for others."""
    values = np.full(len(texts), np.nan)
    for pattern in _PATTERNS[form]:
        fields = pa.compute.extract_regex(texts, f"^{pattern}{_TIME}$")
        found = fields.is_valid().to_numpy(zero_copy_only=False)
        if found.any():
            values[found] = _moments(fields.filter(pa.array(found)))
    return values


def _moments(fields: "pa.StructArray") -> Array:
    """Return days since 1970 for the parts of dates, with NaN for days and times that do not exist."""
    names = {fields.type.field(index).name for index in range(fields.type.num_fields)}
    if "word" in names:
        lower = pa.compute.utf8_lower(fields.field("word"))
        places = pa.compute.index_in(lower, value_set=pa.array(list(_MONTH_NUMBERS), lower.type)).fill_null(-1)
        month = np.array([*_MONTH_NUMBERS.values(), 0])[places.to_numpy()]
    else:
        month = _integers(fields.field("month"))
    first = (_integers(fields.field("year")) - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month - 1)
    day, start = _integers(fields.field("day")), first.astype("datetime64[D]").astype(np.int64)
    length = (first + 1).astype("datetime64[D]").astype(np.int64) - start
    hour, minute, second = (_integers(fields.field(name)) for name in ("hour", "minute", "second"))
    exists = (month >= 1) & (month <= _MONTHS_OF_YEAR) & (day >= 1) & (day <= length) & (start >= _YEAR_1)
    exists &= (hour < _HOURS) & (minute < _MINUTES) & (second < _MINUTES)
    half = pa.compute.utf8_lower(fields.field("half")).to_numpy(zero_copy_only=False)
    exists &= (half == "") | ((hour >= 1) & (hour <= _NOON))
    hour = np.where(half == "", hour, hour % _NOON + _NOON * (half == "p"))
    offset, is_offset = _offsets(fields.field("zone"))
    fraction = _integers(pa.compute.utf8_rpad(fields.field("fraction"), 9, "0"))
    nanoseconds = ((hour * _MINUTES + minute - offset) * _MINUTES + second) * 1_000_000_000 + fraction
    return np.where(exists & is_offset, _of_parts(start + day - 1, nanoseconds), np.nan)


def _integers(texts: "pa.Array") -> NDArray[np.int64]:
    """Return the integers of digits; 0 for an empty text."""
    integers: NDArray[np.int64] = (
        pa.compute.if_else(pa.compute.equal(texts, ""), "0", texts).cast(pa.int64()).to_numpy()
    )
    return integers


def _offsets(zones: "pa.Array") -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the minutes that zones are ahead of UTC, and which of them exist."""
    encoded = zones.dictionary_encode()
    minutes = [_offset(zone) for zone in encoded.dictionary.to_pylist()]
    places = encoded.indices.to_numpy()
    exists = np.array([offset is not None for offset in minutes])
    return np.array([offset or 0 for offset in minutes], np.int64)[places], exists[places]


def _offset(zone: str) -> int | None:
    """Return the minutes that a zone is ahead of UTC, or None if it does not exist."""
    if zone in ("", "Z", "UTC"):
        return 0
    hours, minutes = int(zone[1:3]), int(zone[3:].removeprefix(":") or 0)
    if hours >= _HOURS or minutes >= _MINUTES:
        return None
    return (hours * _MINUTES + minutes) * (-1 if zone[0] == "-" else 1)


def _of_parts(days: NDArray[np.int64], nanoseconds: NDArray[np.int64]) -> Array:
    """Return days, with the nanoseconds of a day as a fraction. There may be more or less than a day of them."""
    whole, rest = np.divmod(nanoseconds, _DAY_NS)
    return (days + whole).astype(np.float64) + rest / _DAY_NS


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
    """Return the days of a value of a JSON document, NaN for a gap, or None if it is no date."""
    if isinstance(value, int) and not isinstance(value, bool) and column.dates == "ymd":
        value = str(value)
    if is_gap(value, column):
        return np.nan
    if not isinstance(value, str):
        return None
    result = parse_dates(pa.array([value], pa.string()), column)
    return None if result.faults is not None else float(result.values[0])
