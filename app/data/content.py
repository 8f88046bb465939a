"""Recognise the format of a body from its first bytes, after it could not be read in the declared format.

Without this, a wrong content type, encoding or separator would lead to a misleading error.
"""

import codecs
import contextlib
import re
from collections.abc import Iterator

from app.data.batch import FileSet, Source, open_source
from app.data.columns.encodings import CHARSET
from app.data.columns.schema import PLAIN, Dialect
from app.data.formats import FORMATS
from app.data.formats.arrow import ARROW
from app.data.formats.arrow_columns import unreadable
from app.data.formats.base import BodyFormat, Content, TableFormat
from app.data.formats.excel import EXCEL, OLD_SIGNATURE
from app.data.formats.json import JSON
from app.data.limits.arrow_limits import FILE_SIGNATURE
from app.errors import FieldError, InvalidInput, LinserveError, MalformedBody

HEAD_BYTES = 1 << 12  # Bytes of a body that are inspected.


def _readable(body_format: BodyFormat) -> Content:
    label = body_format.file_label or body_format.label
    return Content(label, f"Send it with Content-Type: {body_format.media_type}.", body_format)


def _compressed(coding: str) -> Content:
    advice = f"Add the header Content-Encoding: {coding}, or send the body uncompressed."
    return Content(f"compressed with {coding}", advice, header="Content-Encoding")


_FIRST_TEXT = 9  # Characters with lower codes do not occur in text.

# Files of statistics programs by their first bytes.
_STATISTICS = (
    (b"<stata_dta>", "a Stata file"),
    *((bytes([version, order, 1, 0]), "a Stata file") for version in range(113, 116) for order in (1, 2)),
    (bytes(12) + b"\xc2\xea\x81\x60", "a SAS file"),
    (b"HEADER RECORD*******", "a SAS transport file"),
    (b"$FL2@(#)", "an SPSS file"),
    (b"$FL3@(#)", "an SPSS file"),
    (b"RDX", "a file of R objects"),
)
# Content by its first bytes.
_SIGNATURES: tuple[tuple[bytes, Content], ...] = (
    (FILE_SIGNATURE, _readable(ARROW)),
    (b"FEA1", Content("a Feather file of version 1", "Write an Arrow IPC stream, Parquet or CSV instead.")),
    *((table_format.signature, _readable(table_format)) for table_format in FORMATS if table_format.signature),
    (OLD_SIGNATURE, _readable(EXCEL)),
    (b"\x1f\x8b", _compressed("gzip")),
    (b"\x28\xb5\x2f\xfd", _compressed("zstd")),
    (b"\x93NUMPY", Content("a NumPy file", "Write CSV, NDJSON, Parquet or JSON instead.")),
    (b"\x80\x04\x95", Content("a Python pickle", "Pickles are not read. Write CSV, NDJSON, Parquet or JSON instead.")),
    (b"%PDF-", Content("a PDF document", "Send the table in it as CSV.")),
    *((signature, Content(label, "Save it as CSV.")) for signature, label in _STATISTICS),
)
_ARCHIVE = Content(
    "a ZIP archive", "Send the table in it, uncompressed or with Content-Encoding: gzip, or Content-Encoding: zstd."
)
_MULTIPART = Content(
    "a multipart form, as `curl -F` sends it", "Send the file itself as the body, with `curl --data-binary @FILE`."
)
_ARRAY = Content(
    "a JSON array",
    "Send an array of records with Content-Type: application/json, or NDJSON, with an object in each line.",
    JSON,
)
_PAGE = Content("an HTML page", "Send the table itself, for instance as CSV.")


def begins_with(source: Source) -> bytes:
    """Return the first HEAD_BYTES of a body, or of the first file."""
    with open_source(source) as file:
        return file.read(HEAD_BYTES)


def content_of(head: bytes) -> Content | None:
    """Return the content whose first bytes are `head`, or None if it is not recognised."""
    for signature, content in _SIGNATURES:
        if head.startswith(signature):
            return content
    if head.startswith(b"PK\x03\x04"):
        is_workbook = any(mark in head for mark in (b"opendocument.spreadsheet", b"[Content_Types].xml", b"xl/"))
        return _readable(EXCEL) if is_workbook else _ARCHIVE
    if encoding := _wide_encoding(head):
        return Content(f"{encoding} text", f"Save it as UTF-8, or convert it: `iconv -f {encoding} -t UTF-8 FILE`.")
    return _content_of_text(head.removeprefix(codecs.BOM_UTF8).lstrip())


def binary_format_of(head: bytes) -> TableFormat | None:
    """Return the binary format of tables whose first bytes are `head`, or None. Text that begins like one is not."""
    content = content_of(head) if any(byte < _FIRST_TEXT for byte in head[:64]) else None
    return next((entry for entry in FORMATS if content and entry is content.body_format and not entry.is_text), None)


def _wide_encoding(head: bytes) -> str | None:
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    # Text in ASCII has a zero in every second byte.
    pairs = head[: len(head) // 2 * 2]
    for odd, name in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        zeros, others = pairs[odd::2], pairs[1 - odd :: 2]
        if len(zeros) > 1 and zeros.count(0) > 0.9 * len(zeros) and others.count(0) < 0.1 * len(others):
            return name
    return None


def _content_of_text(text: bytes) -> Content | None:
    if text.startswith(b"--") and b"content-disposition" in text.lower():
        return _MULTIPART
    if text[:14].lower().startswith((b"<!doctype html", b"<html")):
        return _PAGE
    if re.match(rb"\[\s*[\[{]", text):
        return _ARRAY
    for table_format in FORMATS:
        if table_format.recognises(text):
            return _readable(table_format)
    return _readable(JSON) if text.startswith(b"{") else None


@contextlib.contextmanager
def explained(source: Source, body_format: BodyFormat, dialect: Dialect = PLAIN) -> Iterator[None]:
    """Replace an InvalidInput raised in the block by one that names the real format, if the body has another format.

    The body's beginning is read only after such an error. The format of several files does the same for each of them.
    """
    try:
        yield
    except InvalidInput as error:
        if isinstance(source, FileSet):
            raise
        raise better(error, begins_with(source), body_format, dialect) from None


def better(error: LinserveError, head: bytes, body_format: BodyFormat, dialect: Dialect = PLAIN) -> LinserveError:
    """Return an error that names the format of a body beginning with `head`, or one about a fault in `body_format`."""
    content = content_of(head)
    is_expected = content is None or (content.body_format is not None and content.body_format.name == body_format.name)
    if content is None or is_expected or body_format.may_be(content, head, error):
        return body_format.explain(error, head, dialect)
    message = (
        f"The body is {content.label}, but {body_format.label} was expected (Content-Type: {body_format.media_type}). "
        f"{content.advice}"
    )
    error_type = MalformedBody if isinstance(error, MalformedBody) else InvalidInput
    return error_type(message, [FieldError(message, parameter=content.header)])


def better_in_file(error: InvalidInput, head: bytes, table_format: TableFormat, dialect: Dialect) -> InvalidInput:
    """Return an error as `better` does, for a file of a source. It does not advise about a body or its headers."""
    content = content_of(head)
    if content is not None and (content.body_format is None or content.body_format.name != table_format.name):
        if table_format.may_be(content, head, error):
            return error
        return InvalidInput(f"The file is {content.label}, but {table_format.label} was expected. Correct `format`.")
    explained_error = table_format.explain(error, head, dialect)
    if isinstance(explained_error, InvalidInput):
        error = explained_error
    if error.message == unreadable(table_format.label):
        return InvalidInput(f"The file is not readable as {table_format.label}. Write it again, or correct `format`.")
    if CHARSET in error.message:
        return InvalidInput.at("/encoding", error.message.replace(CHARSET, ""))
    return error
