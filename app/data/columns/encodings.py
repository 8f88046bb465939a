"""The encodings of text files. Every text is read as UTF-8, without a byte order mark."""

import codecs
import sys
from collections.abc import Iterator
from typing import BinaryIO

from app.data.batch import Source, open_source
from app.data.columns.options import Encoding
from app.errors import InvalidInput

BOM = codecs.BOM_UTF8
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CHARSET = " or the `charset` in Content-Type"  # Part of a message about bodies.
_NARROW: tuple[Encoding, ...] = ("windows-1252", "iso-8859-1")  # every byte is a character


def encoding_of(head: bytes, given: Encoding | None, known: Encoding | None = None) -> Encoding:
    """Return the encoding of a text that begins with `head`.

    It is that of the byte order mark, otherwise the one given, otherwise `known` if that fits. Without a mark, UTF-16
    has to be given. Raises InvalidInput if the given encoding is impossible.
    """
    if head.startswith(BOM):
        return "utf-8"
    if head.startswith(_WIDE_MARKS) and not head.startswith(codecs.BOM_UTF32_LE):
        return "utf-16"
    if given == "utf-16" and head and b"\0" not in head:  # A separator in UTF-16 has a zero.
        raise InvalidInput.of_parameter(
            "encoding",
            "The request says that the file is UTF-16 text, but it is not. "
            f"Correct `encoding`{CHARSET}, or leave it out.",
        )
    if given is not None:
        return given
    if known in _NARROW and (head.isascii() or not _is_utf8(head)):
        return known
    return "utf-8"


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.utf_8_decode(head, "strict", False)
    except UnicodeDecodeError:
        return False
    return True


def text_chunks(
    source: Source, encoding: Encoding, size: int, start: int = 0, stop: int | None = None
) -> Iterator[bytes]:
    """Yield a file's text in UTF-8, about `size` bytes at a time, without byte order mark and first `start` bytes.

    Text that is in UTF-8 can end at `stop`.

    Text in UTF-8 is not checked. Raises InvalidInput if the file has other bytes than its encoding allows.
    """
    with open_source(source) as file:
        if encoding != "utf-8":
            yield from _skipped(_recoded(file, encoding, size), start)
            return
        mark = len(BOM) if file.read(len(BOM)) == BOM else 0
        file.seek(mark + start)
        left = sys.maxsize if stop is None else stop - start
        while chunk := file.read(min(size, left)):
            yield chunk
            left -= len(chunk)


def beginning(source: Source, encoding: Encoding, size: int) -> tuple[bytes, bool]:
    """Return about the first `size` bytes of a file's text in UTF-8, and True if they are the whole text."""
    chunks = text_chunks(source, encoding, size)
    first = next(chunks, b"")
    is_whole = len(first) < size if encoding == "utf-8" else next(chunks, None) is None
    return first, is_whole


def _recoded(file: BinaryIO, encoding: Encoding, size: int) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(_codec(file, encoding))()
    lines = 1
    while True:
        data = file.read(size)
        try:
            text = decoder.decode(data, final=not data).encode()
        except UnicodeError:
            message = f"The file is not {encoding} text. Correct `encoding`, or leave it out."
            if lines > 1:
                message = f"The file is not {encoding} text: a byte after line {lines} does not fit. Correct it."
            raise InvalidInput(message) from None
        if text:
            yield text
            lines += text.count(b"\n")
        if not data:
            return


def _codec(file: BinaryIO, encoding: Encoding) -> str:
    """Return the codec's name. UTF-16 without a mark is taken for little-endian unless its first byte is zero."""
    if encoding != "utf-16":
        return encoding
    head = file.read(2)
    file.seek(0)
    if head in _WIDE_MARKS:
        return "utf-16"
    return "utf-16-be" if head.startswith(b"\0") else "utf-16-le"


def _skipped(chunks: Iterator[bytes], start: int) -> Iterator[bytes]:
    """Yield the chunks without their first `start` bytes."""
    for chunk in chunks:
        if len(chunk) > start:
            yield chunk[start:]
        start = max(0, start - len(chunk))
