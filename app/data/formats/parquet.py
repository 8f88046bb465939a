"""Parquet files."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.data.batch import CellBatch, Columns, RangedFile, RowBatch, Source, batch_rows, from_record_batch
from app.data.columns.schema import PLAIN, Dialect
from app.data.formats.arrow_cells import cell_batch, cell_types, types_to_cast
from app.data.formats.arrow_columns import ArrowTableWriter, SchemaFormat, categorical_names, check_columns, readable
from app.data.formats.base import Output, Span, TableFormat, TableWriter, joined_spans
from app.data.kept_types import cast_kept, is_words, kept_type
from app.data.lazy_pyarrow import pa
from app.data.limits.parquet_limits import (
    THRIFT_LIMITS,
    check_parquet_footer,
    check_parquet_size,
    parquet_footer_bytes,
    parquet_row_groups,
)
from app.errors import InvalidInput

BUFFER_BYTES = 1 << 20  # Bytes read ahead for each column chunk.
MAX_CHUNKS = 200_000  # Column chunks of a written file, because each takes hundreds of bytes to describe.


_LABEL = "Parquet"


class ParquetFormat(SchemaFormat):
    name = "parquet"
    media_type = "application/vnd.apache.parquet"
    label = _LABEL
    file_label = "a Parquet file"
    signature = b"PAR1"

    def __init__(self, span: Span | None = None) -> None:
        """Read only the row groups of `span`, if it is given."""
        self._span = span

    def first_row(self, dialect: Dialect) -> int:  # noqa: ARG002
        return 1 if self._span is None else self._span.first_row

    def spans(self, source: Source, dialect: Dialect, size: int) -> list[Span]:  # noqa: ARG002
        return joined_spans(parquet_row_groups(source), size)

    def within(self, span: Span) -> TableFormat:
        return ParquetFormat(span)

    def schema(self, source: Source) -> "pa.Schema":
        return _schema(_open(source))

    def metadata_bytes(self, source: Source) -> int:
        return parquet_footer_bytes(source)

    def check_size(self, source: Source, names: Sequence[str], limit: int) -> int:
        schema = _open(source).schema
        paths = [schema.column(index).path for index in range(len(schema))]
        return check_parquet_size(source, paths, list(names), limit)

    def check_memory(self, source: Source, names: Sequence[str]) -> None:
        schema = _open(source).schema
        paths = [schema.column(index).path for index in range(len(schema))]
        groups = None if self._span is None else slice(self._span.start, self._span.stop)
        check_parquet_size(source, paths, list(names), None, groups or slice(None))

    def batches(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
        schema = _schema(_open(source))
        check_columns(schema, columns)
        types = {name: schema.field(name).type for name in columns.keep}
        kept = {name: new for name, old in types.items() if (new := kept_type(old)) != old or is_words(new)}
        row = self.first_row(PLAIN)
        for batch in self._record_batches(source, columns, schema, kept, threads):
            yield from_record_batch(batch, columns, row)
            row += batch.num_rows

    def cells(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[CellBatch]:
        schema = _schema(_open(source))
        types = cell_types(schema, columns)
        coded = {name: types[name] for name in categorical_names(schema) if name in columns.keep}
        types |= {name: pa.dictionary(pa.int32(), type_) for name, type_ in coded.items()}
        cast = types_to_cast(types, schema) | {name: type_ for name, type_ in types.items() if is_words(type_)}
        row = self.first_row(PLAIN)
        for batch in self._record_batches(source, columns, schema, cast, threads):
            yield cell_batch(batch, columns, row)
            row += batch.num_rows

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        return ArrowTableWriter(keep, names, functools.partial(_BoundedWriter, file))

    def _record_batches(
        self,
        source: Source,
        columns: Columns,
        schema: "pa.Schema",
        cast: "Mapping[str, pa.DataType]",
        threads: int,
    ) -> "Iterator[pa.RecordBatch]":
        """Yield the rows of `columns`. Those in `cast` come as these types, and words among them as dictionaries.

        A page may have one long word for many rows, which would be repeated if it was not a dictionary.
        """
        size = batch_rows(Columns(columns.names))
        words = [name for name in cast if is_words(schema.field(name).type)]
        file = _open(source, words)
        if self._span is None:
            decoded = _valid(file.iter_batches(size, columns=columns.names, use_threads=False))
        else:
            decoded = _row_groups(file, range(self._span.start, self._span.stop), size, columns.names)
        for whole in _decoded_ahead(decoded) if threads > 1 else decoded:
            yield from cast_kept(whole, cast, size) if cast else (whole,)


PARQUET = ParquetFormat()


@readable(_LABEL)
def _open(source: Source, words: Sequence[str] = ()) -> Any:
    """Return the file. The columns `words` are read as dictionaries."""
    check_parquet_footer(source)
    readable_source: Any = pa.py_buffer(source) if isinstance(source, bytes) else source
    if isinstance(source, RangedFile):
        readable_source = source.open()
    # With pre_buffer, all row groups would be read at once.
    return pa.parquet.ParquetFile(
        readable_source, read_dictionary=list(words), buffer_size=BUFFER_BYTES, pre_buffer=False, **THRIFT_LIMITS
    )


@readable(_LABEL)
def _schema(file: Any) -> "pa.Schema":
    return file.schema_arrow


def _row_groups(file: Any, groups: range, size: int, names: list[str]) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of row groups. Raises InvalidInput with the number of one that is damaged, from 0."""
    for group in groups:
        try:
            yield from _valid(file.iter_batches(size, row_groups=[group], columns=names, use_threads=False))
        except InvalidInput:
            raise InvalidInput(
                f"Row group {group} is not readable as Parquet: it is damaged or cut off. Write the file again."
            ) from None


def _valid(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    with readable(_LABEL):
        for batch in batches:
            batch.validate(full=True)  # finds words that are not UTF-8
            yield batch


def _decoded_ahead(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """Yield the batches, and decode the next one in a thread meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


class _BoundedWriter:
    """pyarrow's writer, with a limit on the column chunks."""

    def __init__(self, file: Output, schema: "pa.Schema") -> None:
        self._writer = pa.parquet.ParquetWriter(file, schema)
        self._chunks = 0

    def write_batch(self, batch: "pa.RecordBatch") -> None:
        self._chunks += batch.num_columns
        if self._chunks > MAX_CHUNKS:
            raise InvalidInput("The answer has too many columns and rows for Parquet. Accept another format.")
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()
