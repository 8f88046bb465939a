"""Types of Arrow and Parquet columns that are kept in the answer to a prediction."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

# Bytes of strings written in one piece. A dictionary may have a long string once that every row repeats.
WORDS_BYTES = 1 << 22


def kept_type(kind: "pa.DataType") -> "pa.DataType | None":
    """Return the type that a column of this type has when it is kept, or None if it cannot be kept.

    Views of strings are kept as strings, and dictionaries as their values.
    """
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_string_view(kind):
        return pa.string()
    is_kept = (
        is_words(kind)
        or types.is_null(kind)
        or types.is_decimal(kind)
        or (types.is_primitive(kind) and not types.is_interval(kind))
    )
    return kind if is_kept else None


def is_words(kind: "pa.DataType") -> bool:
    """Return True for string types with contiguous data, which views are not."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def words_in_dictionaries(batch: "pa.RecordBatch") -> int:
    """Return the number of strings in the dictionaries of a batch, all of which are checked for each batch."""
    import pyarrow as pa

    return sum(len(column.dictionary) for column in batch.columns if isinstance(column, pa.DictionaryArray))


def written_out(batch: "pa.RecordBatch", kept: "Mapping[str, pa.DataType]", rows: int) -> "Iterator[pa.RecordBatch]":
    """Yield the batch with these columns in these types, in pieces of at most `rows` rows.

    A piece has at most WORDS_BYTES of words, unless it is one row. Raises InvalidInput for a dictionary of views that
    is longer.
    """
    import pyarrow as pa
    from pyarrow import compute

    names = batch.schema.names
    columns = [_of_strings(column) if name in kept else column for name, column in zip(names, batch, strict=True)]
    batch = pa.RecordBatch.from_arrays(columns, names=names)
    dictionaries = {
        name: None if (lengths := _lengths(batch.column(name).dictionary)) is None else compute.fill_null(lengths, 0)
        for name in kept
        if isinstance(batch.column(name), pa.DictionaryArray)
    }
    for start in range(0, batch.num_rows, rows):
        part = batch.slice(start, rows)
        size = np.zeros(part.num_rows, dtype=np.int64)
        for name in kept:
            size += _bytes_of_words(part.column(name), dictionaries.get(name))
        for piece in _in_pieces(part, size):
            found = [_cast(column, kept.get(name)) for name, column in zip(names, piece, strict=True)]
            yield pa.RecordBatch.from_arrays(found, names=names)


def _in_pieces(part: "pa.RecordBatch", size: NDArray[np.int64]) -> "Iterator[pa.RecordBatch]":
    """Yield the part in pieces of at most WORDS_BYTES; `size` has the bytes of each row."""
    ends = np.cumsum(size)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, before + WORDS_BYTES, "right")), start + 1)
        yield part.slice(start, end - start)
        start = end


def _cast(column: "pa.Array", kind: "pa.DataType | None") -> "pa.Array":
    import pyarrow as pa

    if kind is None:
        return column
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    return column.cast(kind)


def _of_strings(column: "pa.Array") -> "pa.Array":
    """Return a dictionary of strings instead of one of views, from which pyarrow cannot take by index."""
    import pyarrow as pa
    from pyarrow import compute

    if not isinstance(column, pa.DictionaryArray) or not pa.types.is_string_view(column.dictionary.type):
        return column
    # Many views may point to the same bytes.
    if (compute.sum(_lengths(column.dictionary)).as_py() or 0) > WORDS_BYTES:
        raise InvalidInput(
            f"A column that is kept has a dictionary of more than {WORDS_BYTES >> 20} MiB of words. Write its words as "
            "strings, or leave it out of `keep`."
        )
    return pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(pa.string()))


def _bytes_of_words(column: "pa.Array", dictionary: "pa.Array | None") -> "NDArray[np.int64] | int":
    """Return the bytes that the word in each row takes; `dictionary` has those of the column's dictionary, if any."""
    import pyarrow as pa
    from pyarrow import compute

    if isinstance(column, pa.DictionaryArray):
        lengths = None if dictionary is None else dictionary.take(column.indices)
    else:
        lengths = _lengths(column)
    if lengths is None:
        return 0
    found: NDArray[np.int64] = compute.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def _lengths(words: "pa.Array") -> "pa.Array | None":
    """Return the length of each word in bytes; None for what is not words."""
    import pyarrow as pa
    from pyarrow import compute

    if is_words(words.type):
        return compute.binary_length(words)
    if not pa.types.is_string_view(words.type):
        return None
    # pyarrow has no function for it. A view takes four integers of 32 bits, and the first is the length.
    views: Any = np.frombuffer(words.buffers()[1] or b"", np.int32)
    lengths = views[4 * words.offset :: 4][: len(words)]
    return pa.array(lengths.astype(np.int64), mask=words.is_null().to_numpy(zero_copy_only=False))
