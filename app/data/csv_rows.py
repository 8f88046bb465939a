"""CSV, read by pyarrow: fast as long as nothing is unusual, then again, carefully, for the place of what is."""

import codecs
import csv
import io
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from app.data.part import Columns, Part, Source, check_distinct, check_names, part_of, refusal
from app.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 1 << 20  # a row has to fit into one
LINE_BYTES = 1 << 12
PIECE_BYTES = 1 << 21  # parsed by one thread at a time


def csv_names(source: Source) -> list[str]:
    """The names in the first row.

    Raises InvalidInput where there is none, it is not UTF-8, or a name stands twice.
    """
    return _header(_beginning(source))


def read_csv(source: Source, columns: Columns, threads: int = 1) -> Iterator[Part]:
    """The rows of a file with a header row.

    Raises InvalidInput with the place of the first value that is missing, not a number or not finite. Rows count
    from 1 as in a spreadsheet, the header being row 1; empty lines do not count.
    """
    beginning = _beginning(source)
    header = _header(beginning)
    check_names(header, columns)
    given = 0
    try:
        for part in _read_fast(source, _body_start(beginning, header), header, columns, threads):
            yield part
            given += len(part.values)
    except _UnusualError:
        yield from _from_row(given, _read_carefully(source, header, columns))


class _UnusualError(Exception):
    """What only careful reading understands, or can name the place of."""


def _beginning(source: Source) -> bytes:
    with _opened(source) as file:
        return file.read(BLOCK_BYTES)


def _opened(source: Source) -> BinaryIO:
    return source.open("rb") if isinstance(source, Path) else io.BytesIO(source)


def _header(beginning: bytes) -> list[str]:
    try:
        # An incomplete character at the cut is no fault of the header's.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(beginning, final=len(beginning) < BLOCK_BYTES)
        names = next((row for row in csv.reader(io.StringIO(text, newline="")) if row), [])
    except (UnicodeDecodeError, csv.Error):
        raise InvalidInput("The file is not UTF-8 text with a header row.") from None
    if not names:
        raise InvalidInput("The file is empty; it needs a header row with the columns' names.")
    check_distinct(names, "A column's name stands twice in the header.", row=1)
    return names


def _body_start(beginning: bytes, header: list[str]) -> int | None:
    """Where the rows after the header begin; None where the header is more than a line."""
    rest = beginning.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    line, newline, _ = rest.partition(b"\n")
    plain = line.removesuffix(b"\r")
    whole = newline or len(beginning) < BLOCK_BYTES
    if not whole or b"\r" in plain or next(csv.reader([plain.decode()]), []) != header:
        return None
    return len(beginning) - len(rest) + len(line) + len(newline)


def _read_fast(
    source: Source, start: int | None, header: Sequence[str], columns: Columns, threads: int
) -> Iterator[Part]:
    """Pieces between line breaks, parsed side by side. Raises _UnusualError at whatever they cannot be parsed with."""
    if start is None:
        raise _UnusualError
    with _opened(source) as file:
        pieces = pairwise(_cuts(file, start))
        if threads <= 1:
            for begin, end in pieces:
                yield _parse(_read_at(file, begin, end), header, columns)
            return
        with ThreadPoolExecutor(threads) as pool:
            ahead: deque[Future[Part]] = deque()
            for begin, end in pieces:
                # Read here, in the file's order; at most so many pieces are in memory.
                ahead.append(pool.submit(_parse, _read_at(file, begin, end), header, columns))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()


def _cuts(file: BinaryIO, start: int) -> Iterator[int]:
    """Places right after line breaks, a piece apart, from `start` to the end of the file."""
    size = file.seek(0, os.SEEK_END)
    yield start
    while start < size:
        start += PIECE_BYTES
        if start < size:
            # Most rows are short; one that is not has to fit into a block all the same.
            for most in (LINE_BYTES, BLOCK_BYTES):
                newline = _read_at(file, start, start + most).find(b"\n")
                if newline >= 0 or start + most >= size:
                    break
            else:
                raise _UnusualError
            start = size if newline < 0 else start + newline + 1
        yield min(start, size)


def _read_at(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)


def _parse(piece: bytes, header: Sequence[str], columns: Columns) -> Part:
    import pyarrow as pa
    from pyarrow.csv import ParseOptions, ReadOptions, read_csv

    if b'"' in piece:  # a line break may be one inside quotes
        raise _UnusualError
    try:
        table = read_csv(
            pa.py_buffer(piece),
            read_options=ReadOptions(use_threads=False, block_size=len(piece) + 1, column_names=header),
            parse_options=ParseOptions(quote_char=False),
            convert_options=_conversion(columns, null_values=None if columns.missing else []),
        )
        return part_of(table.combine_chunks().to_batches()[0], columns, 0)
    except (pa.ArrowException, InvalidInput, IndexError):
        raise _UnusualError from None


def _conversion(columns: Columns, **options: object) -> "pa.csv.ConvertOptions":
    import pyarrow as pa
    from pyarrow.csv import ConvertOptions

    types = dict.fromkeys(columns.numbers, pa.float64()) | dict.fromkeys(columns.keep, pa.string())
    return ConvertOptions(include_columns=list(types), column_types=types, **options)


def _read_carefully(source: Source, header: Sequence[str], columns: Columns) -> Iterator[Part]:
    import pyarrow as pa
    from pyarrow.csv import ParseOptions, ReadOptions, open_csv

    try:
        # One thread: only then does pyarrow say in which row it stumbled.
        reader = open_csv(
            str(source) if isinstance(source, Path) else pa.py_buffer(source),
            read_options=ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=ParseOptions(newlines_in_values=True),
            convert_options=_conversion(columns),
        )
        row = 2
        for batch in reader:
            yield part_of(batch, columns, row)
            row += batch.num_rows
    except pa.ArrowException as error:
        raise _explanation(str(error), header) from None


def _from_row(first: int, parts: Iterator[Part]) -> Iterator[Part]:
    """The parts without their first rows."""
    for values, kept in parts:
        skipped = min(first, len(values))
        first -= skipped
        if skipped < len(values):
            yield Part(values[skipped:], kept.slice(skipped) if kept is not None else None)


def _explanation(message: str, header: Sequence[str]) -> InvalidInput:
    """What pyarrow's message says, without the input that it quotes."""
    if place := re.match(r"In CSV column #(\d+): Row #(\d+)", message):
        return refusal(
            "The value is not a number; `features` chooses the columns to read.",
            row=int(place[2]),
            column=header[int(place[1])],
        )
    if place := re.match(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        return refusal(f"Expected {place[2]} values, found {place[3]}.", row=int(place[1]))
    if "straddling" in message:
        return InvalidInput(f"A row is longer than {BLOCK_BYTES} bytes.")
    return InvalidInput("The file is not readable as CSV.")
