"""Bodies of multipart/form-data: the part `file` with the rows, and before it the part `options` with a JSON object.

The rows are passed on as they arrive. Nothing of the body is stored here.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import BodyTooLarge, InvalidInput, MalformedBody

MEDIA_TYPE = "multipart/form-data"
FILE, OPTIONS = "file", "options"
MAX_OPTIONS = 1 << 20  # Bytes of the part `options`.
MAX_BOUNDARY = 70  # Characters, as RFC 2046 allows.
MAX_OTHER = 1 << 16  # Bytes of the body before the parts, between them and after them.

_ADVICE = (
    "Send the rows in a part `file` and the options, if any, as a JSON object in a part `options` before it: "
    '`curl -F \'options={"targets": ["y"]}\' -F file=@FILE`.'
)


class MultipartBody:
    """Reads the parts of one body. Raises MalformedBody or InvalidInput if its parts or their order are others."""

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        """Read `chunks`, which are the body of a request with this Content-Type."""
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 0 < len(boundary) <= MAX_BOUNDARY:
            raise MalformedBody(
                f"Content-Type has to have a boundary of 1 to {MAX_BOUNDARY} characters. Let the HTTP client write it."
            )
        self.options: dict[str, Any] = {}
        self.file_type = ""  # Content-Type of the part `file`
        self.file_name = ""
        self._chunks = chunks
        self._part: str | None = None  # name of the part that is read
        self._seen: set[str] = set()
        self._name, self._value = bytearray(), bytearray()  # header that is read
        self._headers: dict[str, str] = {}
        self._text = bytearray()  # of the part `options`
        self._rows: list[bytes] = []  # of the part `file`, not passed on yet
        self._others = 0  # bytes that are in no part
        self._ended = False
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
        """Read up to the rows. `options`, `file_type` and `file_name` are then known."""
        while FILE not in self._seen:
            if not await self._read():
                raise InvalidInput(f"The form has no part `file`. {_ADVICE}")

    async def rows(self) -> AsyncIterator[bytes]:
        """Yield the content of the part `file`."""
        while True:
            rows, self._rows = self._rows, []
            for chunk in rows:
                yield chunk
            if not await self._read():
                break
        if not self._ended:
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
        if name not in (FILE, OPTIONS):
            raise InvalidInput(f"The form has a part of another name than `file` and `options`. {_ADVICE}")
        if name in self._seen:
            raise InvalidInput(f"The form has more than one part `{name}`. {_ADVICE}")
        if name == OPTIONS and FILE in self._seen:
            raise InvalidInput("The part `options` comes after the part `file`. Send it first.")
        self._seen.add(name)
        self._part = name
        if name == FILE:
            self.file_type = self._headers.get("content-type", "")
            self.file_name = parameters.get(b"filename", b"").decode(errors="replace")

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._others -= end - start
        if self._part == FILE:
            self._rows.append(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_OPTIONS:
            raise BodyTooLarge(f"The part `options` is longer than {MAX_OPTIONS} bytes. Give fewer options.")

    def _end_part(self) -> None:
        if self._part == OPTIONS:
            try:
                self.options = msgspec.json.decode(self._text, type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                raise InvalidInput(f"The part `options` is not a JSON object. {_ADVICE}") from None
        self._part = None

    def _end(self) -> None:
        self._ended = True
