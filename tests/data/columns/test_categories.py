import datetime as dt
import math
from decimal import Decimal

import pyarrow as pa
import pytest

from app.data.columns.categories import GAP, UNSEEN, codes_of, level_of, levels_of
from app.data.columns.schema import Column

COLUMN = Column("c", kind="category")


@pytest.mark.parametrize(
    ("cells", "levels"),
    [
        (pa.array(["b", None, "a", "b"]), ["b", None, "a", "b"]),
        (pa.array(["b", "a"], pa.large_string()), ["b", "a"]),
        (pa.array(["b", "a"], pa.string_view()), ["b", "a"]),
        (pa.array(["b", None, "a"]).dictionary_encode(), ["b", None, "a"]),
        (pa.array(["b", None], pa.string_view()).dictionary_encode(), ["b", None]),
        (pa.DictionaryArray.from_arrays([0, 1, None], ["x", None]), ["x", None, None]),
        (pa.array([2007, None]), ["2007", None]),
        (pa.array([1.0, 2.5, math.nan, None]), ["1", "2.5", None, None]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([dt.date(2020, 1, 2), None]), ["2020-01-02", None]),
        (pa.array([dt.datetime(2020, 1, 2, 3, tzinfo=dt.UTC)]), ["2020-01-02T03:00:00Z"]),
        (pa.array([Decimal("1.50")]), ["1.50"]),
        (pa.nulls(2), [None, None]),
        (pa.array([], pa.string()), []),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_levels_are_the_texts_of_cells(cells: pa.Array, levels: list[str | None]) -> None:
    assert levels_of(cells, COLUMN).to_pylist() == levels


def test_only_empty_cells_and_the_texts_in_na_are_gaps() -> None:
    column = Column("c", kind="category", na=("unknown",))
    cells = pa.array(["", " ", " unknown ", "None", "NA", "?", " a "])
    assert levels_of(cells, column).to_pylist() == [None, None, None, "None", "NA", "?", " a "]
    assert [level_of(text, column) for text in cells.to_pylist()] == levels_of(cells, column).to_pylist()


def test_codes_are_the_places_of_levels() -> None:
    levels = levels_of(pa.array(["b", None, "a", "z", "", "b"]), COLUMN)
    assert codes_of(levels, ["a", "b"]).tolist() == [1, GAP, 0, UNSEEN, GAP, 1]
    assert codes_of(levels, []).tolist() == [UNSEEN, GAP, UNSEEN, UNSEEN, GAP, UNSEEN]


@pytest.mark.parametrize(
    ("value", "level"),
    [("a", "a"), (None, None), ("", None), (1, "1"), (1.0, "1"), (1.5, "1.5"), (True, "true"), (math.nan, None)],
)
def test_values_of_json_have_the_levels_that_cells_have(value: object, level: str | None) -> None:
    assert level_of(value, COLUMN) == level
    assert levels_of(pa.array([value]), COLUMN).to_pylist() == [level]


@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_arrays_and_objects_are_no_levels(value: object) -> None:
    with pytest.raises(TypeError):
        level_of(value, COLUMN)
    with pytest.raises(TypeError):
        levels_of(pa.array([value]), COLUMN)


@pytest.mark.parametrize(
    "cells",
    [pa.array([1], pa.duration("s")), pa.array([1], pa.time32("s")), pa.array([b"a"])],
    ids=lambda cells: str(cells.type),
)
def test_other_types_have_no_levels(cells: pa.Array) -> None:
    with pytest.raises(TypeError):
        levels_of(cells, COLUMN)
