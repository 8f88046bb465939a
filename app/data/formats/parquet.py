"""Parquet files."""

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.data.batch import Columns, Header, RowBatch, Source, batch_rows, from_record_batch
from app.data.formats.arrow_columns import ArrowTableWriter, check_columns, index_names, readable, schema_names
from app.data.formats.base import Output, TableFormat, TableWriter
from app.data.kept_types import cast_kept, is_words, kept_type
from app.data.lazy_pyarrow import pa
from app.data.limits.parquet_limits import (
    THRIFT_LIMITS,
    check_parquet_footer,
    check_parquet_size,
    parquet_footer_bytes,
)
from app.errors import InvalidInput

BUFFER_BYTES = 1 << 20  # Bytes read ahead for each column chunk.
MAX_CHUNKS = 200_000  # Column chunks of a written file, because each takes hundreds of bytes to describe.


class ParquetFormat(TableFormat):
    name = "parquet"
    media_type = "application/vnd.apache.parquet"
    label = "Parquet"
    file_label = "a Parquet file"
    extensions = ("parquet",)
    signature = b"PAR1"
    is_text = False

    def column_names(self, source: Source, header: Header | None = None) -> list[str]:  # noqa: ARG002
        return schema_names(self._schema(source))

    def index_columns(self, source: Source) -> list[str]:
        return index_names(self._schema(source))

    def metadata_bytes(self, source: Source) -> int:
        return parquet_footer_bytes(source)

    def check_size(self, source: Source, names: Sequence[str], limit: int) -> int:
        schema = self._open(source).schema
        paths = [schema.column(index).path for index in range(len(schema))]
        return check_parquet_size(source, paths, list(names), limit)

    def batches(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
        file, size = self._open(source), batch_rows(columns)
        schema = readable(self.label, lambda: file.schema_arrow)
        check_columns(schema, columns)
        wanted = [*columns.numbers, *(name for name in columns.keep if name not in columns.numbers)]
        types = {name: schema.field(name).type for name in columns.keep}
        words = [name for name, old in types.items() if is_words(old)]
        kept = {name: new for name, old in types.items() if (new := kept_type(old)) != old or is_words(new)}
        if words:
            file = self._open(source, words)
        decoded = self._valid(file.iter_batches(size, columns=wanted, use_threads=False))
        row = 1
        for whole in _decoded_ahead(decoded) if threads > 1 else decoded:
            for batch in cast_kept(whole, kept, size) if kept else (whole,):
                yield from_record_batch(batch, columns, row)
                row += batch.num_rows

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        return ArrowTableWriter(keep, names, functools.partial(_BoundedWriter, file))

    def _schema(self, source: Source) -> "pa.Schema":
        return readable(self.label, lambda: _open(source).schema_arrow)

    def _open(self, source: Source, words: Sequence[str] = ()) -> Any:
        return readable(self.label, lambda: _open(source, words))

    def _valid(self, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        while (batch := readable(self.label, lambda: _next_valid(batches))) is not None:
            yield batch


PARQUET = ParquetFormat()


def _open(source: Source, words: Sequence[str] = ()) -> Any:
    """Return the file. The columns `words` are read as dictionaries."""
    check_parquet_footer(source)
    readable_source = pa.py_buffer(source) if isinstance(source, bytes) else Path(source)
    # With pre_buffer, all row groups would be read at once.
    return pa.parquet.ParquetFile(
        readable_source, read_dictionary=list(words), buffer_size=BUFFER_BYTES, pre_buffer=False, **THRIFT_LIMITS
    )


def _next_valid(batches: "Iterator[pa.RecordBatch]") -> "pa.RecordBatch | None":
    batch = next(batches, None)
    if batch is not None:
        batch.validate(full=True)  # finds words that are not UTF-8
    return batch


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
