"""The size of a Parquet file's rows, from its footer and the header before each page, without decoding a page.

Fields are numbered as in the format's `parquet.thrift`. pyarrow's own view of a footer ends the process if some parts
of it are damaged.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from app.data.batch import RangedFile, Source
from app.data.limits.decode_limits import METADATA_BYTES, check_held, check_metadata, check_rows, refuse_damage, view_of
from app.data.limits.thrift import I32, I64, LIST, MAX_STRUCTS, STRUCT, Fields, Reader
from app.errors import InvalidInput

MAX_PAGES = 200_000  # Pages of the columns that are read.
MAX_HEADER_BYTES = 1 << 25  # Bytes of the headers of these pages, because reading a byte may take a microsecond.
# Limits that pyarrow checks while it decodes a footer: bytes of a string, and elements of a list.
THRIFT_LIMITS = {"thrift_string_size_limit": METADATA_BYTES, "thrift_container_size_limit": 20_000}

STRUCT_BYTES = 1000  # Bytes of a decoded struct of a footer, at most.
FOOTER_TIMES = 20  # Decoded bytes per byte of a footer, in addition to those of its structs.
DECODED_TIMES = 1.5  # Bytes per byte of a decompressed page, with the values decoded from it.

FIRST_TAIL_BYTES = 1 << 16  # Bytes read first from the end of a file elsewhere, which often have the whole footer.
_TAIL_BYTES = 8  # Bytes of the footer's length and "PAR1".
_UNCOMPRESSED = 0  # a codec
_DICTIONARY = 2  # a page type
_DAMAGED = "The file is not readable as Parquet: it is damaged or cut off. Send the whole file, or write it again."


class _Page(NamedTuple):
    page_type: int
    decompressed: int  # bytes
    stored: int  # bytes
    header_bytes: int


@refuse_damage(_DAMAGED)
def parquet_footer_bytes(source: Source) -> int:
    """Return an estimate of the bytes of the decoded footer."""
    footer = _footer(source)
    return STRUCT_BYTES * min(_most_structs(footer), MAX_STRUCTS) + FOOTER_TIMES * len(footer)


@refuse_damage(_DAMAGED)
def check_parquet_footer(source: Source) -> None:
    """Raise InvalidInput if the footer takes too much memory to decode.

    THRIFT_LIMITS bound each of its lists, but not all of them together: a footer of 2 MB can describe 700,000 column
    chunks, which take 480 MB.
    """
    footer = _footer(source)
    if _most_structs(footer) > MAX_STRUCTS:
        Reader(footer).struct()  # counts them exactly


class RowGroup(NamedTuple):
    rows: int
    size: int  # bytes of its pages, compressed if that is known


@refuse_damage(_DAMAGED)
def parquet_row_groups(source: Source) -> list[RowGroup]:
    """Return the row groups that the footer describes. Raises InvalidInput if it is damaged."""
    groups: list[Fields] = Reader(_footer(source)).struct()[4, LIST]
    found = [RowGroup(group[3, I64], group[6, I64] if (6, I64) in group else group[2, I64]) for group in groups]
    if any(min(group) < 0 for group in found):
        raise IndexError("A row group cannot have a negative size.")
    return found


@refuse_damage(_DAMAGED)
def check_parquet_size(
    source: Source, paths: list[str], names: list[str], limit: int | None, groups: slice = slice(None)
) -> int:
    """Return an estimate of the bytes of pages that are decoded at a time.

    `paths` are those of all columns, and `names` those of the columns to read in the row groups `groups`. Without a
    limit, a file may have any number of rows, and the pages are counted for each row group. Of a file elsewhere, only
    the number of rows is checked, because each page has its header before it.

    Raises BodyTooLarge if the columns are too large for an upload of `limit` bytes, InvalidInput if a row group takes
    too much memory, or if the columns have too many pages.
    """
    row_groups: list[Fields] = Reader(_footer(source)).struct()[4, LIST][groups]
    if limit is not None:
        check_rows(sum(max(row_group[3, I64], 0) for row_group in row_groups), len(names), limit)
    if isinstance(source, RangedFile):
        return 0
    view = view_of(source)
    wanted = frozenset(names)
    pages = header_bytes = most = 0
    for row_group in row_groups:
        chunks = row_group[1, LIST]
        if len(chunks) != len(paths):
            raise IndexError("The row group has not the columns of the file.")
        held = 0
        if limit is None:
            pages = header_bytes = 0
        for path, chunk in zip(paths, chunks, strict=True):
            if path not in wanted:
                continue
            # Largest page that is a dictionary, and largest other page: one of each is in memory.
            largest = {True: 0, False: 0}
            for page in _pages(view, chunk[3, STRUCT]):
                pages += 1
                header_bytes += page.header_bytes
                if pages > MAX_PAGES or header_bytes > MAX_HEADER_BYTES:
                    raise InvalidInput(
                        f"The columns have more than {MAX_PAGES} pages, or long page headers. Write larger pages."
                    )
                is_dictionary = page.page_type == _DICTIONARY
                largest[is_dictionary] = max(largest[is_dictionary], page.decompressed)
            held += sum(largest.values())
        check_held(held, len(view))
        most = max(most, held)
    return int(DECODED_TIMES * most)


def _footer(source: Source) -> memoryview:
    if not isinstance(source, RangedFile):
        return _footer_view(view_of(source))
    with source.open() as file:
        for size in (FIRST_TAIL_BYTES, METADATA_BYTES + _TAIL_BYTES):
            start = max(0, source.size - size)
            file.seek(start)
            tail = memoryview(file.read(source.size - start))
            if start == 0 or _footer_length(tail) + _TAIL_BYTES <= len(tail):
                break
    return _footer_view(tail)


def _footer_length(view: memoryview) -> int:
    """Return the length of the footer of a file whose end is `view`. Raises InvalidInput if it is too long."""
    end = len(view) - _TAIL_BYTES
    if end < 0:
        raise IndexError("There is no footer.")
    (length,) = struct.unpack_from("<I", view, end)
    check_metadata(length)
    return int(length)


def _footer_view(view: memoryview) -> memoryview:
    length, end = _footer_length(view), len(view) - _TAIL_BYTES
    if length > end:
        raise IndexError("The footer is longer than the file.")
    return view[end - length : end]


def _most_structs(footer: memoryview) -> int:
    """Return an upper bound of the number of structs. Each ends with a zero byte."""
    return bytes(footer).count(0)


def _pages(view: memoryview, chunk: Fields) -> Iterator[_Page]:
    """Yield the pages of a compressed column chunk that has values. Other chunks are read without decompressing."""
    if not chunk[5, I64] or chunk[4, I32] == _UNCOMPRESSED:
        return
    at, dictionary = chunk[9, I64], chunk.get((11, I64), 0)
    if 0 < dictionary < at:
        at = dictionary
    end = at + chunk[7, I64]
    if not 0 <= at <= end <= len(view):
        raise IndexError("The column lies beyond the file.")
    while at < end:
        reader = Reader(view[at : at + METADATA_BYTES])
        header = reader.struct()
        page = _Page(header[1, I32], header[2, I32], header[3, I32], reader.at)
        if min(page) < 0:
            raise IndexError("A page cannot have a negative length.")
        yield page
        at += page.header_bytes + page.stored
