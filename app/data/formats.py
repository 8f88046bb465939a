"""The formats that rows come in as files, and how each is read."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from app.data.arrow_rows import arrow_names, check_parquet, parquet_names, read_arrow, read_parquet
from app.data.arrow_size import check_arrow_size
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


def check_size(source: Source, form: FileFormat, names: Sequence[str], limit: int) -> None:
    """Find out, before these columns are decoded, whether they come to a bearable amount.

    Raises BodyTooLarge or InvalidInput where a few bytes of an upload, which may have `limit`, come to very many.
    """
    if form == "arrow":
        check_arrow_size(source, len(names), limit)
    elif form == "parquet":
        check_parquet(source, names, limit)
