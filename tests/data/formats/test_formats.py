"""The contract of every file format."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from number_rows import number_rows
from numpy.testing import assert_array_equal
from tables import written

from app.data.batch import Columns, Source
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import PLAIN, Dialect
from app.data.content import content_of
from app.data.formats import BY_NAME, check_options
from app.data.formats import FORMATS as TABLE
from app.data.formats.base import TableFormat
from app.errors import InvalidInput

FORMATS: list[str] = ["csv", "ndjson", "arrow", "parquet"]
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def values_of(source: Source, form: str, columns: Columns, threads: int = 1) -> np.ndarray[Any, Any]:
    return np.concatenate([batch.values for batch in BY_NAME[form].batches(source, columns, threads)])


def refusal(content: bytes, form: str, columns: Columns) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        list(BY_NAME[form].batches(content, columns, 1))
    return refused.value


@pytest.mark.parametrize("table_format", TABLE, ids=lambda entry: entry.name)
def test_a_format_reads_what_it_writes(table_format: TableFormat) -> None:
    values = np.array([[1.5, -2.0], [np.nan, 1e300], [0.1, 2.0**53]])
    kept = pa.record_batch({"word": ["x", "größe", "a,b"]})
    file = io.BytesIO()
    writer = table_format.writer(file, ["word"], ["a", "b"])
    for start in (0, 2):
        writer.write(kept.slice(start, 2), values[start : start + 2])
    writer.close()
    content = file.getvalue()
    assert table_format.column_names(content) == ["word", "a", "b"]
    batches = list(table_format.batches(content, Columns(["b", "a"], ["word"], missing=True)))
    assert_array_equal(np.concatenate([batch.values for batch in batches]), values[:, ::-1])
    assert [word for batch in batches if batch.kept for word in batch.kept.column(0).to_pylist()] == [
        *kept["word"].to_pylist()
    ]
    recognised = content_of(content)
    assert recognised is not None
    assert recognised.body_format is table_format


@pytest.mark.parametrize("table_format", TABLE, ids=lambda entry: entry.name)
def test_a_table_without_rows_is_written_as_one(table_format: TableFormat) -> None:
    file = io.BytesIO()
    table_format.writer(file, [], ["a"]).close()
    assert table_format.names_in_rows or table_format.column_names(file.getvalue()) == ["a"]


def test_no_two_formats_share_a_name_or_a_media_type() -> None:
    for values in ([entry.name for entry in TABLE], [entry.media_type for entry in TABLE]):
        assert len(values) == len(set(values))
    assert [entry.name for entry in TABLE] == [*FORMATS, "excel"]


@pytest.mark.parametrize("table_format", [None, *TABLE], ids=lambda entry: entry.name if entry else "json")
def test_a_header_option_is_refused_unless_the_format_takes_one(table_format: TableFormat | None) -> None:
    check_options(table_format, ReadingOptions(na=("-9",)))
    if table_format is not None and "header" in table_format.options:
        check_options(table_format, ReadingOptions(header="none"))
        assert table_format.first_row(Dialect(header="none")) == table_format.first_row(PLAIN) - 1
        return
    with pytest.raises(InvalidInput, match="CSV"):
        check_options(table_format, ReadingOptions(header="none"))


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=25)
@given(rows=st.lists(st.tuples(NUMBERS, st.integers(-(2**53), 2**53), st.text()), min_size=1, max_size=9))
def test_numbers_survive_to_the_last_bit_and_kept_columns_as_they_are(
    form: str, rows: list[tuple[float, int, str]], tmp_path: Path
) -> None:
    floats, integers, words = (list(column) for column in zip(*rows, strict=True))
    # A CSV parser may take a lone control character for an end, and knows no difference between "" and nothing.
    words = [f"<{''.join(filter(str.isprintable, word))}>" for word in words]
    content = written(pa.table({"a": floats, "word": words, "b": integers}), form)
    path = tmp_path / "rows"
    path.write_bytes(content)
    columns = Columns(["b", "a"], keep=["word"])
    sources: list[Source] = [content, path]
    for source in sources:
        assert BY_NAME[form].column_names(source) == ["a", "word", "b"]
        batches = list(BY_NAME[form].batches(source, columns, 2))
        assert_array_equal(np.concatenate([batch.values for batch in batches]), np.column_stack([integers, floats]))
        assert [word for batch in batches if batch.kept for word in batch.kept.column("word").to_pylist()] == words


@pytest.mark.parametrize("form", FORMATS)
def test_a_missing_value_is_refused_with_its_place_or_is_nan_if_allowed(form: str) -> None:
    content = written(pa.table({"a": [1.0, 2.0, None, 4.0], "b": [5, 6, 7, None]}), form)
    first = 4 if form == "csv" else 3
    details = refusal(content, form, Columns(["b", "a"])).details
    assert (details[0].row, details[0].column) == (first, "a")
    assert {(detail.row, detail.column) for detail in details} <= {(first, "a"), (first + 1, "b")}
    found = values_of(content, form, Columns(["b", "a"], missing=True))
    assert_array_equal(found, [[5, 1], [6, 2], [7, np.nan], [np.nan, 4]])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("missing", [False, True])
def test_an_infinite_value_is_refused_with_its_place_even_where_some_may_be_missing(form: str, missing: bool) -> None:
    table = pa.table({"a": [1.0, None, np.inf] if missing else [1.0, 2.0, np.inf], "b": [1, 2, 3]})
    content = b'{"a":1}\n{"a":null}\n{"a":1e999}\n' if form == "ndjson" else written(table, form)
    if form == "ndjson" and not missing:
        content = content.replace(b"null", b"2")
    (detail,) = refusal(content, form, Columns(["a"], missing=missing)).details
    # A decoder of JSON calls a number beyond all floats malformed, before it is anything else.
    expected = (3, None if form == "ndjson" else "a")
    assert (detail.row, detail.column) == ((4, "a") if form == "csv" else expected)


@pytest.mark.parametrize("form", FORMATS)
def test_missing_columns_are_named_and_others_are_refused_if_they_are_not_allowed(form: str) -> None:
    content = written(pa.table({"a": [1.0], "b": [2.0]}), form)
    missing = refusal(content, form, Columns(["a", "c"]))
    assert 'no column "c"' in missing.details[0].message
    assert "1 column that is not a feature" in refusal(content, form, Columns(["a"], only=True)).message
    assert_array_equal(values_of(content, form, Columns(["a"])), [[1]])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("content", [b"\x00\xff" * 500, b"\xff\xff\xff\xff\x10\x00\x00\x00junk", b'"' + b"PAR1" * 4])
def test_bytes_of_another_format_are_refused_in_a_sentence(form: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    sources: list[Source] = [content, path]
    for source in sources:
        with pytest.raises(InvalidInput):
            list(BY_NAME[form].batches(source, Columns(["a"]), 1))


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_file_has_no_names(form: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.touch()
    for source in (b"", path):
        with pytest.raises(InvalidInput):
            BY_NAME[form].column_names(source)


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize("at", range(0, 100, 7))
@pytest.mark.parametrize("change", [lambda data, at: data[:at], lambda data, at: data[:at] + b"\xa5" + data[at + 1 :]])
def test_a_damaged_file_is_refused_or_read(form: str, at: int, change: Callable[[bytes, int], bytes]) -> None:
    content = written(pa.table({"a": np.arange(50.0), "word": ["x" * n for n in range(50)]}), form)
    damaged = change(content, len(content) * at // 100)
    try:
        for batch in BY_NAME[form].batches(damaged, Columns(["a"], keep=["word"]), 1):
            assert batch.kept is not None
            batch.kept.to_pylist()
    except (InvalidInput, UnicodeDecodeError):
        pass


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=100)
@given(noise=st.binary(max_size=40), data=st.data())
def test_any_bytes_in_a_file_are_read_or_refused(form: str, noise: bytes, data: st.DataObject) -> None:
    content = written(pa.table({"a": [1.0, 2.5], "word": ["x", "y"]}), form)
    start, end = sorted(data.draw(st.tuples(*2 * [st.integers(0, len(content))])))
    for damaged in (noise, content[:start] + noise + content[end:]):
        with contextlib.suppress(InvalidInput, UnicodeDecodeError):
            assert all(isinstance(name, str) for name in BY_NAME[form].column_names(damaged))
            for batch in BY_NAME[form].batches(damaged, Columns(["a"], keep=["word"]), 1):
                assert batch.values.shape[1] == 1
                assert np.isfinite(batch.values).all()
                assert batch.kept is not None
                batch.kept.to_pylist()


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize("column", [["a", "b"], [True, False], [[1], [2]]], ids=["words", "booleans", "lists"])
def test_a_column_without_numbers_is_named(form: str, column: list[Any]) -> None:
    (detail,) = refusal(written(pa.table({"a": column}), form), form, Columns(["a"])).details
    assert detail.column == "a"
    assert detail.message.startswith("Expected numbers, found the type ")


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, 2], pa.int8()),
        pa.array([1, 2], pa.uint64()),
        pa.array([1, 2], pa.float32()),
        pa.array([1, 2], pa.decimal128(9, 2)),
    ],
    ids=lambda array: str(array.type),
)
def test_numbers_of_any_type_are_read(form: str, array: Any) -> None:
    assert_array_equal(values_of(written(pa.table({"a": array}), form), form, Columns(["a"])), [[1], [2]])


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_a_name_that_appears_twice_is_refused(form: str) -> None:
    content = written(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), form)
    with pytest.raises(InvalidInput, match="the same name"):
        BY_NAME[form].column_names(content)


def test_a_large_batch_of_a_stream_is_read_in_smaller_ones() -> None:
    table = pa.table({"a": np.arange(700_000.0)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    batches = [batch.values for batch in BY_NAME["arrow"].batches(sink.getvalue(), Columns(["a"]), 1)]
    assert len(batches) > 2
    assert_array_equal(np.concatenate(batches)[:, 0], np.arange(700_000.0))


@pytest.mark.parametrize(
    ("lines", "row", "column", "message"),
    [
        ('{"a":1}\n{"a":', 2, None, "not JSON"),
        ('{"a":1},{"a":2}\n', 1, None, "not JSON"),
        ('{"a":1}\n\n[2]\n', 2, None, "all objects or all arrays"),
        ('{"a":1}\n7\n', 2, None, "an object or an array"),
        ('{"a":1}\n{"a":true}\n', 2, "a", "found a boolean"),
        ('{"a":1}\n{"a":"2"}\n', 2, "a", "found a string"),
        ('{"a":1}\n{"b":2}\n', 2, "a", "missing"),
        ("[1]\n[1,2]\n", 2, None, 'Expected 1 values ("a"), found 2'),
        ("[1]\n[" + "9" * 400 + "]\n", 2, None, ""),
        ("[" * 100_000 + "\n", 1, None, "not JSON"),
    ],
)
def test_the_first_faulty_line_of_ndjson_is_named(lines: str, row: int, column: str | None, message: str) -> None:
    (detail,) = refusal(lines.encode(), "ndjson", Columns(["a"])).details
    assert detail.row == row
    assert column is None or detail.column == column
    assert message in detail.message


@pytest.mark.parametrize("form", FORMATS)
def test_rows_with_missing_values_are_dropped_and_counted(form: str, tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, None, 3.0, 4.0], "unused": [None, 1.0, 1.0, 1.0], "y": [1.0, 2.0, 3.0, None]})
    path = tmp_path / "rows"
    path.write_bytes(written(table, form))
    rows = number_rows(path, form, ["x"], ["y"], drop_missing=True)
    for _ in range(2):  # each pass counts for itself
        batches = list(rows.batches())
        assert_array_equal(np.concatenate([batch.x for batch in batches]), [[1], [3]])
        assert rows.dropped == 2


def test_rows_that_all_miss_a_value_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("x,y\n1,\n,2\n")
    with pytest.raises(InvalidInput, match="In every row"):
        list(number_rows(path, "csv", ["x"], ["y"], drop_missing=True).batches())
