"""The types of columns that are kept."""

import io

import pyarrow as pa
import pytest

from app.data import kept_types
from app.data.batch import Columns
from app.data.formats import arrow
from app.data.formats.arrow import ARROW
from app.data.kept_types import MAX_WORD_BYTES, cast_kept, kept_type
from app.errors import InvalidInput


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.string_view(), pa.string()),
        (pa.dictionary(pa.int8(), pa.large_string()), pa.large_string()),
        (pa.dictionary(pa.int32(), pa.string_view()), pa.string()),
        (pa.dictionary(pa.int32(), pa.int64()), pa.int64()),
        (pa.timestamp("ms"), pa.timestamp("ms")),
        (pa.binary(), None),
        (pa.binary_view(), None),
        (pa.dictionary(pa.int8(), pa.binary()), None),
        (pa.list_(pa.int8()), None),
        (pa.month_day_nano_interval(), None),
    ],
)
def test_views_and_dictionaries_are_kept_as_their_values(kind: pa.DataType, expected: pa.DataType | None) -> None:
    assert kept_type(kind) == expected


WORDS = ["é" * 9, None, "b", "", "word of more than twelve bytes"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(WORDS).cast(pa.string_view()),
        pa.array(WORDS).dictionary_encode(),
        pa.array(WORDS).cast(pa.string_view())[1:],
        pa.array(WORDS, pa.large_string()),
    ],
)
def test_words_come_in_batches_of_bounded_length(column: pa.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_types, "MAX_WORD_BYTES", 20)
    kept = kept_type(column.type)
    batches = list(cast_kept(pa.RecordBatch.from_arrays([column], names=["a"]), {"a": kept}, 3))
    words = [batch.column("a").to_pylist() for batch in batches]
    assert [word for batch in words for word in batch] == column.to_pylist()
    assert {batch.schema.field("a").type for batch in batches} == {kept}
    assert len(batches) > 1
    assert all(len(batch) == 1 or sum(len((word or "").encode()) for word in batch) <= 20 for batch in words)


def test_a_dictionary_of_views_is_kept_as_its_words() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([4, None, 0, 3]), pa.array(WORDS, pa.string_view()))
    (batch,) = cast_kept(pa.RecordBatch.from_arrays([column], names=["a"]), {"a": pa.string()}, 500)
    assert batch.column("a").to_pylist() == [WORDS[4], None, WORDS[0], WORDS[3]]


def test_one_long_word_in_every_row_does_not_fill_the_memory() -> None:
    long = pa.array(["x" * (1 << 20)])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int8()), long)
    one = pa.array(["x" * (1 << 20)], pa.string_view())
    buffers = one.buffers()
    views = pa.Array.from_buffers(one.type, 200, [None, pa.py_buffer(buffers[1].to_pybytes()[:16] * 200), *buffers[2:]])
    for words in (column, views):
        batch = pa.RecordBatch.from_arrays([words], names=["a"])
        for small in cast_kept(batch, {"a": pa.string()}, 500):
            assert small.nbytes < MAX_WORD_BYTES + (1 << 16)
    batch = pa.RecordBatch.from_arrays([pa.DictionaryArray.from_arrays(pa.array([0, 1]), views)], names=["a"])
    with pytest.raises(InvalidInput, match=f"{MAX_WORD_BYTES >> 20} MiB"):
        list(cast_kept(batch, {"a": pa.string()}, 500))


def test_a_long_dictionary_with_many_short_batches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "MAX_WORDS", 100)
    words = pa.array([str(n) for n in range(30)])
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3]), words)
    table = pa.table({"x": [1.0, 2.0, 3.0, 4.0], "word": column})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=1)
    assert len(list(ARROW.batches(sink.getvalue(), Columns(["x"])))) == 4
    with pytest.raises(InvalidInput, match="larger batches"):
        list(ARROW.batches(sink.getvalue(), Columns(["x"], keep=["word"])))
