"""What a Parquet file says of its size, in its footer and before each page, found without decoding any.

See `parquet.thrift` of the format for the fields' numbers. Of some footers pyarrow's own view
ends the process.
"""

import contextlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from app.data.batch import Source
from app.data.limits.decode_limits import check_held, check_metadata, check_rows, view_of
from app.data.limits.thrift import I32, I64, LIST, MAX_STRUCTS, STRUCT, Fields, Reader
from app.errors import InvalidInput

MAX_PAGES = 200_000  # Pages of the columns that are read.

STRUCT_BYTES = 1000  # Most bytes that a struct of a footer takes when decoded.
FOOTER_TIMES = 20  # Times its length that a decoded footer takes in addition to its structs.
DECODED_TIMES = 1.5  # what a page and its values take, compared with the page

_TAIL_BYTES = 8  # the footer's length and "PAR1"
_PLAIN = 0  # a codec
_DICTIONARY = 2  # a kind of page


class _Page(NamedTuple):
    kind: int
    inflated: int  # bytes
    stored: int
    start: int


@contextlib.contextmanager
def _looking() -> Iterator[None]:
    """Wherever in a file there is nothing to be read, it is none."""
    try:
        yield
    except (IndexError, KeyError, OverflowError, TypeError, struct.error):
        raise InvalidInput(
            "The file is not readable as Parquet: it is damaged or cut off. Send the whole file, or write it again."
        ) from None


@_looking()
def parquet_footer_bytes(source: Source) -> int:
    """Return an estimate of the bytes of the decoded footer. Each struct in it ends with a zero byte."""
    described = _footer_view(view_of(source))
    structs = min(bytes(described).count(0), MAX_STRUCTS)
    return STRUCT_BYTES * structs + FOOTER_TIMES * len(described)


@_looking()
def check_parquet_footer(source: Source) -> None:
    """Raises InvalidInput where the footer is too long to be decoded in bearable memory, or is none."""
    _footer(view_of(source))


@_looking()
def check_parquet_size(source: Source, paths: list[str], names: list[str], limit: int) -> int:
    """Return about how many bytes of pages are decoded at a time.

    Raises BodyTooLarge if the columns of these names come to more than an upload of `limit` bytes may.

    `paths` are those of all columns. Raises InvalidInput if a row group takes more memory than may be, or the
    columns have too many pages.
    """
    view = view_of(source)
    groups = _footer(view)
    check_rows(sum(max(group[3, I64], 0) for group in groups), len(names), limit)
    wanted = frozenset(names)
    pages = most = 0
    for group in groups:
        chunks = group[1, LIST]
        if len(chunks) != len(paths):
            raise IndexError("The row group has not the columns of the file.")
        held = 0
        for path, chunk in zip(paths, chunks, strict=True):
            if path not in wanted:
                continue
            largest = {True: 0, False: 0}  # of dictionaries, and of other pages: one of each is in memory
            for page in _pages(view, chunk[3, STRUCT]):
                pages += 1
                if pages > MAX_PAGES:
                    raise InvalidInput(f"The columns have more than {MAX_PAGES} pages. Write larger ones.")
                largest[page.kind == _DICTIONARY] = max(largest[page.kind == _DICTIONARY], page.inflated)
            held += sum(largest.values())
        check_held(held, len(view))
        most = max(most, held)
    return int(DECODED_TIMES * most)


def _footer(view: memoryview) -> list[Any]:
    """What the footer says of each row group."""
    groups: list[Any] = Reader(_footer_view(view)).struct()[4, LIST]
    return groups


def _footer_view(view: memoryview) -> memoryview:
    end = len(view) - _TAIL_BYTES
    if end < 0:
        raise IndexError("There is no footer.")
    (length,) = struct.unpack_from("<I", view, end)
    check_metadata(length)
    if length > end:
        raise IndexError("The footer is longer than the file.")
    return view[end - length : end]


def _pages(view: memoryview, chunk: Fields) -> Iterator[_Page]:
    """The pages of a column chunk; of one that has no values, or is not packed and as long as it is, none."""
    if not chunk[5, I64] or chunk[4, I32] == _PLAIN:
        return
    at, dictionary = chunk[9, I64], chunk.get((11, I64), 0)
    if 0 < dictionary < at:
        at = dictionary
    end = at + chunk[7, I64]
    if not 0 <= at <= end <= len(view):
        raise IndexError("The column lies beyond the file.")
    while at < end:
        reader = Reader(view, at)
        header = reader.struct()
        page = _Page(header[1, I32], header[2, I32], header[3, I32], reader.at)
        if min(page) < 0:
            raise IndexError("No page is as short as this.")
        yield page
        at = page.start + page.stored
