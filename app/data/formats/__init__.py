"""The formats that tables come in as files, and are written in.

A new format is a file with a class that implements TableFormat, and an entry in FORMATS.
"""

from app.data.batch import Header
from app.data.formats.arrow import ARROW
from app.data.formats.base import TableFormat
from app.data.formats.csv import CSV
from app.data.formats.ndjson import NDJSON
from app.data.formats.parquet import PARQUET
from app.errors import InvalidInput

FORMATS: tuple[TableFormat, ...] = (CSV, NDJSON, ARROW, PARQUET)

BY_NAME = {table_format.name: table_format for table_format in FORMATS}
BY_MEDIA_TYPE = {table_format.media_type: table_format for table_format in FORMATS}

LABELS = ", ".join(table_format.label for table_format in FORMATS[:-1]) + f" or {FORMATS[-1].label}"


def check_header(table_format: TableFormat | None, header: Header | None) -> None:
    """Raise InvalidInput if there is a `header` option for JSON (None), or for a format that has no header row."""
    if header is not None and (table_format is None or not table_format.takes_header):
        takers = " and ".join(entry.label for entry in FORMATS if entry.takes_header)
        message = f"`header` is an option of {takers} files only. Leave it out for other formats."
        raise InvalidInput.of_parameter("header", message)
