"""The names in an NDJSON file, and what an object without one of them means."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from number_rows import number_rows
from numpy.testing import assert_array_equal

from app.data.batch import Columns
from app.data.formats import ndjson
from app.data.formats.ndjson import NDJSON
from app.errors import InvalidInput

NAMES = st.one_of(st.sampled_from("abcde"), st.text(st.characters(exclude_categories=["Cs"]), max_size=3))
VALUES = st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=3), st.lists(st.integers(), max_size=2))
PROPERTY = settings(max_examples=100)


def lines_of(rows: list[dict[str, Any]], *, ascii_only: bool = False) -> bytes:
    return "".join(f"{json.dumps(row, ensure_ascii=ascii_only)}\n" for row in rows).encode()


@PROPERTY
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=5), min_size=1, max_size=8), st.booleans())
def test_the_names_are_those_of_all_lines_in_the_order_they_appear(
    rows: list[dict[str, Any]], ascii_only: bool
) -> None:
    model: dict[str, int] = {}
    for line, row in enumerate(rows, 1):
        for name in row:
            model.setdefault(name, line)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(ndjson, "LINE_BYTES", 300)
        found = NDJSON.first_lines(b"\n \n" + lines_of(rows, ascii_only=ascii_only))
    assert list(found.items()) == list(model.items())


@PROPERTY
@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.one_of(st.none(), st.integers(-9, 9))), min_size=1, max_size=9)
)
def test_an_absent_name_is_a_missing_value(rows: list[dict[str, int | None]]) -> None:
    dense = [[row.get("c"), row.get("a")] for row in rows]
    columns = Columns(["c", "a"], missing=True)
    values = np.concatenate([batch.values for batch in NDJSON.batches(lines_of(rows), columns)])
    assert_array_equal(values, np.array(dense, float))
    # Refused, it is refused as null is: at the first row and column without a number.
    places = [(row, "ca"[at]) for row, pair in enumerate(dense, 1) for at, number in enumerate(pair) if number is None]
    strict = Columns(["c", "a"], late={"c": 2, "a": 2})
    if not places:
        assert_array_equal(np.concatenate([batch.values for batch in NDJSON.batches(lines_of(rows), strict)]), dense)
        return
    with pytest.raises(InvalidInput) as refused:
        list(NDJSON.batches(lines_of(rows), strict))
    # All columns at fault are listed, each with its first row.
    first = {name: min(row for row, column in places if column == name) for _, name in places}
    assert {detail.column: detail.row for detail in refused.value.details} == first
    assert refused.value.details[0].row == places[0][0]


def test_a_fault_in_a_column_that_appears_late_names_the_line_of_its_name() -> None:
    with pytest.raises(InvalidInput) as refused:
        list(NDJSON.batches(b'{"a":1}\n{"a":1,"b":2}\n', Columns(["a", "b"], late={"b": 2})))
    assert refused.value.message == (
        'Row 1, column "b": The value is missing: the line has no name "b". The name first appears in line 2.'
    )
    with pytest.raises(
        InvalidInput, match=r"found a string\. Send it without quotes\. The name first appears in line 2\.$"
    ):
        list(NDJSON.batches(b'{"a":1}\n{"a":1,"b":"x"}\n', Columns(["a", "b"], missing=True, late={"b": 2})))


def test_rows_before_a_late_name_are_dropped_with_a_warning_or_all_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b'{"y":1}\n' * 3 + b'{"y":1,"x":2}\n')
    rows = number_rows(path, "ndjson", ["x"], ["y"], drop_missing=True, late={"x": 4})
    (block,) = rows.batches()
    assert (block.x.tolist(), rows.dropped) == ([[2]], 3)
    assert rows.warnings == ['The name "x" first appears in line 4: no row before it has a value.']
    path.write_bytes(b'{"y":1}\n' * 3 + b'{"x":2}\n')
    with pytest.raises(InvalidInput, match="In every row a value is missing") as refused:
        list(rows.batches())
    (detail,) = refused.value.details
    assert (detail.row, detail.column) == (4, "x")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"[1]\n", "Expected an object"),
        (b"7\n", "Expected an object"),
        (b'{"a":1}\n[1]\n', "Row 2: Rows are either all objects or all arrays."),
        (b'{"a":1}\nnull\n', "Row 2: Rows are either all objects or all arrays."),
        (b'{"a":1}\n{"b":\n', "Row 2: The line is not JSON."),
        (b'{"a":1}\n{"\\ud800":1}\n', "Row 2: The line is not JSON."),
        (b'{"a":1}\n{"\xff":1}\n', "Row 2: The line is not JSON, because it is not UTF-8 text."),
        (b'{"a":' + b"[" * 100_000 + b"\n", "Row 1: The line is not JSON."),
        (b'{"a":1}\n' + b"9" * 5000, "Row 2: The line is not JSON."),
    ],
)
def test_lines_without_names_are_refused_with_their_number(content: bytes, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        NDJSON.first_lines(content)
    assert says in refused.value.message


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("first", ["7", "null", "true", '"a"'])
def test_a_first_line_that_is_not_a_row_is_rejected_even_if_values_may_be_missing(first: str, *, missing: bool) -> None:
    for read in (NDJSON.batches, NDJSON.cells):
        with pytest.raises(InvalidInput, match=r"^Row 1: Expected an object or an array of numbers, found "):
            next(read(f'{first}\n{{"a":1}}\n'.encode(), Columns(["a"], missing=missing)))


@pytest.mark.parametrize("per_line", [1, 100, 20_000])
def test_more_names_than_the_limit_are_refused_however_they_are_spread(per_line: int) -> None:
    lines = lines_of([{f"{line}-{index}": 1 for index in range(per_line)} for line in range(20_000 // per_line)])
    with pytest.raises(InvalidInput, match="more than 10000 different names"):
        NDJSON.first_lines(lines)


def test_a_name_that_appears_twice_in_a_line_keeps_its_last_value() -> None:
    assert NDJSON.first_lines(b'{"a":1,"b":2,"a":3}\n') == {"a": 1, "b": 1}
    (batch,) = NDJSON.batches(b'{"a":1,"b":2,"a":3}\n', Columns(["a"]))
    assert batch.values.tolist() == [[3]]


def test_the_names_of_the_first_line_may_be_none() -> None:
    assert NDJSON.column_names(b'{}\n{"a":1}\n') == []
    assert NDJSON.first_lines(b'{}\n{"a":1}\n') == {"a": 2}
