"""The cells of Arrow, Parquet and NDJSON files, in their own types."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest
from tables import written

from app.data import kept_types
from app.data.batch import Columns, Source
from app.data.formats import BY_NAME, ndjson
from app.data.formats.arrow import ARROW
from app.errors import InvalidInput

BINARY = ["arrow", "parquet"]
DAY = dt.date(2020, 2, 29)
TYPED: dict[str, pa.Array] = {
    "float": pa.array([1.5, None, -2.0]),
    "integer": pa.array([1, 2**60 + 1, None]),
    "unsigned": pa.array([2**64 - 1, 0, None], pa.uint64()),
    "boolean": pa.array([True, None, False]),
    "word": pa.array(["a", None, "größe"]),
    "large": pa.array(["a", "b", None], pa.large_string()),
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "date": pa.array([DAY, None, DAY]),
    "timestamp": pa.array([1, None, 3], pa.timestamp("us")),
    "zone": pa.array([1, None, 3], pa.timestamp("us", "Europe/Berlin")),
    "nothing": pa.nulls(3),
}


def cells_of(content: bytes, form: str, columns: Columns) -> pa.Table:
    return pa.Table.from_batches([batch.cells for batch in BY_NAME[form].cells(content, columns)])


def refusal(content: bytes, form: str, columns: Columns) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        cells_of(content, form, columns)
    return refused.value


def lines(rows: list[Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


@pytest.mark.parametrize("form", BINARY)
def test_cells_keep_the_types_of_the_file(form: str) -> None:
    table = pa.table(TYPED)
    cells = cells_of(written(table, form), form, Columns([], [*TYPED]))
    for name in TYPED:
        assert cells[name].type == table[name].type, name
        assert cells[name].to_pylist() == table[name].to_pylist(), name


@pytest.mark.parametrize("form", BINARY)
def test_numbers_are_floats_and_a_gap_is_null(form: str) -> None:
    numbers = ["float", "integer", "unsigned", "nothing"]
    table = pa.table(TYPED).append_column("coded", pa.array([5, 6, 5]).dictionary_encode())
    batches = list(BY_NAME[form].cells(written(table, form), Columns([*numbers, "coded"], ["word"], missing=True)))
    (batch,) = batches
    assert batch.cells.schema.names == [*numbers, "coded", "word"]
    assert set(batch.cells.schema.types[:-1]) == {pa.float64()}
    assert batch.cells["integer"].to_pylist() == [1.0, 2.0**60, None]
    assert batch.cells["coded"].to_pylist() == [5.0, 6.0, 5.0]
    assert batch.rounded == {"integer": 1, "unsigned": 0}


@pytest.mark.parametrize("form", BINARY)
@pytest.mark.parametrize(
    ("type_", "value", "name"),
    [
        (pa.duration("s"), 5, "duration"),
        (pa.list_(pa.float64()), [1.0], "list"),
        (pa.struct({"a": pa.float64()}), {"a": 1.0}, "struct"),
        (pa.binary(), b"x", "binary"),
        (pa.time64("us"), 5, "time64"),
    ],
)
def test_a_column_of_another_type_is_refused_by_name(form: str, type_: pa.DataType, value: Any, name: str) -> None:
    content = written(pa.table({"x": [1.0], "z": pa.array([value], type_)}), form)
    error = refusal(content, form, Columns(["x"], ["z"]))
    assert error.details[0].column == "z"
    assert f"found the type {name}" in error.message
    assert cells_of(content, form, Columns(["x"])).num_rows == 1


@pytest.mark.parametrize("form", [*BINARY, "ndjson"])
def test_words_and_booleans_keep_their_types_if_numbers_were_requested(form: str) -> None:
    table = pa.table({"x": ["1", "2"], "b": [True, None]})
    assert cells_of(written(table, form), form, Columns(["x", "b"], missing=True)) == table


@pytest.mark.parametrize("form", BINARY)
def test_a_dictionary_of_long_words_comes_in_short_batches(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_types, "MAX_WORD_BYTES", 400)
    words = pa.array(["x" * 100] * 5000).dictionary_encode()
    batches = list(BY_NAME[form].cells(written(pa.table({"w": words}), form), Columns([], ["w"])))
    assert sum(batch.cells.num_rows for batch in batches) == 5000
    assert max(batch.cells.num_rows for batch in batches) <= 4
    assert all(pa.types.is_dictionary(batch.cells["w"].type) for batch in batches)


@pytest.mark.parametrize("form", BINARY)
def test_integers_that_are_categories_in_pandas_are_a_dictionary_unless_numbers_are_asked_for(form: str) -> None:
    frame = pd.DataFrame({"code": pd.Categorical([3, 1, None, 3]), "x": [1, 2, 3, 4]})
    content = written(pa.Table.from_pandas(frame), form)
    cells = cells_of(content, form, Columns([], ["code", "x"]))
    assert [pa.types.is_dictionary(type_) for type_ in cells.schema.types] == [True, False]
    assert cells["code"].to_pylist() == [3, 1, None, 3]
    assert cells_of(content, form, Columns(["code"], missing=True))["code"].to_pylist() == [3.0, 1.0, None, 3.0]


def test_values_of_json_have_the_type_that_all_of_them_share() -> None:
    rows = [
        {"i": 1, "f": 1, "s": "1", "b": True, "n": None, "big": 2**70},
        {"i": None, "f": 2.5, "s": None, "b": None},
        {"i": 2**60 + 1, "f": 2**53 + 1, "s": "", "b": False, "n": None, "big": 1, "other": 0},
    ]
    (batch,) = BY_NAME["ndjson"].cells(lines(rows), Columns([], ["i", "f", "s", "b", "n", "big"]))
    assert batch.cells.to_pydict() == {
        "i": [1, None, 2**60 + 1],
        "f": [1.0, 2.5, 2.0**53],
        "s": ["1", None, ""],
        "b": [True, None, False],
        "n": [None] * 3,
        "big": [2.0**70, None, 1.0],
    }
    assert batch.cells.schema.types == [
        pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.null(), pa.float64()
    ]  # fmt: skip
    assert batch.rounded == {"f": 2}
    assert batch.others == {"other"}


def test_numbers_and_words_of_json_come_together() -> None:
    content = lines([{"x": 1, "w": "a"}, {"w": "b"}])
    (batch,) = BY_NAME["ndjson"].cells(content, Columns(["x"], ["w"], missing=True))
    assert batch.cells.to_pydict() == {"x": [1.0, None], "w": ["a", "b"]}


@pytest.mark.parametrize(
    ("values", "row", "message"),
    [
        ([1, "a"], 2, "Found a string, but row 1 has a number"),
        ([None, True, 1.5], 3, "Found a number, but row 2 has a boolean"),
        ([1, {"a": 1}], 2, "found an object"),
        ([[1]], 1, "found an array"),
    ],
)
@pytest.mark.parametrize("block", [1, 1 << 17], ids=["one block for each line", "one block"])
def test_values_of_several_kinds_are_refused_with_the_row(
    values: list[Any], row: int, message: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ndjson, "BLOCK_BYTES", block)
    error = refusal(lines([{"v": value} for value in values]), "ndjson", Columns([], ["v"]))
    assert (error.details[0].row, error.details[0].column) == (row, "v")
    assert message in error.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"v":1e999}', "not JSON"),
        (b'{"v":1%s}' % (b"0" * 400), "not a finite number"),
        (b'{"v":"\\udc00"}', "JSON"),
    ],
)
def test_values_that_no_type_holds_are_refused(text: bytes, message: str) -> None:
    error = refusal(b'{"v":null}\n%s' % text, "ndjson", Columns([], ["v"]))
    assert error.details[0].row == 2
    assert message in error.message


def test_arrays_are_rows_only_of_numbers() -> None:
    content = lines([[1, 2], [3, 4]])
    assert cells_of(content, "ndjson", Columns(["a", "b"])).to_pydict() == {"a": [1.0, 3.0], "b": [2.0, 4.0]}
    assert "Write objects" in refusal(content, "ndjson", Columns(["a"], ["b"])).message


def test_a_name_that_no_line_has_is_refused_if_other_names_are() -> None:
    error = refusal(lines([{"a": "x"}]), "ndjson", Columns([], ["a", "b"], missing=True, only=True))
    assert 'no line has "b"' in error.message


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_an_arrow_file_is_read_as_the_stream_in_it(compression: str, tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.0, 3.0], "w": ["a", "b", "a"], "d": pa.array(["u", "v", "u"]).dictionary_encode()})
    path = tmp_path / "rows"
    pyarrow.feather.write_feather(table, str(path), compression=compression, chunksize=2)
    columns = Columns(["x"], ["w", "d"])
    sources: list[Source] = [path, path.read_bytes()]
    for source in sources:
        assert ARROW.column_names(source) == ["x", "w", "d"]
        cells = pa.Table.from_batches([batch.cells for batch in ARROW.cells(source, columns)])
        assert cells.to_pydict() == table.to_pydict()


def test_a_damaged_arrow_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    pyarrow.feather.write_feather(pa.table({"x": [1.0] * 100}), str(path), compression="uncompressed")
    content = path.read_bytes()
    for end in (6, 8, 20, len(content) // 3):
        with pytest.raises(InvalidInput):
            cells_of(content[:end], "arrow", Columns(["x"]))
