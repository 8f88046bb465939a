"""Columns of Arrow and Parquet that pass through a prediction, and the types that they have in the answer."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from app.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

# Bytes of words written out in one piece: a long word that a dictionary has once may be in every row.
WORDS_BYTES = 1 << 26


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
    """Return True for strings that are stored one after the other."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def written_out(batch: "pa.RecordBatch", kept: "Mapping[str, pa.DataType]") -> "Iterator[pa.RecordBatch]":
    """Yield the batch with these columns in these types, in pieces of at most WORDS_BYTES of words, or of one row."""
    import pyarrow as pa

    if batch.num_rows > 1 and sum(_bytes_of_words(batch.column(name)) for name in kept) > WORDS_BYTES:
        half = batch.num_rows // 2
        yield from written_out(batch.slice(0, half), kept)
        yield from written_out(batch.slice(half), kept)
        return
    columns = [_cast(column, kept.get(name)) for name, column in zip(batch.schema.names, batch, strict=True)]
    yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _cast(column: "pa.Array", kind: "pa.DataType | None") -> "pa.Array":
    import pyarrow as pa

    if kind is None:
        return column
    if isinstance(column, pa.DictionaryArray):
        column = _of_strings(column).dictionary_decode()
    return column.cast(kind)


def _of_strings(column: "pa.DictionaryArray") -> "pa.DictionaryArray":
    """Return a dictionary of strings instead of one of views, from which pyarrow cannot take by index."""
    import pyarrow as pa
    from pyarrow import compute

    words = column.dictionary
    if not pa.types.is_string_view(words.type):
        return column
    # Many views may be of the same bytes.
    if (compute.sum(_lengths(words)).as_py() or 0) > WORDS_BYTES:
        raise InvalidInput(
            f"A column that is kept has a dictionary of more than {WORDS_BYTES >> 20} MiB of words. Write its words as "
            "strings, or leave it out of `keep`."
        )
    return pa.DictionaryArray.from_arrays(column.indices, words.cast(pa.string()))


def _bytes_of_words(column: "pa.Array") -> int:
    """Return the bytes that the words of a column take when each row has its own."""
    import pyarrow as pa
    from pyarrow import compute

    if not isinstance(column, pa.DictionaryArray):
        lengths = _lengths(column)
    else:
        lengths = _lengths(column.dictionary)
        lengths = None if lengths is None else lengths.take(column.indices)
    return 0 if lengths is None else compute.sum(lengths).as_py() or 0


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
