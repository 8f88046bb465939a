"""The formats that tables come in as files, and are written in.

A new format is a file with a class that implements TableFormat, and an entry in FORMATS.
"""

from dataclasses import fields

from app.data.columns.options import ReadingOptions
from app.data.formats.arrow import ARROW
from app.data.formats.base import TableFormat
from app.data.formats.csv import CSV
from app.data.formats.excel import EXCEL
from app.data.formats.ndjson import NDJSON
from app.data.formats.parquet import PARQUET
from app.errors import FieldError, InvalidInput

FORMATS: tuple[TableFormat, ...] = (CSV, NDJSON, ARROW, PARQUET, EXCEL)

BY_NAME = {table_format.name: table_format for table_format in FORMATS}
BY_MEDIA_TYPE = {table_format.media_type: table_format for table_format in FORMATS}

# Other media types of the formats.
ALIASES = {
    "text/plain": CSV.media_type,
    "text/tab-separated-values": CSV.media_type,
    "application/jsonlines": NDJSON.media_type,
    "application/vnd.apache.arrow.file": ARROW.media_type,
    "application/vnd.ms-excel": EXCEL.media_type,
    "application/vnd.oasis.opendocument.spreadsheet": EXCEL.media_type,
}
# Formats by the extension of a file's name.
BY_SUFFIX = {
    "csv": CSV, "tsv": CSV, "tab": CSV, "txt": CSV, "ndjson": NDJSON, "jsonl": NDJSON, "arrow": ARROW, "arrows": ARROW,
    "feather": ARROW, "ipc": ARROW, "parquet": PARQUET, "pq": PARQUET, "xlsx": EXCEL, "xlsm": EXCEL, "xlsb": EXCEL,
    "xls": EXCEL, "ods": EXCEL,
}  # fmt: skip

LABELS = ", ".join(table_format.label for table_format in FORMATS[:-1]) + f" or {FORMATS[-1].label}"


# Options about the meaning of cells. They apply to every format, also to JSON.
_OF_ANY_FORMAT = frozenset({"decimal", "thousands", "na", "strip", "dates", "missing", "drop", "columns"})
_DEFAULTS = ReadingOptions()


def check_options(table_format: TableFormat | None, options: ReadingOptions) -> None:
    """Raise InvalidInput if an option does not apply to the format. None is JSON."""
    taken = _OF_ANY_FORMAT | (table_format.options if table_format is not None else frozenset())
    names = [entry.name for entry in fields(ReadingOptions) if entry.name not in taken]
    details = [_not_taken(name) for name in names if getattr(options, name) != getattr(_DEFAULTS, name)]
    if details:
        raise InvalidInput(details[0].message, details)


def _not_taken(option: str) -> FieldError:
    takers = " and ".join(entry.label for entry in FORMATS if option in entry.options)
    message = f"`{option}` is an option of {takers} files only. Leave it out for other formats."
    return FieldError(message, parameter=option)
