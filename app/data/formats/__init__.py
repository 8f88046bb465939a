"""The formats that rows come in as files, and how each is read."""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from app.data.batch import Columns, Header, Reader, RowBatch, Source
from app.data.faults import read_rows
from app.data.formats.arrow import (
    arrow_index,
    arrow_names,
    check_parquet,
    parquet_index,
    parquet_names,
    read_arrow,
    read_parquet,
)
from app.data.formats.content import explained
from app.data.formats.csv import csv_names, first_csv_row, read_csv
from app.data.formats.ndjson import ndjson_names, read_ndjson
from app.data.limits.arrow_limits import check_arrow_size
from app.data.limits.parquet_limits import parquet_footer_bytes
from app.errors import FieldError, InvalidInput

FileFormat: TypeAlias = Literal["csv", "ndjson", "arrow", "parquet"]

READERS: dict[FileFormat, Reader] = {
    "csv": read_csv,
    "ndjson": read_ndjson,
    "arrow": read_arrow,
    "parquet": read_parquet,
}

_NAMES = {"ndjson": ndjson_names, "arrow": arrow_names, "parquet": parquet_names}
_INDEX = {"arrow": arrow_index, "parquet": parquet_index}


def read_file(source: Source, form: FileFormat, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
    """Read the rows of a file in parts. Raises InvalidInput with the first fault of each column that has one."""
    with explained(source, form, columns.header):
        yield from read_rows(READERS[form], source, columns, threads)


def names_of(source: Source, form: FileFormat, header: Header | None = None) -> list[str]:
    """The names of a file's columns; of NDJSON those in the first line. Raises InvalidInput if they cannot be read."""
    return csv_names(source, header) if form == "csv" else _NAMES[form](source)


def index_of(source: Source, form: FileFormat) -> list[str]:
    """Return the names of the columns that are, as the file says, the index of a pandas frame."""
    return _INDEX[form](source) if form in _INDEX else []


def first_row(form: str, header: Header | None = None) -> int:
    """Return the number of the first row of data."""
    return first_csv_row(header) if form == "csv" else 1


def check_header(form: str, header: Header | None) -> None:
    """Raises InvalidInput if there is a `header` option for a format that has no header row."""
    if header is not None and form != "csv":
        message = "`header` is an option of CSV files only. Leave it out for other formats."
        raise InvalidInput(message, [FieldError(message, parameter="header")])


def describing_bytes(source: Source, form: FileFormat) -> int:
    """Return about how many bytes what describes the file takes in memory, once it is decoded."""
    with explained(source, form):
        return parquet_footer_bytes(source) if form == "parquet" else 0


def check_size(source: Source, form: FileFormat, names: Sequence[str], limit: int) -> int:
    """Return about how many bytes of these columns are decoded at a time, beside the parts that are made of them.

    Raises BodyTooLarge or InvalidInput where a few bytes of an upload, which may have `limit`, come to very many.
    """
    if form == "arrow":
        return check_arrow_size(source, len(names), limit)
    if form == "parquet":
        return check_parquet(source, names, limit)
    return 0
