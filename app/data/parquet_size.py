"""What a Parquet file says of its size, in its footer and before each page, found without decoding any.

See `parquet.thrift` of the format for the fields' numbers.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from app.data.decoded_size import check_held, check_metadata, check_rows, view_of
from app.data.part import Source
from app.errors import InvalidInput

MAX_PAGES = 200_000  # of the columns that are read
MAX_DEPTH = 8  # of structs in a page's header, which has 3
MAX_FIELDS = 64  # of each

_TAIL_BYTES = 8  # the footer's length and "PAR1"
_DICTIONARY = 2  # a kind of page
_VARINT_BYTES = 10

# Thrift's compact protocol: kinds of fields.
_BOOLEANS = (1, 2)
_BYTE, _DOUBLE, _STRING, _STRUCT = 3, 7, 8, 12
_INTEGERS = (4, 5, 6)
_FIXED = {_BYTE: 1, _DOUBLE: 8}


class _Page(NamedTuple):
    kind: int
    inflated: int  # bytes
    stored: int
    start: int


def check_parquet_footer(source: Source) -> None:
    """Raises InvalidInput where the footer is too long to be decoded in bearable memory."""
    view = view_of(source)
    if len(view) >= _TAIL_BYTES:
        check_metadata(struct.unpack_from("<I", view, len(view) - _TAIL_BYTES)[0])


def check_parquet_size(source: Source, metadata: Any, names: Sequence[str], limit: int) -> None:
    """Raises BodyTooLarge where these columns come to more than an upload of `limit` bytes may.

    Raises InvalidInput where a row group takes more memory than may be, or they have too many pages.
    """
    check_rows(metadata.num_rows, len(names), limit)
    view = view_of(source)
    wanted = frozenset(names)
    pages = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        held = 0
        for chunk in map(group.column, range(group.num_columns)):
            # Nothing is read of a column without values; and what is not compressed is as long as it says.
            if chunk.path_in_schema not in wanted or not chunk.num_values or chunk.compression == "UNCOMPRESSED":
                continue
            largest = {True: 0, False: 0}  # of dictionaries, and of other pages: one of each is in memory
            for page in _pages(view, chunk):
                pages += 1
                if pages > MAX_PAGES:
                    raise InvalidInput(f"The columns have more than {MAX_PAGES} pages; larger ones will do.")
                largest[page.kind == _DICTIONARY] = max(largest[page.kind == _DICTIONARY], page.inflated)
            held += sum(largest.values())
        check_held(held, len(view))


def _pages(view: memoryview, chunk: Any) -> Iterator[_Page]:
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    end = at + chunk.total_compressed_size
    try:
        if not 0 <= at <= end <= len(view):
            raise IndexError("The column lies beyond the file.")
        while at < end:
            page = _page(view, at)
            yield page
            at = page.start + page.stored
    except (IndexError, struct.error):
        raise InvalidInput("The file is not readable as Parquet.") from None


def _page(view: memoryview, at: int) -> _Page:
    """The page whose header begins there. Raises IndexError where there is no such header."""
    fields, start = _struct(view, at)
    kind, inflated, stored = (fields.get(number, -1) for number in (1, 2, 3))
    if min(kind, inflated, stored) < 0:
        raise IndexError("The header lacks what every header has.")
    return _Page(kind, inflated, stored, start)


def _struct(view: memoryview, at: int, depth: int = 0) -> tuple[dict[int, int], int]:
    """The integers among a struct's fields, by number, and where it ends."""
    found: dict[int, int] = {}
    number = 0
    for _ in range(MAX_FIELDS):
        head = view[at]
        at += 1
        if not head:
            return found, at
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(view, at)
        if kind in _INTEGERS:
            found[number], at = _integer(view, at)
        elif kind == _STRUCT and depth < MAX_DEPTH:
            _, at = _struct(view, at, depth + 1)
        elif kind == _STRING:
            length, at = _varint(view, at)
            at += length
        elif kind in _FIXED:
            at += _FIXED[kind]
        elif kind not in _BOOLEANS:
            break
    raise IndexError("No header of a page has this.")


def _integer(view: memoryview, at: int) -> tuple[int, int]:
    value, at = _varint(view, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:  # noqa: PLR2004 - the eighth bit says that more follows
            return value, at
    raise IndexError("No number is as long as this.")
