"""CSV, read by pyarrow.

Blocks are parsed fast and in parallel up to the first unusual one. The file is then read again, with one thread, to
read that block or to name the row of its fault.
"""

import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

from app.data.batch import Array, Columns, RowBatch, Source, check_present, from_record_batch, open_source
from app.data.columns.schema import PLAIN, Dialect
from app.data.formats.arrow_columns import record_batch
from app.data.formats.base import Content, Output, TableFormat, TableWriter
from app.data.formats.csv_careful import conversion, conversion_to_text, read_carefully
from app.data.formats.csv_header import (
    MAX_ROW_BYTES,
    body_start,
    explain_first_row,
    has_separators,
    header_names,
    read_beginning,
)
from app.data.lazy_pyarrow import pa, raise_if_memory
from app.data.rfc3339 import dates_as_text
from app.data.rounding import has_large
from app.errors import InvalidInput, LinserveError

BLOCK_BYTES = 1 << 21  # Bytes parsed at a time by each of several threads.
SINGLE_BLOCK_BYTES = 1 << 19  # Bytes parsed at a time by a single thread. A parsed byte may take eight or more.


class CsvFormat(TableFormat):
    """Rows of values separated by commas. Rows count from 1 as in a spreadsheet; empty lines do not count."""

    name = "csv"
    media_type = "text/csv"
    label = "CSV"
    is_text = True
    options = frozenset({"sep", "encoding", "header", "skip"})
    has_untyped_text = True

    def recognises(self, text: bytes) -> bool:
        return not text.startswith(b"{") and has_separators(text)

    def may_be(self, content: Content, head: bytes, error: LinserveError) -> bool:  # noqa: ARG002
        # A name may begin with a bracket.
        looks_like_json = content.body_format is not None and content.body_format.names_in_rows
        return looks_like_json and any((detail.row or 1) > 1 for detail in error.details)

    def explain(self, error: LinserveError, head: bytes, dialect: Dialect) -> LinserveError:
        # Only faults of the first row have no place, or row 1.
        if any(detail.row not in (None, 1) or detail.pointer is not None for detail in error.details):
            return error
        return explain_first_row(head, dialect.header, in_row_1=any(detail.row for detail in error.details)) or error

    def first_row(self, dialect: Dialect) -> int:
        return 1 if dialect.header == "none" else 2

    def column_names(self, source: Source, dialect: Dialect = PLAIN) -> list[str]:
        return header_names(read_beginning(source), dialect.header)

    def batches(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
        """Yield the rows of a file with a header row, or without one if `columns.dialect.header` is "none".

        A file that is not UTF-8 is refused wherever its first such byte is, in a column that is read or not.
        """
        beginning = read_beginning(source)
        header = header_names(beginning, columns.dialect.header)
        check_present(header, columns)
        start = body_start(beginning, header, columns.dialect.header)
        rows = 0
        try:
            for batch in _read_fast(source, start, header, columns, threads):
                yield batch
                rows += len(batch.values)
        except _UnusualError:
            first_row = self.first_row(columns.dialect)
            yield from _without_first(rows, read_carefully(source, header, columns, first_row))

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        return _CsvWriter(file, keep, names)


CSV = CsvFormat()


class _UnusualError(Exception):
    """A block that only `read_carefully` can read, or name the fault of."""


def _read_fast(
    source: Source, start: int | None, header: Sequence[str], columns: Columns, threads: int
) -> Iterator[RowBatch]:
    """Parse blocks that end with line breaks, in parallel. Raises _UnusualError if they cannot be parsed like this."""
    if start is None:
        raise _UnusualError
    size = BLOCK_BYTES if threads > 1 else SINGLE_BLOCK_BYTES
    known: set[int] = set()  # Columns in which an integer was rounded; later blocks need not be searched for another.
    with open_source(source) as file:
        for batch in _parsed(_blocks(file, start, size), header, columns, known, threads):
            known.update(index for index, _ in batch.rounded)
            yield batch


def _parsed(
    blocks: Iterable[bytes], header: Sequence[str], columns: Columns, known: AbstractSet[int], threads: int
) -> Iterator[RowBatch]:
    if threads <= 1:
        for block in blocks:
            yield _parse(block, header, columns, known)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[RowBatch]] = deque()
        for block in blocks:
            # Blocks are read here, in the file's order; at most `threads` + 1 are in memory.
            ahead.append(pool.submit(_parse, block, header, columns, frozenset(known)))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _blocks(file: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    """Yield whole lines, about `size` bytes at a time, from `start` to the end of the file."""
    file.seek(start)
    while block := file.read(size):
        rest = file.readline(MAX_ROW_BYTES)
        if len(rest) == MAX_ROW_BYTES and not rest.endswith(b"\n"):
            raise _UnusualError
        yield block + rest


def _parse(block: bytes, header: Sequence[str], columns: Columns, known: AbstractSet[int]) -> RowBatch:
    if b'"' in block:  # Its line breaks may be inside quotes.
        raise _UnusualError
    try:
        if not block.isascii():
            block.decode()
        null_values: list[str] | None = None if columns.missing else []
        batch = _parse_block(block, header, conversion(columns, null_values=null_values))
        return from_record_batch(batch, columns, 0, lambda values: _texts(block, header, columns, values, known))
    except (pa.ArrowException, InvalidInput, IndexError, UnicodeDecodeError) as error:
        raise_if_memory(error)
        raise _UnusualError from None


def _parse_block(block: bytes, header: Sequence[str], options: "pa.csv.ConvertOptions") -> "pa.RecordBatch":
    table = pa.csv.read_csv(
        pa.py_buffer(block),
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=header),
        parse_options=pa.csv.ParseOptions(quote_char=False),
        convert_options=options,
    )
    return table.combine_chunks().to_batches()[0]


def _texts(
    block: bytes, header: Sequence[str], columns: Columns, values: Array, known: AbstractSet[int]
) -> "pa.RecordBatch | None":
    """Parse the columns with large values again, as text, apart from the known ones."""
    large = [columns.numbers[index] for index in range(len(values)) if index not in known and has_large(values[index])]
    return _parse_block(block, header, conversion_to_text(large)) if large else None


def _without_first(rows: int, batches: Iterator[RowBatch]) -> Iterator[RowBatch]:
    """Yield the batches without their first `rows` rows."""
    for batch in batches:
        skipped = min(rows, len(batch.values))
        rows -= skipped
        if skipped < len(batch.values):
            yield batch.slice(skipped, len(batch.values))


class _CsvWriter:
    def __init__(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> None:
        self._file, self._names = file, names
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow([*keep, *names])
        file.write(header.getvalue().encode())

    def write(self, kept: "pa.RecordBatch | None", values: Array) -> None:
        batch = record_batch(None if kept is None else dates_as_text(kept), self._names, values)
        try:
            try:
                text = _csv_text(batch, "none")
            except pa.ArrowInvalid:  # A value needs quotes; then all words have them.
                text = _csv_text(batch, "needed")
        except pa.ArrowException as error:
            raise_if_memory(error)
            raise InvalidInput("A kept column has values that CSV cannot hold. Accept Arrow or Parquet.") from None
        self._file.write(text)

    def close(self) -> None:
        pass


def _csv_text(batch: "pa.RecordBatch", quoting: str) -> bytes:
    text = io.BytesIO()
    pa.csv.write_csv(batch, text, pa.csv.WriteOptions(include_header=False, quoting_style=quoting))
    return text.getvalue()
