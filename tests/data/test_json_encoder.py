"""Values of JSON rows become the columns of a design as the cells of a file do."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import FEATURES, encoded, rows_of
from numpy.testing import assert_array_equal

from app.data.columns.dates import parse_dates
from app.data.columns.encoder import Encoder
from app.data.columns.schema import Column
from app.data.json_columns import MAX_KNOWN_DATES, iso_days
from app.data.json_encoder import JsonEncoder, OrdinaryEncoder
from app.errors import InvalidInput

POINTER = "/instances"
ROW: dict[str, Any] = {"species": "Gentoo", "age": 4.5, "wild": True, "island": "Dream", "seen": "2008-02-29"}
EXPECTED = [0.0, 1.0, 4.5, 1.0, 1.0, 0.0, 13938.0]


def design(rows: list[Any], *columns: Column, missing: bool = False, unknown: Any = "refuse") -> Any:
    encoder = JsonEncoder(columns or FEATURES)
    return encoder.design(encoder.read(rows, POINTER, missing=missing, unknown=unknown).codes)


def refused(rows: list[Any], *columns: Column, **options: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as error:
        design(rows, *columns, **options)
    return error.value


def test_objects_and_arrays_become_the_same_columns() -> None:
    backwards = dict(reversed(ROW.items()))
    assert_array_equal(design([ROW, backwards]), [EXPECTED, EXPECTED])
    assert_array_equal(design([[*ROW.values()]]), [EXPECTED])


@pytest.mark.parametrize("missing", ["drop", "indicator", "fill"])
@pytest.mark.parametrize("unknown", ["null", "reference"])
def test_values_become_what_the_cells_of_a_file_do(missing: Any, unknown: Any) -> None:
    fills: dict[str, Any] = {"species": "Gentoo", "age": 40.25, "wild": 1.0, "island": "Dream", "seen": 14000.0}
    columns = [
        Column(each.name, each.kind, each.levels, missing=missing, fill=None if missing == "drop" else fills[each.name])
        for each in FEATURES
    ]
    rows = rows_of(FEATURES, 60)
    for index, values in enumerate(rows.values()):
        values[index::7] = [None] * len(values[index::7])
    rows["species"][3::5] = ["Emperor"] * len(rows["species"][3::5])
    cells = pa.RecordBatch.from_pydict(rows)
    expected = Encoder(columns, unknown=unknown).encode(cells, 1)
    found = design([list(row) for row in zip(*rows.values(), strict=True)], *columns, missing=True, unknown=unknown)
    assert_array_equal(found, expected)
    assert np.isnan(found).any() == (missing == "drop" or unknown == "null")


def test_ordinary_values_become_the_same_columns_by_the_fast_encoder() -> None:
    rows = rows_of(FEATURES, 30)
    by_row = list(zip(*rows.values(), strict=True))
    fast, expected = OrdinaryEncoder(JsonEncoder(FEATURES)), encoded(FEATURES, rows)
    assert_array_equal(fast.few(by_row), expected)
    assert_array_equal(fast.matrix(by_row), expected)
    indicators = [Column(each.name, each.kind, each.levels, "indicator", fill=0.0) for each in FEATURES]
    expected = Encoder(indicators).encode(pa.RecordBatch.from_pydict(rows), 1)
    assert_array_equal(OrdinaryEncoder(JsonEncoder(indicators)).few(by_row), expected)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (FEATURES[0], "Emperor"),
        (FEATURES[0], ""),
        (FEATURES[4], "31/12/2008"),
        (FEATURES[4], "2008-02-30"),
        (FEATURES[4], "NA"),
        (Column("age", na=("-999",)), -999.0),
        (Column("seen", "date", na=("1900-01-01",)), "1900-01-01"),
        (Column("wild", "boolean", na=("yes",)), "yes"),
    ],
)
def test_the_fast_encoder_leaves_gaps_and_unknown_values_to_the_other(column: Column, value: Any) -> None:
    encoder = OrdinaryEncoder(JsonEncoder([column]))
    for encode in (encoder.few, encoder.matrix):
        with pytest.raises((LookupError, TypeError, ValueError)):
            encode([(value,)])


MOMENTS = st.datetimes(datetime(1800, 1, 1), datetime(2140, 1, 1))  # noqa: DTZ001
ZONES = st.none() | st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours)))


@given(MOMENTS, ZONES, st.sampled_from("T "), st.booleans())
def test_dates_are_read_as_those_of_files_to_the_last_bit(
    moment: datetime, zone: timezone | None, separator: str, is_day: bool
) -> None:
    texts = [moment.date().isoformat()] if is_day else []
    texts.append(moment.replace(microsecond=0, tzinfo=zone).isoformat(separator))
    texts.append(moment.replace(microsecond=0, tzinfo=UTC).isoformat(separator).replace("+00:00", "Z"))
    expected = parse_dates(pa.array(texts), Column("date", "date"))
    assert [iso_days(text) for text in texts] == expected.values.tolist()


@settings(max_examples=300)
@given(st.text(st.sampled_from("0123456789-T:Z+ W.,/x\u0661"), min_size=1, max_size=26) | st.text(max_size=12))
def test_a_text_is_a_date_only_if_it_is_one_in_a_file(text: str) -> None:
    try:
        days = iso_days(text)
    except (ValueError, OverflowError):
        return
    assert parse_dates(pa.array([text]), Column("date", "date")).values.tolist() == [days]


def test_any_number_of_dates_is_read_in_bounded_memory() -> None:
    encoder = OrdinaryEncoder(JsonEncoder([Column("seen", "date")]))
    start = np.datetime64("2000-01-01")
    for first in range(0, 3 * MAX_KNOWN_DATES, 1000):
        rows = [(str(start + day),) for day in range(first, first + 1000)]
        assert_array_equal(encoder.few(rows), [[10957.0 + day] for day in range(first, first + 1000)])


def test_each_faulty_value_is_reported_with_its_place_and_what_was_expected() -> None:
    rows = [{**ROW, "age": "x", "wild": 3}, {**ROW, "seen": "31/12/2008", "island": ["Dream"]}, {**ROW, "age": True}]
    error = refused(rows)
    assert [detail.pointer for detail in error.details] == [
        *("/instances/0/age", "/instances/0/wild", "/instances/1/island", "/instances/1/seen", "/instances/2/age"),
    ]
    for detail, words in zip(
        error.details,
        ["a number", "true or false", "a word", "2000-12-31", "Send 1 or 0."],
        strict=True,
    ):
        assert words in detail.message


def test_a_gap_is_refused_unless_it_may_be_missing_or_is_filled() -> None:
    for name, value in [("species", None), ("species", ""), ("age", None), ("wild", None), ("seen", None)]:
        (detail,) = refused([{**ROW, name: value}]).details
        assert detail.pointer == f"/instances/0/{name}"
        assert "`missing`: `null`" in detail.message
    rows = [{**ROW, "species": None}, {**ROW, "seen": "NA"}, ROW]
    assert np.isnan(design(rows, missing=True)).any(axis=1).tolist() == [True, True, False]


@pytest.mark.parametrize("name", ROW)
def test_nan_is_a_gap_as_null_is_in_every_kind_of_column(name: str) -> None:
    rows = [{**ROW, name: gap} for gap in (None, np.nan)]
    null, nan = design(rows, missing=True)
    assert np.isnan(null).any()
    assert_array_equal(null, nan)
    assert len(refused(rows).details) == 2


def test_an_unseen_level_is_shown_to_its_sender_and_not_in_the_message_that_is_logged() -> None:
    species = Column("species", "category", tuple(f"level {n}" for n in range(100)))
    error = refused([["secret\u200b" + "x" * 200]], species)
    (detail,) = error.details
    assert "secret\\u200b" in detail.message
    assert "x" * 101 not in detail.message
    assert '"level 19"' in detail.message
    assert '"level 20"' not in detail.message
    assert "secret" not in error.message
    assert "level 1" not in error.message
    assert "/instances/0/0" in error.message


def test_unseen_levels_are_null_or_the_reference_level_on_request() -> None:
    encoder, rows = JsonEncoder(FEATURES), [{**ROW, "species": "Emperor"}, {**ROW, "species": "emperor"}, ROW]
    found = encoder.read(rows, POINTER, missing=False, unknown="null")
    assert found.unseen == {"species": 2}
    assert np.isnan(encoder.design(found.codes)[:, :2]).all(axis=1).tolist() == [True, True, False]
    replaced = encoder.read(rows, POINTER, missing=False, unknown="reference")
    assert replaced.unseen == {}
    assert_array_equal(encoder.design(replaced.codes)[:2], [[0.0, 0.0, *EXPECTED[2:]]] * 2)


def test_levels_that_were_numbers_or_booleans_in_the_file_may_be_so_in_json() -> None:
    area = Column("area", "category", ("1", "2", "true"))
    assert_array_equal(design([["1"], [2], [2.0], [True]], area), [[0, 0], [1, 0], [1, 0], [0, 1]])


def test_booleans_may_be_words_or_numbers_and_numbers_may_have_signs() -> None:
    columns = (Column("wild", "boolean"), Column("price", thousands=",", strip=("$",)))
    assert_array_equal(design([["yes", "$1,234.5"], [0, 2], [True, "3"]], *columns), [[1, 1234.5], [0, 2], [1, 3]])


def test_a_row_of_another_shape_is_refused() -> None:
    assert refused([ROW, {**ROW, "more": 1}]).details[0].pointer == "/instances/1/more"
    assert refused([[1, 2]]).details[0].pointer == "/instances/0"
    assert refused([ROW, [*ROW.values()]]).details[0].pointer == "/instances/1"
    assert refused([5]).details[0].pointer == "/instances/0"
    assert refused(["Gentoo", ["Gentoo"]], FEATURES[0]).details[0].pointer == "/instances/0"
    assert_array_equal(design(["Gentoo", "Adelie"], FEATURES[0]), [[0, 1], [0, 0]])


def test_many_texts_of_a_column_are_read_at_once() -> None:
    seen = Column("seen", "date", dates="dmy")
    days = [f"{1 + n % 28:02d}/{1 + n // 28 % 12:02d}/{1990 + n // 336}" for n in range(3000)]
    found = design([[day] for day in days], seen)
    assert_array_equal(found[:, 0], parse_dates(pa.array(days), seen).values)
    assert refused([[day] for day in days] + [["x"]], seen).details[0].pointer == "/instances/3000/0"


def test_columns_with_many_levels_are_made_for_some_rows_at_a_time() -> None:
    wide = Column("name", "category", tuple(f"{n:04d}" for n in range(1600)))
    encoder = JsonEncoder([wide])
    rows = [[f"{n % 1600:04d}"] for n in range(50_000)]
    found = encoder.read(rows, POINTER, missing=False, unknown="refuse")
    assert found.codes.nbytes == 8 * len(rows)
    assert 8 * encoder.rows_at_once * encoder.width <= 1 << 21
