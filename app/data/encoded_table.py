"""Read a file by the schema of a version: into columns of the design, and columns to pass through unchanged."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from app.data.batch import Columns, RowBatch, Source, batch_rows, in_columns
from app.data.columns.encoder import Encoder, Notes, Unknown
from app.data.columns.options import Decimal, ReadingOptions
from app.data.columns.schema import Column, Dialect
from app.data.content import explained
from app.data.formats.base import TableFormat
from app.data.kept_types import decoded
from app.data.lazy_pyarrow import pa
from app.errors import FieldError

_GAP = "The value is missing. Fill it in, or get null results with `missing=null`."


class ColumnsToEncode(NamedTuple):
    """The columns of a file, how they are encoded, and which of them pass through."""

    columns: Sequence[Column]
    keep: Sequence[str] = ()
    unknown: Unknown = "null"
    refuse_gaps: bool = False  # True if a gap is an error, unless its column fills it


def as_sent(column: Column, options: ReadingOptions, decimal: Decimal) -> Column:
    """Return a column of the schema as a file has it: read by these options, and with this decimal sign."""
    thousands = column.thousands if options.thousands is None else options.thousands
    if thousands == decimal:  # as in 1.234,5 instead of 1,234.5
        thousands = "." if decimal == "," else ","
    return replace(
        column,
        decimal=decimal,
        thousands=thousands,
        na=(*column.na, *options.na),
        strip=(*column.strip, *options.strip),
        dates=options.dates or column.dates,
    )


def encoded_batches(
    source: Source, table_format: TableFormat, read: Columns, encode: ColumnsToEncode, notes: Notes
) -> Iterator[RowBatch]:
    """Yield the rows with encoded values, and add what was found to the notes.

    `read` has the options of reading; its columns are replaced. Raises InvalidInput with the places of faults.
    """
    untyped = table_format.has_untyped_text
    encoder = Encoder(encode.columns, unknown=encode.unknown, dialect=read.dialect, untyped=untyped)
    texts = dict.fromkeys([*encoder.texts, *encode.keep])
    unchanged = frozenset(encode.keep).difference(encoder.texts, encoder.typed)
    read = read._replace(numbers=encoder.typed, keep=[*texts], missing=True, unchanged=unchanged)
    size = batch_rows(read._replace(numbers=encoder.names))
    row = table_format.first_row(read.dialect)
    with explained(source, table_format, read.dialect):
        for batch in table_format.cells(source, read):
            for start in range(0, batch.cells.num_rows, size):
                cells = batch.cells.slice(start, size)
                values = encoder.encode(cells, row, notes)
                if encode.refuse_gaps and np.isnan(values).any():
                    _check_gaps(cells, encode, read.dialect, row)
                kept = decoded(cells.select(list(encode.keep))) if encode.keep else None
                yield RowBatch(values, kept)
                row += cells.num_rows


def _check_gaps(cells: "pa.RecordBatch", encode: ColumnsToEncode, dialect: Dialect, first_row: int) -> None:
    """Raise InvalidInput with the place of the first gap of each column. Unseen levels are not gaps."""
    _, gaps = Encoder(encode.columns, unknown="reference", dialect=dialect).encode_with_gaps(cells, first_row)
    if gaps is not None:
        columns = np.flatnonzero(gaps.any(axis=0))
        rows = np.argmax(gaps[:, columns], axis=0)
        places = zip(rows.tolist(), columns.tolist(), strict=True)
        raise in_columns(
            [FieldError(_GAP, row=first_row + row, column=encode.columns[column].name) for row, column in places]
        )
