import datetime as dt
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from app.data.columns.dates import date_of, dates_of, parse_dates
from app.data.columns.gaps import Parsed
from app.data.columns.options import DateOrder
from app.data.columns.schema import Column

ISO = Column("d", kind="date")
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
DAY_US = 86_400_000_000
DATES = st.dates()
MOMENTS = st.datetimes(*(dt.datetime(year, 1, 1) for year in (1800, 2140)))  # noqa: DTZ001 - hypothesis adds none
ZONES = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
ORDERS: dict[DateOrder, str] = {"dmy": "{d}{s}{m}{s}{y}", "mdy": "{m}{s}{d}{s}{y}", "ymd": "{y}{s}{m}{s}{d}"}


def ordered(order: DateOrder | None) -> Column:
    return Column("d", kind="date", dates=order)


def parse(*texts: str | None, order: DateOrder | None = None) -> Parsed:
    return parse_dates(pa.array(texts, pa.string()), ordered(order))


def day(text: str, order: DateOrder | None = None) -> float:
    """Return the days of a text, which are the same as a cell and as a value of JSON."""
    result = parse(text, order=order)
    value = date_of(text, ordered(order))
    assert (value is None) == (result.faults is not None)
    if value is None:
        return math.nan
    assert value == result.values[0]
    return value


def microseconds(days: float) -> int:
    return round(Fraction(days) * DAY_US)


def since_1970(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


@settings(max_examples=50)
@given(DATES)
def test_a_date_is_a_whole_number_of_days(date: dt.date) -> None:
    expected = (date - EPOCH.date()).days
    assert day(date.isoformat()) == expected
    for name in ("%B", "%b"):
        month = date.strftime(name)
        for text in (f"{month} {date.day} {date.year:04}", f"{month} {date.day}, {date.year:04}"):
            assert day(text) == expected
        assert day(f"{date.day} {month} {date.year:04}") == expected
        assert day(f"{date.day:02}-{month.upper()}-{date.year:04}") == expected


@settings(max_examples=40)
@given(DATES, st.sampled_from(sorted(ORDERS)), st.sampled_from("/-."), st.booleans())
def test_the_order_of_day_and_month_is_an_option(date: dt.date, order: DateOrder, sign: str, padded: bool) -> None:
    width = 2 if padded else 1
    parts = {"d": f"{date.day:0{width}}", "m": f"{date.month:0{width}}", "y": f"{date.year:04}", "s": sign}
    text = ORDERS[order].format(**parts)
    assert day(text, order) == (date - EPOCH.date()).days


@settings(max_examples=40)
@given(st.lists(MOMENTS, min_size=1, max_size=4), st.sampled_from("T "))
def test_a_time_is_exact_to_the_microsecond(moments: list[dt.datetime], separator: str) -> None:
    result = parse(*(moment.isoformat(separator) for moment in moments))
    assert result.faults is None
    expected = [since_1970(moment.replace(tzinfo=dt.UTC)) for moment in moments]
    assert list(map(microseconds, result.values.tolist())) == expected
    assert [date_of(moment.isoformat(separator), ISO) for moment in moments] == result.values.tolist()


@settings(max_examples=40)
@given(st.lists(st.tuples(MOMENTS, ZONES), min_size=1, max_size=4), st.booleans())
def test_a_zone_offset_is_subtracted(zoned: list[tuple[dt.datetime, dt.timezone]], colon: bool) -> None:
    moments = [moment.replace(tzinfo=zone) for moment, zone in zoned]
    texts = [moment.isoformat() if colon else moment.strftime("%Y-%m-%d %H:%M:%S.%f%z") for moment in moments]
    result = parse(*texts)
    assert result.faults is None
    assert list(map(microseconds, result.values.tolist())) == list(map(since_1970, moments))
    assert [date_of(text, ISO) for text in texts] == result.values.tolist()


@settings(max_examples=40)
@given(MOMENTS, st.sampled_from(sorted(ORDERS)))
def test_a_time_may_follow_a_date_in_any_form(moment: dt.datetime, order: DateOrder) -> None:
    date = ORDERS[order].format(d=moment.day, m=moment.month, y=moment.year, s="/")
    expected = since_1970(moment.replace(tzinfo=dt.UTC))
    assert microseconds(day(f"{date} {moment:%H:%M:%S.%f}", order)) == expected
    assert microseconds(day(f"{date} {moment:%I:%M:%S.%f %p}", order)) == expected
    assert microseconds(day(f"{moment:%b %d %Y, %H:%M:%S.%f}")) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("2021-02-31", "2021-02-29", "2021-13-01", "2021-00-10", "2021-01-00", "0000-01-01", "31 Feb 2021"),
        *("Foo 1 2021", "2020-01-01 24:00", "2020-01-01T12:60", "2020-01-01T12:00:60"),
        *("2020-01-01T12:00+24:00", "2020-01-01T12:00+0060", "2020-01-01 13:00 PM", "2020-01-01 0:00 AM"),
        *("2020-01-01Z", "2020-1-1", "20-01-01", "2020-01", "2020", "20200101", "12:00", "2020-W01-1"),
        *("2020-001", "Jan 2020", "1/2/2020", "2020/01/02", "yesterday", "\u0662020-01-01", "1.5"),
    ],
)
def test_a_text_that_is_no_date_is_a_fault(text: str) -> None:
    assert math.isnan(day(text))
    result = parse("2020-01-01", text, None)
    assert result.first_fault == 1
    assert_array_equal(result.gaps, [False, False, True])


@pytest.mark.parametrize("text", ["31/02/2020", "13/13/2020", "1/2/20", "1/2-2020", "2020/13/01", "1 2 2020"])
@pytest.mark.parametrize("order", sorted(ORDERS))
def test_an_invalid_date_is_a_fault_in_any_order(text: str, order: DateOrder) -> None:
    assert math.isnan(day(text, order))


TWELVE = 18_262.5


@pytest.mark.parametrize(
    "text",
    [
        *("2020-01-01T12", "2020-01-01 12:00", "2020-01-01T12:00Z", "2020-01-01T12:00:00.000000000Z"),
        *("2020-01-01  12:00 UTC", "2020-01-01T13:00+01", "2020-01-01T11:30:00 -0030", "Jan 1 2020 12 PM"),
        *("1. January 2020 12:00", " 2020-01-01T12 ", "2020-01-01T12:00:00,0"),
    ],
)
def test_a_time_may_be_short_and_have_a_zone(text: str) -> None:
    assert day(text) == TWELVE


def test_a_long_text_is_no_date() -> None:
    text = f"Jan 1{' ' * 60}2020"
    assert math.isnan(day(text))


@settings(max_examples=40)
@given(st.text("0123456789-:T. +ZPMJan/", min_size=8, max_size=22))
def test_a_single_text_is_read_as_in_a_column(text: str) -> None:
    day(text)
    day(text, "dmy")


@settings(max_examples=40)
@given(
    st.from_regex(r"\A[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-3][0-9](:[0-7][0-9]){0,2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2})?\Z")
)
def test_a_text_near_iso_is_read_as_in_a_column(text: str) -> None:
    day(text)


MOMENT = dt.datetime(2001, 2, 3, 4, 5, 6, 789_000)  # noqa: DTZ001 - Arrow has times without a zone


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "+01:00", "Europe/Berlin", "Nowhere/Unknown"])
def test_timestamps_have_any_unit_and_zone(unit: str, zone: str | None) -> None:
    moment = MOMENT.replace(microsecond=0) if unit == "s" else MOMENT
    cells = pa.array([moment, None]).cast(pa.timestamp(unit)).view(pa.timestamp(unit, zone))
    result = dates_of(cells, ISO)
    assert result.faults is None
    assert microseconds(float(result.values[0])) == since_1970(moment.replace(tzinfo=dt.UTC))
    assert_array_equal(result.gaps, [False, True])


@settings(max_examples=40)
@given(st.lists(DATES | st.none(), min_size=1))
def test_dates_are_days(dates: list[dt.date | None]) -> None:
    expected = [math.nan if date is None else (date - EPOCH.date()).days for date in dates]
    for type_ in (pa.date32(), pa.date64(), pa.string()):
        texts: list[Any] = [date and date.isoformat() for date in dates] if type_ == pa.string() else dates
        assert_array_equal(dates_of(pa.array(texts, type_), ISO).values, expected)
        assert_array_equal(dates_of(pa.array(texts, type_).dictionary_encode(), ISO).values, expected)


def test_integers_are_dates_only_as_year_month_and_day() -> None:
    assert_array_equal(dates_of(pa.array([20_200_101, None]), ordered("ymd")).values, [18_262, np.nan])
    assert date_of(20_200_101, ordered("ymd")) == 18_262
    assert date_of(20_200_101, ISO) is None
    with pytest.raises(TypeError):
        dates_of(pa.array([20_200_101]), ISO)


def test_other_types_are_no_dates() -> None:
    for cells in (pa.array([1.5]), pa.array([True]), pa.array([1], pa.duration("s")), pa.array([1], pa.time32("s"))):
        with pytest.raises(TypeError):
            dates_of(cells, ISO)
    assert date_of(1.5, ISO) is None


@pytest.mark.parametrize("text", ["", " ", "NA", "NaT", "null", "unknown"])
def test_a_gap_is_no_fault(text: str) -> None:
    column = Column("d", kind="date", na=("unknown",))
    result = parse_dates(pa.array([text, "2020-01-01"]), column)
    assert result.faults is None
    assert_array_equal(result.values, [np.nan, 18_262])
    assert math.isnan(date_of(text, column) or 0)
