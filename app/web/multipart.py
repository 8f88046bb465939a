"""Bodies of multipart/form-data: the part `file` with the rows, and options before or after it.

The rows are passed on as they arrive, and only the options are kept. So those after the file are known at its end.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.data.names import MAX_NAME_LENGTH
from app.errors import BodyTooLarge, FieldError, InvalidInput, MalformedBody

MEDIA_TYPE = "multipart/form-data"
FILE, OPTIONS = "file", "options"
MAX_OPTIONS = 1 << 20  # Bytes of the options of a form.
MAX_BOUNDARY = 70  # Characters, as RFC 2046 allows.
MAX_OTHER = 1 << 16  # Bytes of the body before the parts, between them and after them.

_ADVICE = (
    "Send the rows in a part `file`, and each option in a field of its name: `curl -F file=@FILE -F targets=y`. A part "
    "`options` may hold options as a JSON object."
)


@dataclass
class Form:
    """The options of a form that have been read so far. It is false if there are none."""

    fields: list[tuple[str, str]] = field(default_factory=list)  # names and texts, in the order of the form
    options: dict[str, Any] = field(default_factory=dict)  # JSON values of the part `options`
    is_complete: bool = True  # False while further options may follow

    def __bool__(self) -> bool:
        return bool(self.given or self.options)

    @property
    def given(self) -> list[tuple[str, str]]:
        """The fields that are not empty. Browsers send empty ones too."""
        return [(name, text) for name, text in self.fields if text]


NO_FORM = Form()


class MultipartBody:
    """Reads the parts of one body. Raises MalformedBody or InvalidInput if it has no such parts."""

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        """Read `chunks`, which are the body of a request with this Content-Type."""
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 0 < len(boundary) <= MAX_BOUNDARY:
            raise MalformedBody(
                f"Content-Type has to have a boundary of 1 to {MAX_BOUNDARY} characters. Let the HTTP client write it."
            )
        self.form = Form(is_complete=False)
        self.file_type = ""  # Content-Type of the part `file`
        self.file_name = ""
        self._chunks = chunks
        self._part: str | None = None  # name of the part that is read
        self._has_file = self._has_options = False
        self._name, self._value = bytearray(), bytearray()  # header that is read
        self._headers: dict[str, str] = {}
        self._text = bytearray()  # of the field that is read, or of the part `options`
        self._length = 0  # bytes of all options
        self._rows: list[bytes] = []  # of the part `file`, not passed on yet
        self._others = 0  # bytes that are in no part
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_part,
                "on_part_data": self._add,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    async def open_file(self) -> None:
        """Read up to the rows. The options before them, `file_type` and `file_name` are then known."""
        while not self._has_file:
            if not await self._read():
                raise InvalidInput(f"The form has no part `file`. {_ADVICE}")

    async def rows(self) -> AsyncIterator[bytes]:
        """Yield the content of the part `file`, then read the rest of the form. All options are then known."""
        while True:
            rows, self._rows = self._rows, []
            for chunk in rows:
                yield chunk
            if not await self._read():
                break
        if not self.form.is_complete:
            raise MalformedBody("The form ended early: its last boundary is missing. Send all of it.")

    async def _read(self) -> bool:
        """Parse one more chunk, and return False if there is none."""
        async for chunk in self._chunks:
            self._others += len(chunk)
            try:
                self._parser.write(chunk)
            except FormParserError:
                raise MalformedBody(f"The body is not a form of the boundary in its Content-Type. {_ADVICE}") from None
            if self._others > MAX_OTHER:
                raise MalformedBody(f"The form has more than {MAX_OTHER} bytes outside its parts. {_ADVICE}")
            return True
        return False

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def _begin_part(self) -> None:
        _, parameters = parse_options_header(self._headers.get("content-disposition"))
        name = parameters.get(b"name", b"").decode(errors="replace")
        if not name:
            raise InvalidInput(f"The form has a part without a name. {_ADVICE}")
        if name == FILE:
            if self._has_file:
                raise InvalidInput(f"The form has more than one part `file`. Send one file in each request. {_ADVICE}")
            self._has_file = True
            self.file_type = self._headers.get("content-type", "")
            self.file_name = parameters.get(b"filename", b"").decode(errors="replace")
        elif name == OPTIONS:
            if self._has_options:
                raise InvalidInput(f"The form has more than one part `options`. {_ADVICE}")
            self._has_options = True
        elif b"filename" in parameters:
            raise InvalidInput(f"The form has a file in a part of another name than `file`. {_ADVICE}")
        self._part = name

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._others -= end - start
        if self._part == FILE:
            self._rows.append(data[start:end])
            return
        self._text += data[start:end]
        self._length += end - start
        if self._length > MAX_OPTIONS:
            raise BodyTooLarge(f"The options in the form are longer than {MAX_OPTIONS} bytes. Give fewer options.")

    def _end_part(self) -> None:
        if self._part == OPTIONS:
            try:
                self.form.options = msgspec.json.decode(self._text or b"{}", type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                raise InvalidInput.of_parameter(
                    OPTIONS, f"The part `options` is not a JSON object. {_ADVICE}"
                ) from None
        elif self._part is not None and self._part != FILE:
            self.form.fields.append((self._part, self._field_text(self._part)))
        self._text.clear()
        self._part = None

    def _field_text(self, name: str) -> str:
        try:
            return self._text.decode()
        except UnicodeDecodeError:
            place = name if len(name) <= MAX_NAME_LENGTH else None
            message = "A field of the form is not UTF-8 text. Send the form in UTF-8."
            raise InvalidInput(message, [FieldError(message, parameter=place)]) from None

    def _end(self) -> None:
        self.form.is_complete = True
