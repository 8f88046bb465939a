"""The formats that rows come in as files, and how each is read."""

from typing import Literal, TypeAlias

from app.data.arrow_rows import arrow_names, parquet_names, read_arrow, read_parquet
from app.data.csv_rows import csv_names, read_csv
from app.data.ndjson_rows import ndjson_names, read_ndjson
from app.data.part import Reader, Source

FileFormat: TypeAlias = Literal["csv", "ndjson", "arrow", "parquet"]

READERS: dict[FileFormat, Reader] = {
    "csv": read_csv,
    "ndjson": read_ndjson,
    "arrow": read_arrow,
    "parquet": read_parquet,
}

_NAMES = {"csv": csv_names, "ndjson": ndjson_names, "arrow": arrow_names, "parquet": parquet_names}


def names_of(source: Source, form: FileFormat) -> list[str]:
    """The names of a file's columns. Raises InvalidInput where they cannot be read."""
    return _NAMES[form](source)
