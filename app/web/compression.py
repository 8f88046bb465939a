"""Bodies with a Content-Encoding: gzip or zstd."""

import zlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from backports import zstd
from starlette.concurrency import run_in_threadpool

from app.errors import MalformedBody, UnsupportedMediaType

PIECE_BYTES = 1 << 18  # inflated at a time, however much a small body becomes
GZIP_WINDOW = 16 + zlib.MAX_WBITS  # with gzip's header
ZSTD_WINDOW = 23  # log2 of 8 MiB, the most that RFC 9659 lets an encoder use


class _Member(Protocol):
    """One compressed stream; a body may have several, one after the other."""

    ended: bool

    def inflate(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """A piece of what the data inflates to, the data that is left, and whether there is more without it."""


async def inflated(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """The body itself, in pieces of at most PIECE_BYTES.

    Raises UnsupportedMediaType for another encoding, MalformedBody where the bytes are not in this one.
    """
    if encoding not in _MEMBERS:
        raise UnsupportedMediaType(f"Content-Encoding has to be {' or '.join(_MEMBERS)}.")
    member: _Member | None = None
    async for chunk in chunks:
        rest, more = chunk, False
        while rest or more:
            member = member or _MEMBERS[encoding]()
            try:
                piece, rest, more = await run_in_threadpool(member.inflate, rest)
            except (zlib.error, zstd.ZstdError):
                raise MalformedBody(f"The body is not {encoding}.") from None
            if piece:
                yield piece
            if member.ended:
                member, more = None, False
    if member is not None:
        raise MalformedBody(f"The body's {encoding} ended early.")


class _Gzip:
    def __init__(self) -> None:
        self.ended = False
        self._decompressor = zlib.decompressobj(GZIP_WINDOW)

    def inflate(self, data: bytes) -> tuple[bytes, bytes, bool]:
        piece = self._decompressor.decompress(data, PIECE_BYTES)
        self.ended = self._decompressor.eof
        rest = self._decompressor.unused_data if self.ended else self._decompressor.unconsumed_tail
        return piece, rest, len(piece) == PIECE_BYTES


class _Zstd:
    def __init__(self) -> None:
        self.ended = False
        self._decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW})

    def inflate(self, data: bytes) -> tuple[bytes, bytes, bool]:
        piece = self._decompressor.decompress(data, PIECE_BYTES)
        self.ended = self._decompressor.eof
        return piece, self._decompressor.unused_data if self.ended else b"", not self._decompressor.needs_input


_MEMBERS: dict[str, Callable[[], _Member]] = {"gzip": _Gzip, "zstd": _Zstd}
