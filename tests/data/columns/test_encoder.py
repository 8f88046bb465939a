from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from app.data.batch import Array
from app.data.columns.encoder import Encoder, Notes, Unknown
from app.data.columns.schema import Column, Dialect
from app.errors import InvalidInput

NAN = float("nan")
COLOURS = Column("c", kind="category", levels=("blue", "green", "red"))


def encoded(column: Column, cells: Any, unknown: Unknown = "refuse", notes: Notes | None = None) -> list[list[float]]:
    batch = pa.record_batch({column.name: pa.array(cells) if isinstance(cells, list) else cells})
    rows: list[list[float]] = Encoder([column], unknown=unknown).encode(batch, 1, notes).tolist()
    return rows


def fault(column: Column, cells: Any) -> tuple[int | None, str]:
    with pytest.raises(InvalidInput) as refused:
        encoded(column, cells)
    (detail,) = refused.value.details
    assert detail.column == column.name
    return detail.row, detail.message


def test_a_category_has_a_column_for_each_level_but_the_first() -> None:
    assert Encoder([COLOURS]).names == ("c[green]", "c[red]")
    assert encoded(COLOURS, ["red", "blue", "green"]) == [[0, 1], [0, 0], [1, 0]]


def test_a_gap_is_nan_in_all_columns_of_a_category() -> None:
    assert_array_equal(encoded(COLOURS, ["red", None, ""]), [[0, 1], [NAN, NAN], [NAN, NAN]])


def test_an_indicator_marks_gaps_next_to_a_constant() -> None:
    column = Column("x", missing="indicator", fill=7.5)
    assert Encoder([column]).names == ("x", "x[missing]")
    assert encoded(column, [1.0, None]) == [[1, 0], [7.5, 1]]
    assert encoded(column, ["1", "NA"]) == [[1, 0], [7.5, 1]]
    assert encoded(column, [1.0, 2.0]) == [[1, 0], [2, 0]]


def test_with_an_indicator_the_gap_of_a_category_is_a_level() -> None:
    column = Column("c", kind="category", levels=("blue", "red"), missing="indicator")
    assert Encoder([column]).names == ("c[red]", "c[missing]")
    assert encoded(column, ["red", None, "blue"]) == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("column", "cells", "values"),
    [
        (Column("x", missing="fill", fill=3.0), [1.0, None], [1, 3]),
        (Column("x", missing="fill", fill="3,5", decimal=","), ["1,5", None], [1.5, 3.5]),
        (Column("x", kind="date", missing="fill", fill="1970-01-03"), ["1970-01-02", ""], [1, 2]),
        (Column("x", kind="boolean", missing="fill", fill="yes"), [False, None], [0, 1]),
        (Column("x", kind="category", levels=("a", "b"), missing="fill", fill="b"), ["a", None], [0, 1]),
        (Column("x", kind="category", levels=("a", "b"), missing="fill", fill="a"), ["b", None], [1, 0]),
    ],
)
def test_a_constant_takes_the_place_of_a_gap(column: Column, cells: list[Any], values: list[float]) -> None:
    assert encoded(column, cells) == [[value] for value in values]


def test_an_unseen_level_is_refused_with_its_place_and_the_known_levels() -> None:
    row, message = fault(COLOURS, ["red", None, "pink\n"])
    assert row == 3
    assert 'Received "pink' in message
    assert "\n" not in message
    assert 'Known levels: "blue", "green", "red".' in message


def test_a_long_level_is_cut_and_few_known_levels_are_named() -> None:
    column = Column("c", kind="category", levels=tuple(f"level {number:02}" for number in range(30)))
    _, message = fault(column, ["x" * 1000])
    assert f'"{"x" * 100}..."' in message
    assert '"level 19" and 10 more' in message
    assert "level 20" not in message


def test_an_unseen_level_is_nan_or_the_reference_level_if_asked_for() -> None:
    for unknown, value in (("null", NAN), ("reference", 0.0)):
        notes = Notes()
        rows = encoded(COLOURS, ["red", "pink", "pink", None], unknown, notes)  # type: ignore[arg-type]
        assert_array_equal(rows, [[0, 1], [value] * 2, [value] * 2, [NAN, NAN]])
        assert notes.unseen == {"c": 2}
        assert notes.gaps == {"c": 1}


def test_a_row_with_a_gap_in_a_category_of_one_level_is_all_nan() -> None:
    columns = [Column("c", kind="category", levels=("a",)), Column("x")]
    batch = pa.record_batch({"c": ["a", None, "b"], "x": [1.0, 2.0, 3.0]})
    values, missing = Encoder(columns, unknown="null").encode_with_gaps(batch, 1)
    assert_array_equal(values, [[1], [NAN], [NAN]])
    assert missing is not None
    assert_array_equal(missing, [[False, False], [True, False], [True, False]])


def test_missing_cells_are_those_that_nothing_replaces() -> None:
    columns = [Column("a"), Column("b", missing="indicator", fill=0.0), COLOURS]
    batch = pa.record_batch({"a": [1, None, 3], "b": [None, None, 3], "c": ["red", "red", None]})
    notes = Notes()
    _, missing = Encoder(columns).encode_with_gaps(batch, 1, notes)
    assert missing is not None
    assert_array_equal(missing, [[False, False, False], [True, False, False], [False, False, True]])
    assert notes.gaps == {"a": 1, "b": 2, "c": 1}
    assert Encoder(columns).encode_with_gaps(batch.slice(0, 1), 1).missing is None


@pytest.mark.parametrize(
    ("column", "cells", "says"),
    [
        (Column("x"), ["1", "x"], "Expected a number, found text."),
        (Column("x"), ["1", "1e999"], "Expected a number, found text."),
        (Column("x"), [1.0, float("inf")], "The value is not a finite number."),
        (
            Column("x", kind="boolean"),
            ["yes", "x"],
            "Expected a boolean: true or false, yes or no, 1 or 0, found text.",
        ),
        (Column("x", kind="boolean"), [1, 2], "found a number."),
        (
            Column("x", kind="date"),
            ["2020-01-01", "x"],
            "Expected a date such as 2000-12-31 or Dec 31 2000, found text.",
        ),
        (Column("x", kind="date", dates="dmy"), ["1/1/2020", "1/13/2020"], "such as 2000-12-31 or 31/12/2000, found"),
    ],
)
def test_a_cell_of_another_kind_is_refused_with_its_place(column: Column, cells: list[Any], says: str) -> None:
    row, message = fault(column, cells)
    assert row == 2
    assert says in message


@pytest.mark.parametrize("kind", ["number", "boolean", "date", "category"])
def test_a_column_of_a_type_that_cannot_be_read_is_refused(kind: Any) -> None:
    _, message = fault(Column("x", kind=kind), pa.array([[1]]))
    assert "found the type list." in message
    assert "int64" not in message


def test_the_first_fault_of_each_column_is_reported() -> None:
    batch = pa.record_batch({"a": ["1", "x"], "b": ["yes", "no"], "c": ["pink", "red"]})
    with pytest.raises(InvalidInput) as refused:
        Encoder([Column("a"), Column("b", kind="boolean"), COLOURS]).encode(batch, 11)
    assert [(detail.row, detail.column) for detail in refused.value.details] == [(11, "c"), (12, "a")]


def test_a_rounded_integer_is_noted_once_with_its_row() -> None:
    exact, rounded = 2**53, 2**53 + 1
    encoder, notes = Encoder([Column("a"), Column("b"), Column("c", strip=("$",))]), Notes()
    batch = pa.record_batch({"a": [exact, rounded], "b": [exact, exact], "c": [f"{exact}", f"${rounded}"]})
    encoder.encode(batch, 5, notes)
    encoder.encode(batch, 7, notes)
    assert notes.rounded == {"a": 6, "c": 6}


def test_columns_are_read_as_numbers_if_the_dialect_has_their_decimal_sign() -> None:
    columns = [Column("a"), Column("b", decimal=","), Column("c", na=("x",)), Column("d", missing="indicator")]
    columns.append(Column("e", kind="category"))
    assert Encoder(columns).typed == ("a", "d")
    assert Encoder(columns, dialect=Dialect(decimal=",")).typed == ("b",)
    assert Encoder(columns).texts == ("b", "c", "e")


COLUMNS = [
    Column("number"),
    Column("filled", missing="indicator", fill=0.5),
    Column("boolean", kind="boolean"),
    Column("date", kind="date"),
    Column("word", kind="category", levels=("a", "b", "c")),
    Column("marked", kind="category", levels=("a", "b"), missing="indicator"),
]
WORDS = st.none() | st.sampled_from("ab")
ROWS = st.tuples(
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.integers(-9, 9),
    st.none() | st.booleans(),
    st.none() | st.dates(),
    WORDS | st.just("c"),
    WORDS,
)


def expected(row: Sequence[Any]) -> list[float]:
    number, filled, boolean, date, word, marked = row
    return [
        NAN if number is None else number,
        0.5 if filled is None else filled,
        filled is None,
        NAN if boolean is None else boolean,
        NAN if date is None else date.toordinal() - 719_163,
        *([NAN, NAN] if word is None else [word == "b", word == "c"]),
        marked == "b",
        marked is None,
    ]


def cells(rows: Sequence[Sequence[Any]], as_text: bool, as_dictionary: bool) -> pa.RecordBatch:
    arrays = []
    for values in zip(*rows, strict=True):
        if as_text:
            texts = [
                None if value is None else repr(value) if isinstance(value, float) else str(value) for value in values
            ]
            array = pa.array(texts, pa.string())
        else:
            array = pa.array(values)
        arrays.append(array.dictionary_encode() if as_dictionary else array)
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in COLUMNS])


@settings(max_examples=40)
@given(st.lists(ROWS, min_size=1, max_size=8), st.booleans(), st.booleans(), st.data())
def test_cells_are_encoded_alike_in_any_type_and_any_batches(
    rows: list[tuple[Any, ...]], as_text: bool, as_dictionary: bool, data: st.DataObject
) -> None:
    batch = cells(rows, as_text, as_dictionary)
    encoder = Encoder(COLUMNS)
    cut = data.draw(st.integers(0, len(rows)))
    whole = encoder.encode(batch, 1)
    pieces: list[Array] = [encoder.encode(part, 1) for part in (batch.slice(0, cut), batch.slice(cut))]
    assert_array_equal(whole, [expected(row) for row in rows])
    assert_array_equal(np.vstack(pieces), whole)
    assert whole.T.flags.c_contiguous
