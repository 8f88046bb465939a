"""Bodies of multipart/form-data with version files, each in a part `file`. Nothing of the body is stored here."""

from collections import deque
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import InvalidInput, MalformedBody
from app.web.multipart import FILE, MAX_BOUNDARY, MAX_OTHER

_ADVICE = "Send each version file in a part `file`: `curl -F file=@FILE -F file=@FILE`."


async def version_parts(content_type: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """Yield None at the beginning of each file, and then its content as it arrives.

    Raises MalformedBody if the body is not a complete form, and InvalidInput if it has other parts or none.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY:
        raise MalformedBody(
            f"Content-Type has to have a boundary of 1 to {MAX_BOUNDARY} characters. Let the HTTP client write it."
        )
    parts = _Parts(boundary)
    async for chunk in chunks:
        for part in parts.parse(chunk):
            yield part
    if not parts.ended:
        raise MalformedBody("The form ended early: its last boundary is missing. Send all of it.")
    if not parts.count:
        raise InvalidInput(f"The form has no part `file`. {_ADVICE}")


class _Parts:
    """The parts of one form."""

    def __init__(self, boundary: bytes) -> None:
        self.ended = False
        self.count = 0
        self._found: deque[bytes | None] = deque()
        self._name, self._value, self._disposition = bytearray(), bytearray(), ""
        self._others = 0  # bytes that are in no part
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin,
                "on_part_data": self._add,
                "on_end": self._end,
            },
        )

    def parse(self, chunk: bytes) -> deque[bytes | None]:
        """Return the beginnings and the contents of files in a chunk."""
        self._found = deque()
        self._others += len(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise MalformedBody(f"The body is not a form of the boundary in its Content-Type. {_ADVICE}") from None
        if self._others > MAX_OTHER:
            raise MalformedBody(f"The form has more than {MAX_OTHER} bytes outside its parts. {_ADVICE}")
        return self._found

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def _begin(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name", b"").decode(errors="replace")
        self._disposition = ""
        if name != FILE:
            raise InvalidInput(f"The form has a part of another name than `file`. {_ADVICE}")
        self.count += 1
        self._found.append(None)

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._others -= end - start
        self._found.append(data[start:end])

    def _end(self) -> None:
        self.ended = True
