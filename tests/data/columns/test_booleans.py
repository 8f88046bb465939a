import math

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from app.data.columns.booleans import boolean_of, booleans_of, parse_booleans
from app.data.columns.schema import Column

COLUMN = Column("b", kind="boolean")


@pytest.mark.parametrize("pair", [("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n")])
def test_words_come_in_three_spellings(pair: tuple[str, str]) -> None:
    for spell in (str.lower, str.upper, str.title):
        yes, no = map(spell, pair)
        assert_array_equal(
            parse_booleans(pa.array([yes, f" {no} ", None, "NA"]), COLUMN).values, [1, 0, np.nan, np.nan]
        )
        assert boolean_of(f" {yes}", COLUMN) == 1
        assert boolean_of(no, COLUMN) == 0


@pytest.mark.parametrize("text", ["tRUE", "2", "yes!", "ja", "on", "-", "?"])
def test_other_words_are_faults(text: str) -> None:
    assert parse_booleans(pa.array(["yes", text]), COLUMN).first_fault == 1
    assert boolean_of(text, COLUMN) is None


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([True, None, False]),
        pa.array([1, None, 0]),
        pa.array([1.0, math.nan, 0.0]),
        pa.array(["1", "", "0"]),
        pa.array(["TRUE", None, "FALSE"], pa.string_view()),
        pa.array(["yes", None, "no"]).dictionary_encode(),
    ],
    ids=lambda cells: str(cells.type),
)
def test_booleans_have_many_types(cells: pa.Array) -> None:
    result = booleans_of(cells, COLUMN)
    assert result.faults is None
    assert_array_equal(result.values, [1, np.nan, 0])


def test_other_numbers_are_faults() -> None:
    assert booleans_of(pa.array([0, 1, 2]), COLUMN).first_fault == 2
    assert booleans_of(pa.array([0, 1, math.inf]), COLUMN).first_fault == 2
    assert boolean_of(2, COLUMN) is None


def test_other_types_are_no_booleans() -> None:
    with pytest.raises(TypeError):
        booleans_of(pa.array([1], pa.date32()), COLUMN)
    assert boolean_of([], COLUMN) is None


def test_values_of_json_are_booleans_numbers_and_gaps() -> None:
    assert [boolean_of(value, COLUMN) for value in (True, False, 1, 0.0)] == [1, 0, 1, 0]
    assert all(math.isnan(boolean_of(value, COLUMN) or 0) for value in (None, "", "NA"))


def test_further_texts_may_mark_a_gap() -> None:
    column = Column("b", kind="boolean", na=("unknown", "9"))
    assert_array_equal(parse_booleans(pa.array(["unknown", "9", "yes"]), column).gaps, [True, True, False])
    assert_array_equal(booleans_of(pa.array([9, 1]), column).gaps, [True, False])
    assert math.isnan(boolean_of(9, column) or 0)
