"""Arrow IPC streams and Parquet files."""

import functools
import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from app.data.batch import Columns, RowBatch, Source, check_distinct, check_names, from_record_batch, part_rows
from app.data.kept_types import is_words, kept_type, words_in_dictionaries, written_out
from app.data.limits.arrow_limits import check_arrow_schema
from app.data.limits.arrow_memory import raise_if_memory
from app.data.limits.parquet_limits import check_parquet_footer, check_parquet_size
from app.data.name_hints import MAX_LISTED, shown
from app.errors import FieldError, InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

DROP_BYTES = 1 << 24  # of a mapped file, after which the pages that were read are let go
MAX_WORDS = 100_000_000  # in the dictionaries of an Arrow stream, which are looked at again with each batch
BUFFER_BYTES = 1 << 20  # of each column chunk of a Parquet file


def arrow_names(source: Source) -> list[str]:
    """The names of the columns. Raises InvalidInput where the file is no Arrow stream, or a name stands twice."""
    return _names(_readable("an Arrow stream", lambda: _open_stream(source)[0].schema))


def arrow_index(source: Source) -> list[str]:
    """Return the names of the columns that are the index of a pandas frame. Raises as `arrow_names` does."""
    return _index(_readable("an Arrow stream", lambda: _open_stream(source)[0].schema))


def read_arrow(source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:  # noqa: ARG001 - as all readers
    """The rows of an Arrow IPC stream, in memory that does not grow with it, nor with its batches.

    Raises InvalidInput with the place of the first value that is missing or not finite, or with the column that holds
    no numbers. Rows count from 1.
    """
    reader, mapped = _readable("an Arrow stream", lambda: _open_stream(source))
    check_names(_names(reader.schema), columns, _index(reader.schema))
    _check_types(reader.schema, columns)
    kinds = {name: reader.schema.field(name).type for name in columns.keep}
    kept = {name: new for name, kind in kinds.items() if (new := kept_type(kind)) != kind}
    size, row, read, words = part_rows(columns), 1, 0, 0
    while (batch := _readable("an Arrow stream", lambda: _next_batch(reader, columns))) is not None:
        words += words_in_dictionaries(batch) if kept else 0
        if words > MAX_WORDS:
            raise InvalidInput(
                f"The dictionaries of the columns to keep have more than {MAX_WORDS} words in all batches together. "
                "Write larger batches, or strings instead of dictionaries."
            )
        # A stream is trusted otherwise, and wrong offsets of strings would be read from anywhere.
        _readable("an Arrow stream", functools.partial(batch.validate, full=bool(columns.keep)))
        slices = (batch.slice(start, size) for start in range(0, batch.num_rows, size))
        for part in written_out(batch, kept, size) if kept else slices:
            yield from_record_batch(part, columns, row)
            row += part.num_rows
            read += part.nbytes
            if mapped is not None and read > DROP_BYTES:
                mapped.madvise(mmap.MADV_DONTNEED)
                read = 0


def parquet_names(source: Source) -> list[str]:
    """The names of the columns. Raises InvalidInput where the file is no Parquet, or a name stands twice."""
    return _names(_readable("Parquet", lambda: _open_parquet(source).schema_arrow))


def parquet_index(source: Source) -> list[str]:
    """Return the names of the columns that are the index of a pandas frame. Raises as `parquet_names` does."""
    return _index(_readable("Parquet", lambda: _open_parquet(source).schema_arrow))


def read_parquet(source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
    """The rows of a Parquet file, one part after the other.

    Raises InvalidInput as `read_arrow` does.
    """
    file = _readable("Parquet", lambda: _open_parquet(source))
    check_names(_names(file.schema_arrow), columns, _index(file.schema_arrow))
    _check_types(file.schema_arrow, columns)
    wanted = [*columns.numbers, *(name for name in columns.keep if name not in columns.numbers)]
    kinds = {name: file.schema_arrow.field(name).type for name in columns.keep}
    words = [name for name, kind in kinds.items() if is_words(kind)]
    kept = {name: new for name, kind in kinds.items() if (new := kept_type(kind)) != kind or is_words(new)}
    if words:
        file = _readable("Parquet", lambda: _open_parquet(source, words))
    batches = file.iter_batches(part_rows(columns), columns=wanted, use_threads=False)
    row = 1
    for batch in _ahead(batches) if threads > 1 else _each(batches):
        for piece in written_out(batch, kept, part_rows(columns)) if kept else (batch,):
            yield from_record_batch(piece, columns, row)
            row += piece.num_rows


def check_parquet(source: Source, names: Sequence[str], limit: int) -> int:
    """Return about how many bytes are decoded at a time.

    Raises BodyTooLarge or InvalidInput if the columns come to more than may be decoded.
    """
    file = _readable("Parquet", lambda: _open_parquet(source))
    paths = [file.schema.column(index).path for index in range(len(file.schema))]
    return check_parquet_size(source, paths, list(names), limit)


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
    return batch.select(list(dict.fromkeys([*columns.numbers, *columns.keep])))


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
    except (pa.ArrowException, OSError, ValueError) as error:
        raise_if_memory(error)
        raise InvalidInput(
            f"The body was sent as {kind}, but is not readable as {kind}. Write it again, or correct Content-Type."
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


class _PandasMetadata(msgspec.Struct):
    index_columns: list[Any] = []


def _index(schema: "pa.Schema") -> list[str]:
    """Return the columns that the metadata of pandas names as a frame's index; an index that is a range has none."""
    text = (schema.metadata or {}).get(b"pandas", b"{}")
    try:
        named = msgspec.json.decode(text, type=_PandasMetadata).index_columns
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    present = set(schema.names)
    return [name for name in named if isinstance(name, str) and name in present]


def _check_types(schema: "pa.Schema", columns: Columns) -> None:
    from pyarrow import types

    choice = ", or choose the columns to read with `features`" if columns.training else ""
    details = [
        FieldError(f"Expected numbers, found the type {_type_name(kind)}. Convert the column{choice}.", column=name)
        for name in columns.numbers
        if not (
            types.is_integer(kind := schema.field(name).type)
            or types.is_floating(kind)
            or types.is_decimal(kind)
            or types.is_null(kind)
        )
    ]
    details += [
        FieldError("Only numbers, words, booleans, dates and times can be kept.", column=name)
        for name in columns.keep
        if kept_type(schema.field(name).type) is None
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
