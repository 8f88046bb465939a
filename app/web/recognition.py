"""Find the format of a request body: that of its Content-Type, unless its first bytes are those of another format."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.data.columns.options import Encoding
from app.data.content import HEAD_BYTES, binary_format_of, content_of
from app.data.formats import ALIASES, BY_SUFFIX
from app.data.formats.base import TableFormat
from app.data.formats.csv import CSV
from app.data.formats.json import JSON
from app.errors import FieldError, LinserveError, UnsupportedMediaType
from app.web.decompression import IDENTITY, beginning, content_encoding
from app.web.multipart import MEDIA_TYPE, Form, MultipartBody

FORM = "application/x-www-form-urlencoded"
_OLD_EXCEL = "application/vnd.ms-excel"  # Windows and browsers use it for CSV files, too.
_ENCODINGS: dict[str, Encoding] = {
    "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "utf-8", "ascii": "utf-8", "utf-16": "utf-16", "utf-16le": "utf-16",
    "utf-16be": "utf-16", "windows-1252": "windows-1252", "cp1252": "windows-1252", "iso-8859-1": "iso-8859-1",
    "latin1": "iso-8859-1",
}  # fmt: skip


@dataclass
class Received:
    """What is known of a body before its rows are read."""

    media_type: str | None = None  # of a format; None if it is not accepted
    warning: str | None = None  # about a Content-Type that names another format
    content_type: str = ""  # of the rows: the request's, or that of the part `file`
    is_form: bool = False
    file_name: str = ""  # of the part `file`
    fields: Form = field(default_factory=Form)  # complete once all rows were read
    meaning: Callable[[Form], Form] | None = None  # returns the options that the fields of a page stand for
    chunks: list[bytes] = field(default_factory=list)  # read already
    rest: AsyncIterator[bytes] | None = None

    @property
    def form(self) -> Form:
        """The options of the form, as far as it was read."""
        return self.fields if self.meaning is None else self.meaning(self.fields)

    @property
    def head(self) -> bytes:
        return (self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks))[:HEAD_BYTES]

    @property
    def encoding(self) -> Encoding | None:
        """The encoding that the `charset` of the Content-Type names. Raises UnsupportedMediaType for an unknown one."""
        charset = parse_options_header(self.content_type)[1].get(b"charset", b"").decode("latin-1").strip().lower()
        if charset and charset not in _ENCODINGS:
            message = f"The charset in Content-Type has to be one of {', '.join(_ENCODINGS)}. Save the file as UTF-8."
            raise UnsupportedMediaType(message, [FieldError(message, parameter="Content-Type")])
        return _ENCODINGS.get(charset)

    def release(self) -> None:
        """Release what was read, and the request that `rest` refers to, without the garbage collector."""
        self.chunks.clear()
        self.rest = None

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the rows, those that were read already first."""
        while self.chunks:
            yield self.chunks.pop(0)
        if self.rest is not None:
            async for chunk in self.rest:
                yield chunk


async def recognise(request: Request, accepted: tuple[str, ...]) -> Received:
    """Return what is known of a body whose media type should be one of the `accepted` ones.

    A form with a file is accepted if files are accepted. The first bytes of the rows are read.
    """
    given = request.headers.getlist("content-type")
    received = Received(content_type=given[0] if len(given) == 1 else "", rest=request.stream())
    if len(given) > 1:
        return received
    declared = _media_type(received.content_type)
    if declared == MEDIA_TYPE and CSV.media_type in accepted and content_encoding(request) == IDENTITY:
        declared = await _open_form(received)
    await _begin(received)
    if declared == FORM:
        return received  # `curl -d` sends it, and has removed the line breaks of the file.
    found = _binary_format(request, received.head)
    if declared == _OLD_EXCEL and found is None:
        declared = CSV.media_type
    declared = ALIASES.get(declared, declared)
    if received.is_form and declared in _UNSPECIFIC and (content := content_of(received.head)) and content.body_format:
        declared = content.body_format.media_type
    if found is None or found.media_type == declared or found.media_type not in accepted:
        received.media_type = declared if declared in accepted else None
        return received
    received.media_type = found.media_type
    received.warning = (
        f"The body is {found.file_label or found.label} and was read as such, but its Content-Type names another "
        f"format. Send it with Content-Type: {found.media_type}."
    )
    return received


async def open_form(received: Received) -> None:
    """Read a form up to the content of its part `file`. Its type and its name are known then."""
    body = MultipartBody(received.content_type, received.stream())
    await body.open_file()
    received.is_form, received.fields, received.rest = True, body.form, body.rows()
    received.content_type, received.file_name = body.file_type, body.file_name


async def _open_form(received: Received) -> str:
    """Read a form up to the rows in its part `file`. Return the media type of that part, or the one of its name."""
    await open_form(received)
    declared = _media_type(received.content_type)
    suffix = received.file_name.rpartition(".")[2].lower()
    by_name = JSON.media_type if suffix == "json" else BY_SUFFIX[suffix].media_type if suffix in BY_SUFFIX else declared
    return declared if declared in _SPECIFIC else by_name


# Every binary format begins with a byte of at least _END_ASCII, or has one below _FIRST_TEXT among its first eight.
_FIRST_TEXT, _END_ASCII = 9, 128
_UNSPECIFIC = ("", "application/octet-stream", "text/plain")  # of a file whose name has no known extension
_SPECIFIC = frozenset({JSON.media_type, *(entry.media_type for entry in BY_SUFFIX.values()), *ALIASES} - {"text/plain"})


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


async def _begin(received: Received) -> None:
    """Read until HEAD_BYTES are known, or all of the body."""
    length = 0
    if received.rest is not None:
        async for chunk in received.rest:
            if chunk:
                received.chunks.append(chunk)
                length += len(chunk)
            if length >= HEAD_BYTES:
                return
        received.rest = None


def _binary_format(request: Request, head: bytes) -> TableFormat | None:
    with contextlib.suppress(LinserveError):
        encoding = content_encoding(request)
        is_text = not head or (min(head[:8]) >= _FIRST_TEXT and head[0] < _END_ASCII)
        if is_text and encoding == IDENTITY:
            return None  # nearly always
        return binary_format_of(beginning(head, encoding)[:HEAD_BYTES])
    return None
