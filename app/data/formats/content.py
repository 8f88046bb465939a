"""Recognise the format of a body from its first bytes, after it could not be read in the declared format.

Without this, a wrong content type, encoding or separator would lead to a misleading error.
"""

import codecs
import contextlib
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from app.data.batch import Header, Source
from app.data.formats.csv_numbers import LOCAL_NUMBER, NUMBER
from app.errors import FieldError, InvalidInput, LinserveError, MalformedBody

Form: TypeAlias = Literal["json", "csv", "ndjson", "arrow", "parquet"]

HEAD_BYTES = 1 << 12  # Bytes of a body that are inspected.
MAX_SHARED_CELLS = 10_000  # Cells of the first row that are inspected.

MEDIA_TYPES: dict[Form, str] = {
    "json": "application/json",
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
LABELS: dict[Form, str] = {
    "json": "JSON",
    "csv": "CSV",
    "ndjson": "NDJSON (a JSON object in each line)",
    "arrow": "an Arrow IPC stream",
    "parquet": "Parquet",
}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SAVE_AS_UTF8 = (
    "Save it as UTF-8 (in Excel: CSV UTF-8), or convert it, for instance with `iconv -f WINDOWS-1252 -t UTF-8 FILE`."
)
_SAVE_SHEET = 'Excel files are not read. Save the sheet as "CSV UTF-8" and send that with Content-Type: text/csv.'


@dataclass(frozen=True)
class Content:
    """A recognised kind of content: its name, what to do about it, and its `form` if the service reads it."""

    label: str
    advice: str
    form: Form | None = None
    header: str = "Content-Type"  # the header that is wrong


def _readable(form: Form, label: str | None = None) -> Content:
    return Content(label or LABELS[form], f"Send it with Content-Type: {MEDIA_TYPES[form]}.", form)


# Content by its first bytes. The longest signatures come first.
_SIGNATURES: tuple[tuple[bytes, Content], ...] = (
    (
        b"ARROW1",
        Content(
            "an Arrow file, also called Feather",
            "Write an Arrow IPC stream instead (pyarrow.ipc.new_stream in place of new_file or write_feather), or "
            "Parquet or CSV.",
        ),
    ),
    (b"FEA1", Content("a Feather file of version 1", "Write an Arrow IPC stream, Parquet or CSV instead.")),
    (b"PAR1", _readable("parquet", "a Parquet file")),
    (b"\xff\xff\xff\xff", _readable("arrow")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Content("an Excel workbook (.xls)", _SAVE_SHEET)),
    (
        b"\x1f\x8b",
        Content(
            "compressed with gzip",
            "Add the header Content-Encoding: gzip, or send the body uncompressed.",
            header="Content-Encoding",
        ),
    ),
    (
        b"\x28\xb5\x2f\xfd",
        Content(
            "compressed with zstd",
            "Add the header Content-Encoding: zstd, or send the body uncompressed.",
            header="Content-Encoding",
        ),
    ),
    (b"\x93NUMPY", Content("a NumPy file", "Write CSV, NDJSON, Parquet or JSON instead.")),
    (b"\x80\x04\x95", Content("a Python pickle", "Pickles are not read. Write CSV, NDJSON, Parquet or JSON instead.")),
    (b"%PDF-", Content("a PDF document", "Send the table in it as CSV.")),
)
_OPEN_DOCUMENT = Content(
    "an OpenDocument spreadsheet", "Save the sheet as CSV in UTF-8 and send that with Content-Type: text/csv."
)
_WORKBOOK = Content("an Excel workbook (.xlsx)", _SAVE_SHEET)
_ARCHIVE = Content(
    "a ZIP archive", "Send the table in it, uncompressed or with Content-Encoding: gzip, or Content-Encoding: zstd."
)
_MULTIPART = Content(
    "a multipart form, as `curl -F` sends it", "Send the file itself as the body, with `curl --data-binary @FILE`."
)
_ARRAY = Content(
    "a JSON array", 'Send a JSON object, {"instances": [...]}, or NDJSON, with an object in each line.', "json"
)
_PAGE = Content("an HTML page", "Send the table itself, for instance as CSV.")


def begins_with(source: Source) -> bytes:
    """Return the first HEAD_BYTES of a body."""
    if isinstance(source, bytes):
        return source[:HEAD_BYTES]
    with source.open("rb") as file:
        return file.read(HEAD_BYTES)


def content_of(head: bytes) -> Content | None:
    """Return the content whose first bytes are `head`, or None if it is not recognised."""
    for signature, content in _SIGNATURES:
        if head.startswith(signature):
            return content
    if head.startswith(b"PK\x03\x04"):
        if b"opendocument.spreadsheet" in head[:100]:
            return _OPEN_DOCUMENT
        return _WORKBOOK if b"[Content_Types].xml" in head or b"xl/" in head else _ARCHIVE
    if encoding := _wide_encoding(head):
        return Content(f"{encoding} text", f"Save it as UTF-8, or convert it: `iconv -f {encoding} -t UTF-8 FILE`.")
    return _content_of_text(head.removeprefix(codecs.BOM_UTF8).lstrip())


def _wide_encoding(head: bytes) -> str | None:
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    # Text in ASCII has a zero in every second byte.
    some = head[: len(head) // 2 * 2]
    for odd, name in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        zeros, others = some[odd::2], some[1 - odd :: 2]
        if len(zeros) > 1 and zeros.count(0) > 0.9 * len(zeros) and others.count(0) < 0.1 * len(others):
            return name
    return None


def _content_of_text(text: bytes) -> Content | None:
    if text.startswith(b"--") and b"content-disposition" in text.lower():
        return _MULTIPART
    if text[:14].lower().startswith((b"<!doctype html", b"<html")):
        return _PAGE
    if text.startswith(b"{"):
        first, _, rest = text.partition(b"\n")
        return _readable("ndjson" if first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{") else "json")
    if re.match(rb"\[\s*[\[{]", text):
        return _ARRAY
    first = text.partition(b"\n")[0].removesuffix(b"\r")
    try:
        # The last character may be cut off.
        line = codecs.utf_8_decode(first, "strict", False)[0]
    except UnicodeDecodeError:
        line = first.decode("latin-1")
    is_text = line.replace("\t", "").isprintable()
    return _readable("csv") if is_text and any(separator in line for separator in (",", *_SEPARATORS)) else None


@contextlib.contextmanager
def explained(source: Source, form: Form, header: Header | None = None) -> Iterator[None]:
    """Replace an InvalidInput raised in the block by one that names the real format, if the body has another format.

    The body's beginning is read only after such an error.
    """
    try:
        yield
    except InvalidInput as error:
        raise better(error, begins_with(source), form, header) from None


def better(error: LinserveError, head: bytes, form: Form, header: Header | None = None) -> LinserveError:
    """Return an error that names the format of a body beginning with `head`, or `error` if it has the format `form`."""
    content = content_of(head)
    if content is not None and content.form != form and not _is_plausible(content, head, form, error):
        message = (
            f"The body is {content.label}, but {LABELS[form]} was expected (Content-Type: {MEDIA_TYPES[form]}). "
            f"{content.advice}"
        )
        kind = MalformedBody if isinstance(error, MalformedBody) else InvalidInput
        return kind(message, [FieldError(message, parameter=content.header)])
    # Only faults of the first row have no place, or row 1.
    if form == "csv" and all(detail.row in (None, 1) and detail.pointer is None for detail in error.details):
        return _of_first_row(head, header, in_row_1=any(detail.row for detail in error.details)) or error
    return error


def _is_plausible(content: Content, head: bytes, form: Form, error: LinserveError) -> bool:
    """Return True if the body may have the format `form` after all, and its text has a fault."""
    if form == "csv":
        # A name may begin with a bracket.
        return content.form in ("json", "ndjson") and any((detail.row or 1) > 1 for detail in error.details)
    if form == "ndjson":
        line, newline, _ = head.strip().partition(b"\n")
        is_whole = not newline or line.rstrip().endswith(b"}")
        return content.form == "json" and content is not _ARRAY and is_whole and b'"instances"' not in line
    return False


def _of_first_row(head: bytes, header: Header | None, *, in_row_1: bool) -> InvalidInput | None:
    text = head.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n").decode(errors="replace")
    line, _, rest = text.partition("\n")
    for separator, name in _SEPARATORS.items():
        cells = line.rstrip("\r").split(separator)[:MAX_SHARED_CELLS]
        if len(cells) > 1 and all("," not in cell or LOCAL_NUMBER.fullmatch(cell.strip()) for cell in cells):
            values = re.split(f"[{re.escape(separator)}\n]", rest)
            local = any(LOCAL_NUMBER.fullmatch(value.strip()) for value in [*cells, *values])
            and_points = " and points instead of decimal commas" if local else ""
            message = (
                f"Row 1 has {name} between its cells, but commas were expected. Save the file with commas as "
                f"separators{and_points}; pandas does with to_csv(index=False)."
            )
            return InvalidInput(message, [FieldError(message, row=1)])
    if header is not None or not in_row_1:
        return None
    try:
        cells = next(csv.reader([line]), [])[:MAX_SHARED_CELLS]
    except csv.Error:  # a carriage return inside the row, or a cell longer than the module reads
        return None
    numbers = sum(NUMBER.fullmatch(cell.strip()) is not None for cell in cells)
    if 0 < numbers < len(cells):
        message = (
            f"Row 1 has {numbers} numbers among its {len(cells)} cells, but the names of the columns were expected: "
            "the header row seems to be missing. Add a first row with the names; or add `header=none`, which names the "
            "columns c1, c2, ..., or `header=names` if row 1 holds the names."
        )
        return InvalidInput(message, [FieldError(message, row=1)])
    return None
