"""Arrow IPC streams and Parquet files."""

import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from app.data.arrow_size import check_arrow_schema
from app.data.name_hints import MAX_LISTED, shown
from app.data.parquet_size import check_parquet_footer, check_parquet_size
from app.data.part import Columns, Part, Source, check_distinct, check_names, part_of, part_rows
from app.errors import Detail, InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

DROP_BYTES = 1 << 24  # of a mapped file, after which the pages that were read are let go
BUFFER_BYTES = 1 << 20  # of each column chunk of a Parquet file
WORDS_BYTES = 1 << 26  # of a part, as they are spelt


def arrow_names(source: Source) -> list[str]:
    """The names of the columns. Raises InvalidInput where the file is no Arrow stream, or a name stands twice."""
    return _names(_readable("an Arrow stream", lambda: _open_stream(source)[0].schema))


def read_arrow(source: Source, columns: Columns, threads: int = 1) -> Iterator[Part]:  # noqa: ARG001 - as all readers
    """The rows of an Arrow IPC stream, in memory that does not grow with it, nor with its batches.

    Raises InvalidInput with the place of the first value that is missing or not finite, or with the column that holds
    no numbers. Rows count from 1.
    """
    reader, mapped = _readable("an Arrow stream", lambda: _open_stream(source))
    check_names(_names(reader.schema), columns)
    _check_types(reader.schema, columns)
    size, row, read = part_rows(columns), 1, 0
    while (batch := _readable("an Arrow stream", lambda: _next_batch(reader, columns))) is not None:
        for start in range(0, batch.num_rows, size):
            part = batch.slice(start, size)
            yield part_of(part, columns, row)
            row += part.num_rows
            read += part.nbytes
            if mapped is not None and read > DROP_BYTES:
                mapped.madvise(mmap.MADV_DONTNEED)
                read = 0


def parquet_names(source: Source) -> list[str]:
    """The names of the columns. Raises InvalidInput where the file is no Parquet, or a name stands twice."""
    return _names(_readable("Parquet", lambda: _open_parquet(source).schema_arrow))


def read_parquet(source: Source, columns: Columns, threads: int = 1) -> Iterator[Part]:
    """The rows of a Parquet file, one part after the other.

    Raises InvalidInput as `read_arrow` does.
    """
    file = _readable("Parquet", lambda: _open_parquet(source))
    check_names(_names(file.schema_arrow), columns)
    _check_types(file.schema_arrow, columns)
    wanted = [*columns.numbers, *(name for name in columns.keep if name not in columns.numbers)]
    words = {name: kind for name in columns.keep if _is_words(kind := file.schema_arrow.field(name).type)}
    if words:
        file = _readable("Parquet", lambda: _open_parquet(source, list(words)))
    batches = file.iter_batches(part_rows(columns), columns=wanted, use_threads=False)
    row = 1
    for batch in _ahead(batches) if threads > 1 else _each(batches):
        for piece in _spelt(batch, words):
            yield part_of(piece, columns, row)
            row += piece.num_rows


def check_parquet(source: Source, names: Sequence[str], limit: int) -> None:
    """Raises BodyTooLarge or InvalidInput where the columns come to more than may be decoded."""
    file = _readable("Parquet", lambda: _open_parquet(source))
    paths = [file.schema.column(index).path for index in range(len(file.schema))]
    check_parquet_size(source, paths, list(names), limit)


def _is_words(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _spelt(batch: "pa.RecordBatch", words: "dict[str, pa.DataType]") -> "Iterator[pa.RecordBatch]":
    """The batch with its words instead of their places in dictionaries, in as many pieces as it takes.

    A long word that stands once in a dictionary may stand in every row.
    """
    import pyarrow as pa
    from pyarrow import compute

    columns = {name: batch.column(name) for name in words}
    lengths = (compute.take(compute.binary_length(column.dictionary), column.indices) for column in columns.values())
    if sum(compute.sum(length).as_py() or 0 for length in lengths) > WORDS_BYTES and batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _spelt(batch.slice(0, half), words)
        yield from _spelt(batch.slice(half), words)
        return
    spelt = [column.cast(words.get(name, column.type)) for name, column in zip(batch.schema.names, batch, strict=True)]
    yield pa.RecordBatch.from_arrays(spelt, names=batch.schema.names)


def _each(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    while (batch := _readable("Parquet", lambda: _next_valid(batches))) is not None:
        yield batch


def _next_valid(batches: "Iterator[pa.RecordBatch]") -> "pa.RecordBatch | None":
    batch = next(batches, None)
    if batch is not None:
        batch.validate(full=True)  # words that are not UTF-8
    return batch


def _ahead(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """Each of them, while the one after it is decoded beside."""
    each = _each(batches)
    with ThreadPoolExecutor(1) as beside:
        coming = beside.submit(next, each, None)
        while (batch := coming.result()) is not None:
            coming = beside.submit(next, each, None)
            yield batch


def _open_stream(source: Source) -> "tuple[pa.ipc.RecordBatchStreamReader, mmap.mmap | None]":
    import pyarrow as pa
    from pyarrow import ipc

    check_arrow_schema(source)
    if isinstance(source, bytes):
        return ipc.open_stream(pa.py_buffer(source)), None
    with source.open("rb") as file:
        if not source.stat().st_size:
            raise pa.ArrowInvalid("empty")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return ipc.open_stream(pa.py_buffer(mapped)), mapped


def _next_batch(reader: "pa.ipc.RecordBatchStreamReader", columns: Columns) -> "pa.RecordBatch | None":
    try:
        batch = reader.read_next_batch()
    except StopIteration:
        return None
    batch = batch.select(list(dict.fromkeys([*columns.numbers, *columns.keep])))
    # A stream is taken at its word otherwise, and wrong offsets of strings would be read from anywhere.
    batch.validate(full=bool(columns.keep))
    return batch


def _open_parquet(source: Source, words: Sequence[str] = ()) -> Any:
    """The file; of the columns `words` it gives dictionaries, and places in them."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    check_parquet_footer(source)
    readable = pa.py_buffer(source) if isinstance(source, bytes) else Path(source)
    # Otherwise all row groups are read at once.
    return ParquetFile(readable, read_dictionary=list(words), buffer_size=BUFFER_BYTES, pre_buffer=False)


def _readable(kind: str, read: Callable[[], T]) -> T:
    import pyarrow as pa

    try:
        return read()
    except MemoryError:  # pyarrow's own is an ArrowException too
        raise
    except (pa.ArrowException, OSError, ValueError):
        raise InvalidInput(
            f"The body is not readable as {kind}, as which it was sent. Write it again, or correct Content-Type."
        ) from None


def _names(schema: "pa.Schema") -> list[str]:
    try:
        names = list(schema.names)
    except UnicodeDecodeError:
        raise InvalidInput("A column's name is not UTF-8. Rename it.") from None
    check_distinct(names, "Several columns have the same name:")
    if not names:
        raise InvalidInput("The file has no columns. Expected the features, and for a training the targets.")
    return names


def _check_types(schema: "pa.Schema", columns: Columns) -> None:
    from pyarrow import types

    choice = ", or choose the columns to read with `features`" if columns.training else ""
    details = [
        Detail(f"Expected numbers, found the type {_type_name(kind)}. Convert the column{choice}.", column=name)
        for name in columns.numbers
        if not (
            types.is_integer(kind := schema.field(name).type)
            or types.is_floating(kind)
            or types.is_decimal(kind)
            or types.is_null(kind)
        )
    ]
    details += [
        Detail("Only numbers, words, booleans, dates and times can be kept.", column=name)
        for name in columns.keep
        if types.is_nested(kind := schema.field(name).type)
        or types.is_dictionary(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_interval(kind)
        or not (
            types.is_primitive(kind)
            or types.is_decimal(kind)
            or types.is_string(kind)
            or types.is_large_string(kind)
            or types.is_null(kind)
        )
    ]
    if details:
        raise InvalidInput(
            f"{len(details)} column(s) have a type that cannot be used. {shown(details[0].column or '')}: "
            f"{details[0].message}",
            details[:MAX_LISTED],
        )


def _type_name(kind: "pa.DataType") -> str:
    """Return the name of a type without its parameters, which are the sender's."""
    return str(kind).partition("<")[0].partition("[")[0]
