"""Bodies with a Content-Encoding: gzip or zstd."""

import zlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from backports import zstd
from starlette.concurrency import run_in_threadpool

from app.errors import FieldError, InvalidInput, MalformedBody, UnsupportedMediaType

PIECE_BYTES = 1 << 18  # inflated at a time, however much a small body becomes
GZIP_WINDOW = 16 + zlib.MAX_WBITS  # with gzip's header
ZSTD_WINDOW = 23  # log2 of 8 MiB, the most that RFC 9659 lets an encoder use
STATE_BYTES = 1 << 17  # that a decompressor takes, about, before its window fills
WINDOW_BYTES = {"gzip": 0, "zstd": 1 << ZSTD_WINDOW}
SHORT_BYTES = 1 << 12  # less than any program puts into each of many members
MAX_SHORT = 1000  # members


class _Member(Protocol):
    """One compressed stream; a body may have several, one after the other."""

    ended: bool

    def inflate(self, data: bytes, most: int) -> tuple[bytes, bytes, bool]:
        """A piece of what the data inflates to, the data that is left, and whether there is more without it."""


def check_encoding(encoding: str) -> None:
    """Raises UnsupportedMediaType for an encoding that is not read here."""
    if encoding not in _MEMBERS:
        message = (
            f"Content-Encoding has to be {' or '.join(_MEMBERS)}, but has another value. Compress the body with one "
            "of these, or send it uncompressed and without the header."
        )
        raise UnsupportedMediaType(message, [FieldError(message, parameter="Content-Encoding")])


async def decompress(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """The body itself, in pieces of at most PIECE_BYTES.

    Raises MalformedBody if the bytes are not in this encoding, InvalidInput if they are too many short members.
    """
    body = _Body(encoding)
    async for chunk in chunks:
        rest, more = chunk, False
        while rest or more:
            piece, rest, more = await run_in_threadpool(body.inflate, rest)
            if piece:
                yield piece
    body.end()


class _Body:
    """The members of a body, of which a thread inflates as many at once as come to a piece."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._member: _Member | None = None
        self._length = 0  # of what came out of the member
        self._short = 0

    def inflate(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """As a member does, up to PIECE_BYTES."""
        pieces: list[bytes] = []
        room, more = PIECE_BYTES, True
        while room and (data or more):
            self._member = self._member or _MEMBERS[self._encoding]()
            try:
                piece, data, more = self._member.inflate(data, room)
            except (zlib.error, zstd.ZstdError):
                message = (
                    f"The body is not {self._encoding}, which Content-Encoding says it is. Compress it, or leave the "
                    "header out."
                )
                raise MalformedBody(message, [FieldError(message, parameter="Content-Encoding")]) from None
            pieces.append(piece)
            room -= len(piece)
            self._length += len(piece)
            if self._member.ended:
                self._next()
                more = False
        return b"".join(pieces), data, more

    def _next(self) -> None:
        self._short += self._length < SHORT_BYTES
        self._member, self._length = None, 0
        if self._short > MAX_SHORT:
            raise InvalidInput(
                f"The body's {self._encoding} has more than {MAX_SHORT} members of less than {SHORT_BYTES} bytes; "
                "compress it into fewer and larger ones."
            )

    def end(self) -> None:
        if self._member is not None:
            raise MalformedBody(f"The body's {self._encoding} ended early. Send all of it.")


class _Gzip:
    def __init__(self) -> None:
        self.ended = False
        self._decompressor = zlib.decompressobj(GZIP_WINDOW)

    def inflate(self, data: bytes, most: int) -> tuple[bytes, bytes, bool]:
        piece = self._decompressor.decompress(data, most)
        self.ended = self._decompressor.eof
        rest = self._decompressor.unused_data if self.ended else self._decompressor.unconsumed_tail
        return piece, rest, len(piece) == most


class _Zstd:
    def __init__(self) -> None:
        self.ended = False
        self._decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW})

    def inflate(self, data: bytes, most: int) -> tuple[bytes, bytes, bool]:
        piece = self._decompressor.decompress(data, most)
        self.ended = self._decompressor.eof
        return piece, self._decompressor.unused_data if self.ended else b"", not self._decompressor.needs_input


_MEMBERS: dict[str, Callable[[], _Member]] = {"gzip": _Gzip, "zstd": _Zstd}
