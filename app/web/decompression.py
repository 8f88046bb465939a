"""Bodies with a Content-Encoding: gzip or zstd."""

import zlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from backports import zstd
from starlette.concurrency import run_in_threadpool

from app.errors import FieldError, InvalidInput, MalformedBody, UnsupportedMediaType

CHUNK_BYTES = 1 << 18  # Bytes decompressed at a time, because a small body may expand to any size.
GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's window bits, with a gzip header.
ZSTD_WINDOW = 23  # log2 of 8 MiB, the largest window that RFC 9659 allows.
STATE_BYTES = 1 << 17  # Approximate bytes of a decompressor before its window fills.
WINDOW_BYTES = {"gzip": 0, "zstd": 1 << ZSTD_WINDOW}  # Bytes of a window that STATE_BYTES does not include.
SHORT_BYTES = 1 << 12  # Length below which a member is short. No program writes many short members.
MAX_SHORT = 1000  # Short members of a body.


class _Member(Protocol):
    """One compressed stream. A body may have several, one after the other."""

    ended: bool

    def decompress(self, data: bytes, limit: int) -> tuple[bytes, bytes, bool]:
        """Return decompressed bytes, the data that is left, and whether more bytes come without further data."""


def check_encoding(encoding: str) -> None:
    """Raise UnsupportedMediaType for an encoding that is not supported."""
    if encoding not in _MEMBERS:
        message = (
            f"Content-Encoding has to be {' or '.join(_MEMBERS)}, but has another value. Compress the body with one "
            "of these, or send it uncompressed without the header."
        )
        raise UnsupportedMediaType(message, [FieldError(message, parameter="Content-Encoding")])


async def decompress(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Yield the decompressed body in chunks of at most CHUNK_BYTES.

    Raises MalformedBody if the bytes are not in this encoding, InvalidInput if they are too many short members.
    """
    body = _Body(encoding)
    async for rest in chunks:
        more = False
        while rest or more:
            chunk, rest, more = await run_in_threadpool(body.decompress, rest)  # noqa: PLW2901 - what is left of it
            if chunk:
                yield chunk
    body.end()


class _Body:
    """The members of a body. One call in a thread decompresses every member that fits into a chunk."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._member: _Member | None = None
        self._length = 0  # Decompressed bytes of the member.
        self._short = 0

    def decompress(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Return as a member does, with CHUNK_BYTES as the limit."""
        chunks: list[bytes] = []
        room, more = CHUNK_BYTES, True
        while room and (data or more):
            self._member = self._member or _MEMBERS[self._encoding]()
            try:
                chunk, data, more = self._member.decompress(data, room)
            except (zlib.error, zstd.ZstdError):
                message = (
                    f"The body is not {self._encoding}, which Content-Encoding says it is. Compress it, or leave the "
                    "header out."
                )
                raise MalformedBody(message, [FieldError(message, parameter="Content-Encoding")]) from None
            chunks.append(chunk)
            room -= len(chunk)
            self._length += len(chunk)
            if self._member.ended:
                self._next()
                more = False
        return b"".join(chunks), data, more

    def _next(self) -> None:
        self._short += self._length < SHORT_BYTES
        self._member, self._length = None, 0
        if self._short > MAX_SHORT:
            raise InvalidInput(
                f"The body's {self._encoding} has more than {MAX_SHORT} members of less than {SHORT_BYTES} bytes. "
                "Compress it into fewer and larger ones."
            )

    def end(self) -> None:
        if self._member is not None:
            raise MalformedBody(f"The body's {self._encoding} ended early. Send all of it.")


class _Gzip:
    def __init__(self) -> None:
        self.ended = False
        self._decompressor = zlib.decompressobj(GZIP_WINDOW)

    def decompress(self, data: bytes, limit: int) -> tuple[bytes, bytes, bool]:
        chunk = self._decompressor.decompress(data, limit)
        self.ended = self._decompressor.eof
        rest = self._decompressor.unused_data if self.ended else self._decompressor.unconsumed_tail
        return chunk, rest, len(chunk) == limit


class _Zstd:
    def __init__(self) -> None:
        self.ended = False
        self._decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW})

    def decompress(self, data: bytes, limit: int) -> tuple[bytes, bytes, bool]:
        chunk = self._decompressor.decompress(data, limit)
        self.ended = self._decompressor.eof
        return chunk, self._decompressor.unused_data if self.ended else b"", not self._decompressor.needs_input


_MEMBERS: dict[str, Callable[[], _Member]] = {"gzip": _Gzip, "zstd": _Zstd}
