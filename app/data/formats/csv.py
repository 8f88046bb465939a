"""CSV, read by pyarrow in blocks of whole rows."""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from app.data.batch import Array, CellBatch, Columns, RowBatch, Source, check_present, open_source
from app.data.columns.dialect import SAMPLE_BYTES, sniff
from app.data.columns.encodings import beginning, encoding_of, text_chunks
from app.data.columns.options import ReadingOptions
from app.data.columns.schema import PLAIN, Dialect
from app.data.columns.text_rows import count_rows, whole_rows
from app.data.formats.arrow_columns import record_batch
from app.data.formats.base import Content, Output, Span, TableFormat, TableWriter
from app.data.formats.csv_blocks import BlockParser
from app.data.formats.csv_header import Layout, explain_first_row, has_separators, header_without_end, read_layout
from app.data.lazy_pyarrow import pa, raise_if_memory
from app.data.rfc3339 import dates_as_text
from app.errors import InvalidInput, LinserveError

BLOCK_BYTES = 1 << 21  # Bytes parsed at a time by each of several threads.
SINGLE_BLOCK_BYTES = 1 << 19  # Bytes parsed at a time by a single thread. A parsed byte may take eight or more.
SCAN_BYTES = 1 << 22  # Bytes of which the rows are counted at a time.
_QUOTED_NULL = b'""\n'


class CsvFormat(TableFormat):
    """Rows of values separated by commas. Rows count from 1 as in a spreadsheet; empty lines do not count."""

    name = "csv"
    media_type = "text/csv"
    label = "CSV"
    is_text = True
    options = frozenset({"sep", "encoding", "header", "skip"})
    has_untyped_text = True

    def __init__(self, span: Span | None = None) -> None:
        """Read only the rows of `span`, if it is given."""
        self._span = span

    def recognises(self, text: bytes) -> bool:
        return not text.startswith(b"{") and has_separators(text)

    def may_be(self, content: Content, head: bytes, error: LinserveError) -> bool:  # noqa: ARG002
        # A name may begin with a bracket.
        looks_like_json = content.body_format is not None and content.body_format.names_in_rows
        return looks_like_json and any((detail.row or 1) > 1 for detail in error.details)

    def explain(self, error: LinserveError, head: bytes, dialect: Dialect) -> LinserveError:
        # Only faults of the first row have no place, or its number.
        row = dialect.skip + 1
        if any(
            detail.row not in (None, row) or detail.pointer is not None or detail.parameter is not None
            for detail in error.details
        ):
            return error
        return explain_first_row(head, dialect, in_first_row=any(detail.row for detail in error.details)) or error

    def dialect(self, source: Source, options: ReadingOptions, known: Dialect | None = None) -> Dialect:
        with open_source(source) as file:
            encoding = encoding_of(file.read(SAMPLE_BYTES), options.encoding, known.encoding if known else None)
        text, is_whole = beginning(source, encoding, SAMPLE_BYTES)
        if is_whole and not text.endswith((b"\r", b"\n")):
            text += b"\n"  # A row without it is not whole.
        return replace(sniff(text, options, known), encoding=encoding)

    def first_row(self, dialect: Dialect) -> int:
        return dialect.skip + 1 + (dialect.header != "none") if self._span is None else self._span.first_row

    def spans(self, source: Source, dialect: Dialect, size: int) -> list[Span]:
        layout = self._layout(source, dialect)
        if dialect.encoding != "utf-8" or layout.start is None:
            return []
        return list(_spans(source, layout, size))

    def within(self, span: Span) -> "CsvFormat":
        return CsvFormat(span)

    def column_names(self, source: Source, dialect: Dialect = PLAIN) -> list[str]:
        return self._layout(source, dialect).names

    def batches(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
        """Yield the rows of a file. Bytes that are not UTF-8 are refused also in columns that are not read."""
        layout = self._layout_with(source, columns)
        yield from BlockParser(layout, columns).read(self._blocks(source, layout, threads), threads)

    def cells(self, source: Source, columns: Columns, threads: int = 1) -> Iterator[CellBatch]:
        layout = self._layout_with(source, columns)
        yield from BlockParser(layout, columns).read_cells(self._blocks(source, layout, threads), threads)

    def writer(self, file: Output, keep: Sequence[str], names: Sequence[str]) -> TableWriter:
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow([*keep, *names])
        file.write(header.getvalue().encode())
        return CsvRowsWriter(file, names)

    def _layout(self, source: Source, dialect: Dialect) -> Layout:
        return read_layout(source, dialect)

    def _layout_with(self, source: Source, columns: Columns) -> Layout:
        """Return the layout of a file. Raises InvalidInput if it lacks some of the columns."""
        layout = self._layout(source, columns.dialect)
        check_present(layout.names, columns)
        return layout._replace(first_row=self.first_row(columns.dialect))

    def _blocks(self, source: Source, layout: Layout, threads: int) -> Iterator[bytes]:
        if layout.start is None:
            raise header_without_end(layout)
        size = BLOCK_BYTES if threads > 1 else SINGLE_BLOCK_BYTES
        start, stop = (layout.start, None) if self._span is None else (self._span.start, self._span.stop)
        return whole_rows(text_chunks(source, layout.dialect.encoding, size, start, stop), layout.dialect.sep)


CSV = CsvFormat()


def _spans(source: Source, layout: Layout, size: int) -> Iterator[Span]:
    """Yield the spans of a file in UTF-8. If a row is too long, the last span has the rest of the file."""
    assert layout.start is not None
    sep, at, row = layout.dialect.sep, layout.start, layout.first_row
    start, first_row = at, row
    try:
        for block in whole_rows(text_chunks(source, "utf-8", SCAN_BYTES, at), sep):
            at += len(block)
            row += count_rows(block if block.endswith(b"\n") else block + b"\n", sep)
            if at - start >= size:
                yield Span(start, at, first_row, row - first_row)
                start, first_row = at, row
    except InvalidInput:  # raised again when the rows are read, unless an earlier row has a fault
        at = sys.maxsize
    if at > start:
        yield Span(start, at, first_row, row - first_row)


class CsvRowsWriter:
    """Writes rows without a header."""

    def __init__(self, file: Output, names: Sequence[str]) -> None:
        self._file, self._names = file, names

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
        if batch.num_columns == 1:
            # Readers of CSV skip empty lines, so that the rows after a null would no longer match those of the request.
            text = b"".join(_QUOTED_NULL if line == b"\n" else line for line in text.splitlines(keepends=True))
        self._file.write(text)

    def close(self) -> None:
        pass


def _csv_text(batch: "pa.RecordBatch", quoting: str) -> bytes:
    text = io.BytesIO()
    pa.csv.write_csv(batch, text, pa.csv.WriteOptions(include_header=False, quoting_style=quoting))
    return text.getvalue()
