import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from app.data.columns.gaps import GAP_TEXTS, WEAK_GAP_TEXTS, Parsed
from app.data.columns.numbers import number_of, numbers_of, parse_numbers
from app.data.columns.options import Decimal as DecimalSign
from app.data.columns.options import Thousands
from app.data.columns.schema import Column

PLAIN = Column("x")
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
DIGITS = st.from_regex(r"\A[0-9]{1,40}(\.[0-9]{0,40})?(e[+-]?[0-9]{1,2})?\Z")


def parse(*texts: str | None, column: Column = PLAIN) -> Parsed:
    return parse_numbers(pa.array(texts, pa.string()), column)


def is_fault(text: str, column: Column = PLAIN) -> bool:
    return parse(text, column=column).first_fault == 0


@settings(max_examples=30)
@given(st.lists(DIGITS, max_size=5))
def test_numbers_are_rounded_as_python_rounds_them(texts: list[str]) -> None:
    assert_array_equal(parse(*texts).values, [float(text) for text in texts])


@given(FLOATS)
def test_the_shortest_text_of_a_number_is_that_number(number: float) -> None:
    assert parse(repr(number)).values[0] == number


@given(FLOATS)
def test_a_decimal_comma_is_a_point(number: float) -> None:
    (value,) = parse(repr(number).replace(".", ","), column=Column("x", decimal=",")).values
    assert value == number


@pytest.mark.parametrize(
    ("separator", "decimal"), [(",", "."), (" ", "."), ("'", "."), ("_", "."), (".", ","), (" ", ",")]
)
@given(st.decimals(-(10**12), 10**12, places=3))
def test_separators_between_thousands_are_removed(separator: Thousands, decimal: DecimalSign, number: Decimal) -> None:
    text = f"{number:,}".translate({ord(","): separator, ord("."): decimal})
    column = Column("x", decimal=decimal, thousands=separator)
    assert parse(text, column=column).values[0] == float(number)


@pytest.mark.parametrize(
    "text", ["1,23", "1,2345", "12,34,567", "1234,567", ",123", "1,234.5,678", "1.5,000", "1,,234"]
)
def test_thousands_come_in_groups_of_three(text: str) -> None:
    assert is_fault(text, Column("x", thousands=","))


def test_spaces_between_thousands_are_of_any_width() -> None:
    column = Column("x", thousands=" ")
    assert_array_equal(parse("1 234", "1\u00a0234", "1\u202f234", "1\u2009234", column=column).values, [1234] * 4)


def test_a_point_is_a_fault_if_the_decimal_sign_is_a_comma() -> None:
    assert is_fault("1.5", Column("x", decimal=","))
    assert is_fault("1.5", Column("x", decimal=",", thousands="."))
    assert is_fault("1,5")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("$5", 5),
        ("-$5", -5),
        ("$-5", -5),
        ("$ 5.50", 5.5),
        ("5\u00a0EUR", 5),
        ("12.5%", 12.5),
        ("12.5 %", 12.5),
        ("$1,234", 1234),
        ("+5%", 5),
        ("5", 5),
    ],
)
def test_signs_are_removed_and_a_percentage_is_not_divided(text: str, number: float) -> None:
    column = Column("x", strip=("$", "%", "EUR"), thousands=",")
    assert parse(text, column=column).values[0] == number


@pytest.mark.parametrize("text", ["$", "$$5", "5$5", "-$-5", "5 % %", "5kg", "$ x"])
def test_what_remains_without_signs_must_be_a_number(text: str) -> None:
    assert is_fault(text, Column("x", strip=("$", "%")))


@pytest.mark.parametrize("text", ["+1", " 1 ", "\t1.", "\u00a01", "+1.0e+0"])
def test_a_plus_and_spaces_around_a_number_are_allowed(text: str) -> None:
    assert parse(text).values[0] == 1


@pytest.mark.parametrize(
    "text",
    [
        *("inf", "-Infinity", "1e999", "1_0", "(10)", "10-", "0x10", "1.0D+01", "\u221210", "\u0663", "1 0"),
        *("+-1", "++1", "--1", "1e", "e5", ".e5", "nan(1)", "NAN", "none", "unknown", "*", "true"),
        *("2020-01-01", "1,000", "x"),
    ],
)
def test_a_text_that_is_no_finite_number_is_a_fault(text: str) -> None:
    assert is_fault(text)
    assert number_of(text, PLAIN) is None


@pytest.mark.parametrize("text", sorted(GAP_TEXTS | WEAK_GAP_TEXTS))
def test_gaps_are_not_numbers(text: str) -> None:
    result = parse(f" {text} ", "1", None)
    assert result.faults is None
    assert_array_equal(result.gaps, [True, False, True])


def test_the_first_fault_is_found_among_gaps_and_numbers() -> None:
    result = parse("1", None, "NA", "x", "2", "y")
    assert result.first_fault == 3
    assert_array_equal(result.gaps, [False, True, True, False, False, False])
    assert_array_equal(result.values, [1, np.nan, np.nan, np.nan, 2, np.nan])


def test_further_texts_may_mark_a_gap() -> None:
    column = Column("x", na=("unknown", "-999"))
    assert_array_equal(parse("unknown", "-999", "999", column=column).gaps, [True, True, False])
    assert_array_equal(numbers_of(pa.array([-999, 999]), column).gaps, [True, False])
    assert number_of(-999, column) is not None
    assert math.isnan(number_of(-999.0, column) or 0)


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([1, None, 3], pa.int8()),
        pa.array([1, None, 3], pa.uint64()),
        pa.array([1, None, 3], pa.float16()),
        pa.array([1, math.nan, 3], pa.float64()),
        pa.array([Decimal("1.00"), None, Decimal(3)], pa.decimal128(5, 2)),
        pa.array(["1", "NA", "3"], pa.large_string()),
        pa.array(["1", None, "3"], pa.string_view()),
        pa.array([1, None, 3]).dictionary_encode(),
        pa.array(["1", "", "3"]).dictionary_encode(),
        pa.array(["x", "1", None, "3"]).dictionary_encode().slice(1),
    ],
    ids=lambda cells: str(cells.type),
)
def test_numbers_have_many_types(cells: pa.Array) -> None:
    result = numbers_of(cells, PLAIN)
    assert result.faults is None
    assert_array_equal(result.values, [1, np.nan, 3])


@pytest.mark.parametrize("cells", [pa.nulls(2), pa.nulls(2, pa.string()), pa.nulls(2, pa.string()).dictionary_encode()])
def test_a_column_of_nulls_has_gaps_only(cells: pa.Array) -> None:
    assert numbers_of(cells, PLAIN).gaps.all()


@given(st.decimals(allow_nan=False, allow_infinity=False, places=20, min_value=-(10**15), max_value=10**15))
def test_decimals_are_rounded_once(number: Decimal) -> None:
    assert numbers_of(pa.array([number], pa.decimal128(38, 20)), PLAIN).values[0] == float(number)


@pytest.mark.parametrize(
    "cells",
    [pa.array([True]), pa.array([1], pa.date32()), pa.array([1], pa.duration("s")), pa.array([[1]]), pa.array([b"1"])],
    ids=lambda cells: str(cells.type),
)
def test_other_types_are_no_numbers(cells: pa.Array) -> None:
    with pytest.raises(TypeError):
        numbers_of(cells, PLAIN)


def test_an_infinite_float_is_a_fault() -> None:
    assert numbers_of(pa.array([1.0, math.inf]), PLAIN).first_fault == 1
    assert number_of(math.inf, PLAIN) is None
    assert number_of(10**400, PLAIN) is None


@pytest.mark.parametrize("value", [True, [], {}])
def test_other_values_of_json_are_no_numbers(value: object) -> None:
    assert number_of(value, PLAIN) is None


@settings(max_examples=50)
@given(FLOATS | st.integers(-(2**63), 2**63) | DIGITS)
def test_a_value_of_json_is_the_number_that_a_column_has(value: float | str) -> None:
    assert number_of(value, PLAIN) == float(value)
