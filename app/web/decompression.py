"""Bodies with a Content-Encoding: gzip, deflate or zstd."""

import zlib
from collections.abc import AsyncIterator, Callable
from functools import partial

from backports import zstd
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.errors import FieldError, InvalidInput, MalformedBody, UnsupportedMediaType

IDENTITY = "identity"
CHUNK_BYTES = 1 << 18  # Bytes decompressed at a time, because a small body may expand to any size.
GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's window bits, with a gzip header.
ZSTD_WINDOW = 23  # log2 of 8 MiB, the largest window that RFC 9659 allows.
STATE_BYTES = 1 << 17  # Approximate bytes of a decompressor before its window fills.
# Bytes of a window that STATE_BYTES does not include.
WINDOW_BYTES = {"gzip": 0, "deflate": 0, "zstd": 1 << ZSTD_WINDOW}
# Other names of encodings, which RFC 9110 asks recipients to accept.
_ALIASES = {"x-gzip": "gzip"}
SHORT_BYTES = 1 << 12  # Length below which a member is short. No program writes many short members.
MAX_SHORT = 1000  # Short members of a body.


def content_encoding(request: Request) -> str:
    """Return the Content-Encoding, without an alias. Raises UnsupportedMediaType if it is not supported."""
    given = ",".join(request.headers.getlist("content-encoding")).strip().lower() or IDENTITY
    encoding = _ALIASES.get(given, given)
    if encoding != IDENTITY and encoding not in WINDOW_BYTES:
        *others, last = WINDOW_BYTES
        message = (
            f"Content-Encoding has to be {', '.join(others)} or {last}, but has another value. Compress the body with "
            "one of these, or send it uncompressed without the header."
        )
        raise UnsupportedMediaType(message, [FieldError(message, parameter="Content-Encoding")])
    return encoding


async def decompress(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Yield the decompressed body in chunks of at most CHUNK_BYTES.

    Raises MalformedBody if the bytes are not in this encoding, InvalidInput if they are too many short members.
    """
    body = _Body(encoding)
    async for data in chunks:
        body.data = data
        while body.has_more:
            if chunk := await run_in_threadpool(body.read):
                yield chunk
    body.end()


def beginning(data: bytes, encoding: str) -> bytes:
    """Return the beginning of a body: `data` itself, or at most CHUNK_BYTES decompressed from it.

    Raises as `decompress` does.
    """
    if encoding == IDENTITY:
        return data
    body = _Body(encoding)
    body.data = data
    return body.read()


class _Zlib:
    """zlib's decompressor with the interface of ZstdDecompressor."""

    def __init__(self, window: int) -> None:
        self._stream = zlib.decompressobj(window)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        chunk = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self.needs_input = len(chunk) < max_length
        return chunk

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data


def _zstd() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW})


_DECOMPRESSORS: dict[str, Callable[[], _Zlib | zstd.ZstdDecompressor]] = {
    "gzip": partial(_Zlib, GZIP_WINDOW),
    "deflate": partial(_Zlib, zlib.MAX_WBITS),  # RFC 9110: the zlib format, not raw deflate.
    "zstd": _zstd,
}


class _Body:
    """A compressed body: one member (a compressed stream) after the other."""

    def __init__(self, encoding: str) -> None:
        self.data = b""  # Bytes that no decompressor has yet.
        self._encoding = encoding
        self._member: _Zlib | zstd.ZstdDecompressor | None = None
        self._length = 0  # Decompressed bytes of the member.
        self._short = 0

    @property
    def has_more(self) -> bool:
        return bool(self.data) or (self._member is not None and not self._member.needs_input)

    def read(self) -> bytes:
        """Return up to CHUNK_BYTES, decompressed from as many members as that takes."""
        chunks: list[bytes] = []
        room = CHUNK_BYTES
        while room and self.has_more:
            self._member = self._member or _DECOMPRESSORS[self._encoding]()
            try:
                chunk = self._member.decompress(self.data, room)
            except (zlib.error, zstd.ZstdError):
                message = (
                    f"The body is not {self._encoding}, which Content-Encoding says it is. Compress it, or leave the "
                    "header out."
                )
                raise MalformedBody(message, [FieldError(message, parameter="Content-Encoding")]) from None
            self.data = self._member.unused_data
            chunks.append(chunk)
            room -= len(chunk)
            self._length += len(chunk)
            if self._member.eof:
                self._next()
        return b"".join(chunks)

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
