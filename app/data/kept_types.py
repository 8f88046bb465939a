"""Types of Arrow and Parquet columns that are kept in the answer to a prediction."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data.lazy_pyarrow import pa
from app.errors import InvalidInput

# Bytes of strings in a batch. Each row may repeat a long string that the file has once, in a dictionary.
MAX_WORD_BYTES = 1 << 22


def kept_type(type_: "pa.DataType") -> "pa.DataType | None":
    """Return the type that a column of this type has when it is kept, or None if it cannot be kept.

    Views of strings are kept as strings, and dictionaries as their values.
    """
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_string_view(type_):
        return pa.string()
    is_scalar = pa.types.is_primitive(type_) and not pa.types.is_interval(type_)
    is_kept = is_scalar or is_words(type_) or pa.types.is_null(type_) or pa.types.is_decimal(type_)
    return type_ if is_kept else None


def is_words(type_: "pa.DataType") -> bool:
    """Return True for string types with contiguous data. Views are not contiguous."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def cast_kept(batch: "pa.RecordBatch", kept: "Mapping[str, pa.DataType]", rows: int) -> "Iterator[pa.RecordBatch]":
    """Yield the rows with the `kept` columns cast to these types, in batches of at most `rows` rows.

    A batch has at most MAX_WORD_BYTES of words, unless it is one row. A dictionary may stay one.
    Raises InvalidInput for a dictionary of views that is longer.
    """
    names = batch.schema.names
    columns = [_without_views(column) if name in kept else column for name, column in zip(names, batch, strict=True)]
    batch = pa.RecordBatch.from_arrays(columns, names=names)
    dictionaries = {
        name: _lengths(batch.column(name).dictionary)
        for name in kept
        if isinstance(batch.column(name), pa.DictionaryArray)
    }
    for start in range(0, batch.num_rows, rows):
        slice_ = batch.slice(start, rows)
        size = np.zeros(slice_.num_rows, dtype=np.int64)
        for name in kept:
            size += _word_bytes(slice_.column(name), dictionaries.get(name))
        for small in _in_batches(slice_, size):
            cast = [_cast(column, kept.get(name)) for name, column in zip(names, small, strict=True)]
            yield pa.RecordBatch.from_arrays(cast, names=names)


def _cast(column: "pa.Array", type_: "pa.DataType | None") -> "pa.Array":
    """Return the column as this type. A dictionary that stays one keeps the type of its indices."""
    if type_ is None or (pa.types.is_dictionary(type_) and pa.types.is_dictionary(column.type)):
        return column
    return column.dictionary_encode() if pa.types.is_dictionary(type_) else column.cast(type_)


def _in_batches(batch: "pa.RecordBatch", size: NDArray[np.int64]) -> "Iterator[pa.RecordBatch]":
    """Yield the rows in batches of at most MAX_WORD_BYTES. `size` has the bytes of each row."""
    ends = np.cumsum(size)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, before + MAX_WORD_BYTES, "right")), start + 1)
        yield batch.slice(start, end - start)
        start = end


def _without_views(column: "pa.Array") -> "pa.Array":
    """Return a dictionary of strings in place of one of views, because pyarrow cannot take from views by index."""
    if not isinstance(column, pa.DictionaryArray) or not pa.types.is_string_view(column.dictionary.type):
        return column
    # Many views may point to the same bytes.
    if (pa.compute.sum(_lengths(column.dictionary)).as_py() or 0) > MAX_WORD_BYTES:
        raise InvalidInput(
            f"A kept column has a dictionary of more than {MAX_WORD_BYTES >> 20} MiB of words. Write its words as "
            "strings, or leave it out of `keep`."
        )
    return pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(pa.string()))


def _word_bytes(column: "pa.Array", dictionary: "pa.Array | None") -> NDArray[np.int64]:
    """Return the bytes of the word in each row, (n,). `dictionary` has those of the words in its dictionary."""
    lengths = _lengths(column) if dictionary is None else dictionary.take(column.indices)
    sizes: NDArray[np.int64] = pa.compute.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return sizes


def _lengths(words: "pa.Array") -> "pa.Array":
    """Return the length of each word in bytes. Other values than words have none."""
    if is_words(words.type):
        return pa.compute.binary_length(words)
    if not pa.types.is_string_view(words.type):
        return pa.nulls(len(words), pa.int64())
    # pyarrow has no function for views. A view is four integers of 32 bits, and the first is the length.
    views: Any = np.frombuffer(words.buffers()[1] or b"", np.int32)
    lengths = views[4 * words.offset :: 4][: len(words)]
    return pa.array(lengths.astype(np.int64), mask=words.is_null().to_numpy(zero_copy_only=False))


def decoded(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """Return the columns with values in place of dictionaries."""
    columns = [column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column for column in batch]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
