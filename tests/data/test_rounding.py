"""Integers that a 64-bit float cannot hold are noticed, in every format, and nothing else is."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from number_rows import number_rows
from tables import written

from app.data.batch import Columns
from app.data.columns.schema import Dialect
from app.data.formats import BY_NAME, csv, csv_blocks
from app.data.json_rows import first_rounded_rows, to_column, to_matrix
from app.data.rounding import MAX_WARNINGS, rounding_warnings

NEAR = st.sampled_from([2**53, -(2**53), 2**54, 2**60, 2**63, 10**15, 0])
INT64 = st.builds(int.__add__, NEAR, st.integers(-4, 4)).filter(lambda number: -(2**63) <= number < 2**63)
UINT64 = st.one_of(INT64.map(abs), st.integers(2**64 - 3000, 2**64 - 1))
LARGE = st.one_of(INT64, UINT64, st.integers(-(10**22), 10**22))
FLOATS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([2.0**53, 1e17, -1e300, 2.0**63]))
PROPERTY = settings(max_examples=60)


def model(numbers: Sequence[object]) -> int | None:
    """The first row whose number is an integer that float changes, by Python's own integers."""
    return next((row for row, number in enumerate(numbers) if type(number) is int and float(number) != number), None)


def found(content: bytes, form: str, names: Sequence[str], threads: int = 1) -> dict[str, int]:
    """The first rounded row of each column, from 0, over all batches."""
    rows: dict[str, int] = {}
    read = 0
    for batch in BY_NAME[form].batches(content, Columns(names, missing=True), threads):
        for column, row in batch.rounded:
            rows.setdefault(names[column], read + row)
        read += len(batch.values)
    return rows


def expected(columns: dict[str, list[Any]]) -> dict[str, int]:
    return {name: row for name, numbers in columns.items() if (row := model(numbers)) is not None}


@PROPERTY
@given(st.lists(st.tuples(LARGE, st.one_of(st.none(), FLOATS)), min_size=1, max_size=8), st.booleans())
def test_json_names_exactly_the_columns_with_a_rounded_integer(
    rows: list[tuple[int, float | None]], objects: bool
) -> None:
    given = [{"a": a, "b": b} for a, b in rows] if objects else [list(row) for row in rows]
    matrix = to_matrix(given, ["a", "b"], "/instances", missing=True)
    places = {name: row - 1 for name, row in first_rounded_rows(given, ["a", "b"], matrix).items()}
    assert places == expected({"a": [a for a, _ in rows]})
    weights = [abs(a) for a, _ in rows]
    column = to_column(weights, "/sample_weights")
    assert bool(first_rounded_rows(weights, ["w"], column)) == (model(weights) is not None)


@PROPERTY
@given(st.lists(st.tuples(LARGE, st.one_of(st.none(), FLOATS, LARGE)), min_size=1, max_size=8))
def test_ndjson_names_exactly_the_columns_with_a_rounded_integer(rows: list[tuple[int, Any]]) -> None:
    lines = b"".join(
        b'{"a":%d,"b":%b}\n' % (a, str(b).encode() if type(b) is int else orjson.dumps(b)) for a, b in rows
    )
    a, b = (list(column) for column in zip(*rows, strict=True))
    assert found(lines, "ndjson", ["b", "a"]) == expected({"a": a, "b": b})


@PROPERTY
@given(
    st.lists(st.tuples(LARGE, st.one_of(st.none(), FLOATS, LARGE)), min_size=1, max_size=12),
    st.sampled_from(["{}", " {}\t", '"{}"', "0{}", "{}.", "{}.00"]),
    st.sampled_from([(1 << 21, 1), (8, 1), (8, 3), (40, 2)]),
)
def test_csv_names_exactly_the_columns_with_a_rounded_integer(
    rows: list[tuple[int, Any]], form: str, how: tuple[int, int]
) -> None:
    def cell(number: object) -> str:
        if type(number) is int:
            sign = "-" if number < 0 else ""
            return f"{sign}{form.format(abs(number))}" if form.startswith("0") else form.format(number)
        return "" if number is None else f"{number!r}" if "e" in repr(number) else f"{number!r}1"

    content = "a,b,c\n" + "".join(f"{cell(a)},{cell(b)},x\n" for a, b in rows)
    a, b = (list(column) for column in zip(*rows, strict=True))
    with pytest.MonkeyPatch.context() as small:
        small.setattr(csv, "BLOCK_BYTES", how[0])
        assert found(content.encode(), "csv", ["b", "a"], how[1]) == expected({"a": a, "b": b})


@PROPERTY
@given(st.lists(st.tuples(INT64, UINT64, st.integers(-(10**30), 10**30)), min_size=1, max_size=8), st.integers(0, 3))
@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_arrow_types_name_exactly_the_columns_with_a_rounded_integer(
    form: str, rows: list[tuple[int, int, int]], scale: int
) -> None:
    signed, unsigned, decimals = (list(column) for column in zip(*rows, strict=True))
    table = pa.table(
        {
            "signed": pa.array([None, *signed], pa.int64()),
            "unsigned": pa.array([None, *unsigned], pa.uint64()),
            "decimal": pa.array([None, *map(Decimal, decimals)], pa.decimal128(38, scale)),
            "float": pa.array([None, *map(float, decimals)], pa.float64()),
        }
    )
    places = found(written(table, form), form, ["decimal", "float", "unsigned", "signed"])
    exact = expected({"signed": [None, *signed], "unsigned": [None, *unsigned]})
    assert {name: row for name, row in places.items() if name != "decimal"} == exact
    # The float that a decimal becomes may be its neighbour, so that it is compared with what was read.
    read = [
        batch.values[:, 0]
        for batch in BY_NAME[form].batches(written(table, form), Columns(["decimal"], missing=True), 1)
    ]
    pairs = zip(np.concatenate(read)[1:].tolist(), decimals, strict=True)
    assert places.get("decimal") == next((row for row, (got, number) in enumerate(pairs, 1) if got != number), None)


def test_decimals_with_a_fraction_are_not_integers() -> None:
    table = pa.table({"a": pa.array([Decimal("9007199254740993.5"), Decimal("0.1")], pa.decimal128(38, 1))})
    assert found(written(table, "arrow"), "arrow", ["a"]) == {}


@pytest.mark.parametrize(
    "content", ["a,b\n1e16,2\n12345678901234567e3,9007199254740993.5\n", "a,b\n9007199254740992,1\n"]
)
def test_floats_in_csv_and_integers_that_fit_are_not_rounded_integers(content: str) -> None:
    assert found(content.encode(), "csv", ["a", "b"]) == {}


def test_a_number_of_very_many_digits_is_compared_exactly() -> None:
    numbers = ["0" * 6000 + "9007199254740993", "1" + "0" * 300]
    for number in numbers:
        assert found(f"a\n{number}\n".encode(), "csv", ["a"]) == {"a": 0}
    assert found(b'{"a":1%b}\n' % (b"0" * 300), "ndjson", ["a"]) == {"a": 0}


@pytest.mark.parametrize("quote", ["", '"'])
def test_an_ordinary_csv_is_parsed_once(quote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_blocks, "text_options", lambda _: pytest.fail("parsed again"))
    content = "a,b\n" + f"{quote}1.5{quote},9007199254740991\n" * 1000
    assert found(content.encode(), "csv", ["a", "b"], 2) == {}


def test_a_column_that_is_known_to_be_rounded_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []
    as_text = csv_blocks.text_options

    def counted(names: Sequence[str]) -> Any:
        asked.append(names)
        return as_text(names)

    monkeypatch.setattr(csv_blocks, "text_options", counted)
    monkeypatch.setattr(csv, "BLOCK_BYTES", 1000)
    content = "a,b\n" + "9007199254740993,1\n" * 5000
    assert found(content.encode(), "csv", ["a", "b"]) == {"a": 0}
    assert asked == [["a"]]


def test_rounded_integers_are_found_in_any_block_with_quotes(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    lines = ['"1",2\n'] * 400_000
    lines[399_000], lines[399_500] = '"1",9007199254740993\n', '"-9007199254740993",2\n'
    path.write_text("a,b\n" + "".join(lines))
    rows = number_rows(path, "csv", ["a"], ["b"])
    assert sum(len(batch.x) for batch in rows.batches()) == 400_000
    a, b = rows.warnings
    assert '"a"' in a
    assert "first in row 399502." in a
    assert '"b"' in b
    assert "first in row 399002." in b


@pytest.mark.parametrize("header", ["names", "none"])
def test_each_column_is_named_once_with_its_first_row_and_each_pass_starts_anew(
    tmp_path: Path, header: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv, "BLOCK_BYTES", 100)
    path = tmp_path / "rows"
    path.write_text("1,2\n" + "1,2\n" * 500 + "9007199254740993,3\n" * 500)
    features, targets = (["1"], ["2"]) if header == "names" else (["c1"], ["c2"])
    rows = number_rows(path, "csv", features, targets, dialect=Dialect(header=header), threads=2)
    assert rows.warnings == []
    for _ in range(2):
        list(rows.batches())
        (warning,) = rows.warnings
        assert f'"{features[0]}"' in warning
        assert "first in row 502." in warning  # the header, or the row in its place, is row 1


def test_many_rounded_columns_make_few_warnings() -> None:
    found = rounding_warnings({f"x{index}": 1 for index in range(2000)})
    assert len(found) == MAX_WARNINGS + 1
    assert "1980 more columns" in found[-1]
