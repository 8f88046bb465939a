"""Arrow IPC streams, and the streams in Arrow files, which are also called Feather."""

import functools
import mmap
from collections.abc import Iterator, Mapping, Sequence

from app.data.batch import CellBatch, Columns, RangedFile, RowBatch, Source, batch_rows, from_record_batch
from app.data.columns.schema import PLAIN, Dialect
from app.data.formats.arrow_cells import cell_batch, cell_types, types_to_cast
from app.data.formats.arrow_columns import ArrowTableWriter, SchemaFormat, check_columns, readable
from app.data.formats.base import Output, Span, TableFormat, TableWriter, joined_spans
from app.data.kept_types import cast_kept, kept_type
from app.data.lazy_pyarrow import pa
from app.data.limits.arrow_limits import (
    arrow_batches,
    check_arrow_schema,
    check_arrow_size,
    stream_of,
    stream_of_batches,
)
from app.data.limits.decode_limits import METADATA_BYTES, view_of
from app.errors import InvalidInput

RELEASE_BYTES = 1 << 24  # Bytes read from a mapped file, after which its pages are released.
MAX_WORDS = 100_000_000  # Words in the dictionaries of all batches, because they are checked again for each batch.

_LABEL = "an Arrow IPC stream"
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class ArrowFormat(SchemaFormat):
    name = "arrow"
    media_type = "application/vnd.apache.arrow.stream"
    label = _LABEL
    signature = b"\xff\xff\xff\xff"
    needs_whole_file = True  # it is mapped into memory

    def __init__(self, span: Span | None = None) -> None:
        """Read only the batches of `span`, if it is given."""
        self._span = span

    def first_row(self, dialect: Dialect) -> int:  # noqa: ARG002
        return 1 if self._span is None else self._span.first_row

    def spans(self, source: Source, dialect: Dialect, size: int) -> list[Span]:  # noqa: ARG002
        # A file that is elsewhere is read as a whole.
        return [] if isinstance(source, RangedFile) else joined_spans(arrow_batches(source), size)

    def within(self, span: Span) -> TableFormat:
        return ArrowFormat(span)

    def schema(self, source: Source) -> "pa.Schema":
        if isinstance(source, RangedFile):  # the schema comes first
            with source.open() as file:
                source = file.read(2 * METADATA_BYTES)
        return _open(source)[0].schema

    def check_size(self, source: Source, names: Sequence[str], limit: int) -> int:
        return check_arrow_size(source, len(names), limit)

    def check_memory(self, source: Source, names: Sequence[str]) -> None:
        if not isinstance(source, RangedFile):
            check_arrow_size(source, len(names), None)

    def batches(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:  # noqa: ARG002
        reader, mapped = _open(source, self._span)
        check_columns(reader.schema, columns)
        types = {name: reader.schema.field(name).type for name in columns.keep}
        kept = {name: new for name, old in types.items() if (new := kept_type(old)) != old}
        row = self.first_row(PLAIN)
        for batch in _record_batches(reader, mapped, columns, kept):
            yield from_record_batch(batch, columns, row)
            row += batch.num_rows

    def cells(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[CellBatch]:  # noqa: ARG002
        reader, mapped = _open(source, self._span)
        cast = types_to_cast(cell_types(reader.schema, columns), reader.schema)
        row = self.first_row(PLAIN)
        for batch in _record_batches(reader, mapped, columns, cast):
            yield cell_batch(batch, columns, row)
            row += batch.num_rows

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        return ArrowTableWriter(keep, names, functools.partial(_StreamWriter, file))


ARROW = ArrowFormat()


@readable(_LABEL)
def _open(source: Source, span: Span | None = None) -> "tuple[pa.ipc.RecordBatchStreamReader, mmap.mmap | None]":
    """Return a reader, and the file's memory map if the source is a file that is not empty.

    With a span, the batches in it are copied and not mapped.
    """
    check_arrow_schema(source)
    view = stream_of(view_of(source)) if span is None else stream_of_batches(source, span.start, span.stop)
    return pa.ipc.open_stream(pa.py_buffer(view)), view.obj if isinstance(view.obj, mmap.mmap) else None


def _record_batches(
    reader: "pa.ipc.RecordBatchStreamReader",
    mapped: "mmap.mmap | None",
    columns: Columns,
    cast: "Mapping[str, pa.DataType]",
) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of `columns`, in memory that grows neither with the stream nor with its batches.

    Columns in `cast` come as these types.
    """
    size, read, words = batch_rows(Columns(columns.names)), 0, 0
    while (message := _next_batch(reader, columns)) is not None:
        for column in message.columns if cast else ():
            words += len(column.dictionary) if isinstance(column, pa.DictionaryArray) else 0
        if words > MAX_WORDS:
            raise InvalidInput(
                f"The dictionaries of the columns have more than {MAX_WORDS} words in all batches together. Write "
                "larger batches, or strings instead of dictionaries."
            )
        with readable(_LABEL):
            # pyarrow trusts a stream, and wrong offsets of strings would be read from anywhere.
            message.validate(full=bool(columns.keep))
        slices = (message.slice(start, size) for start in range(0, message.num_rows, size))
        for batch in cast_kept(message, cast, size) if cast else slices:
            yield batch
            read += batch.nbytes
            if mapped is not None and read > RELEASE_BYTES:
                mapped.madvise(mmap.MADV_DONTNEED)
                read = 0


@readable(_LABEL)
def _next_batch(reader: "pa.ipc.RecordBatchStreamReader", columns: Columns) -> "pa.RecordBatch | None":
    batch = next(reader, None)
    return None if batch is None else batch.select(columns.names)


class _StreamWriter:
    """Writes each message in one piece. pyarrow's stream writer would copy it in many."""

    def __init__(self, file: Output, schema: "pa.Schema") -> None:
        self._file = file
        file.write(memoryview(schema.serialize()))

    def write_batch(self, batch: "pa.RecordBatch") -> None:
        self._file.write(memoryview(batch.serialize()))

    def close(self) -> None:
        self._file.write(_END_OF_STREAM)
