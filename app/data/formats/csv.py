"""CSV, read by pyarrow: fast as long as nothing is unusual, then again, carefully, for the place of what is."""

import codecs
import csv
import functools
import io
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from app.data.batch import (
    Columns,
    Header,
    RowBatch,
    Source,
    check_distinct,
    check_names,
    from_record_batch,
    row_error,
)
from app.data.formats.content import SAVE_AS_UTF8
from app.data.formats.csv_numbers import MISSING_WORDS, NUMBER, kind_of_text
from app.data.limits.arrow_memory import raise_if_memory
from app.data.rounding import Array, has_large
from app.errors import FieldError, InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 1 << 20  # Bytes that a row may have.
LINE_BYTES = 1 << 12
PIECE_BYTES = 1 << 21  # Bytes parsed by one of several threads at a time.
ALONE_BYTES = 1 << 19  # Bytes parsed at a time by a single thread. A parsed byte may take eight or more.
SCAN_BYTES = 1 << 16  # Bytes checked at a time for their encoding: they stay in the cache between read and check.
MAX_SKIPPED = 1000  # Rows of the wrong length that are counted on the way to a byte that is not UTF-8.

_BOM = codecs.BOM_UTF8


def csv_names(source: Source, header: Header | None = None) -> list[str]:
    """The names in the first row; with header "none", c1, c2 and so on for as many values as it has.

    Raises InvalidInput where there is none, it is not UTF-8, a name stands twice, or all are numbers without a
    `header` that says what they are.
    """
    return _header(_beginning(source), header)


def first_csv_row(header: Header | None) -> int:
    """Return the number of the first row of data."""
    return 1 if header == "none" else 2


def read_csv(source: Source, columns: Columns, threads: int = 1) -> Iterator[RowBatch]:
    """The rows of a file with a header row, or without one if `columns.header` is "none".

    Raises InvalidInput with the place of the first value that is missing, not a number or not finite. Rows count
    from 1 as in a spreadsheet, the header being row 1; empty lines do not count. A file that is not UTF-8 is refused
    wherever its first such byte is, in a column that is read or not.
    """
    beginning = _beginning(source)
    header = _header(beginning, columns.header)
    check_names(header, columns)
    start = _body_start(beginning, header) if columns.header != "none" else _bom_length(beginning)
    given = 0
    try:
        for part in _read_fast(source, start, header, columns, threads):
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


def _bom_length(beginning: bytes) -> int:
    return len(_BOM) if beginning.startswith(_BOM) else 0


def _header(beginning: bytes, header: Header | None) -> list[str]:
    # The encoding of later rows is checked as they are read.
    text = beginning[_bom_length(beginning) :].decode(errors="surrogateescape")
    try:
        names = next((row for row in csv.reader(io.StringIO(text, newline="")) if row), [])
    except csv.Error:
        message = "Row 1 is not readable as CSV. Expected the names of the columns, separated by commas."
        raise InvalidInput(message, [FieldError(message, row=1)]) from None
    if header == "none":
        names = [f"c{number}" for number in range(1, len(names) + 1)]
    if not names:
        hint = "rows" if header == "none" else "a header row with the names of the columns, and rows"
        raise InvalidInput(f"The file is empty. Expected {hint}.")
    try:
        "".join(names).encode()
    except UnicodeEncodeError:  # A byte that was escaped above.
        raise _not_utf8(1) from None
    if header is None and _are_numbers(names):
        message = (
            "Row 1 holds only numbers, but the names of the columns were expected. Add a first row with the names; or "
            "add `header=none`, which names the columns c1, c2, ..., or `header=names` if the numbers are the names."
        )
        raise InvalidInput(message, [FieldError(message, row=1)])
    check_distinct(names, "Several columns have the same name in the header:", row=1)
    return names


def _are_numbers(names: Sequence[str]) -> bool:
    """Return True if all names are numbers, apart from those that mark a missing value in a row."""
    given = [name.strip() for name in names if name.strip().lower() not in MISSING_WORDS]
    return bool(given) and all(NUMBER.fullmatch(name) for name in given)


def _body_start(beginning: bytes, header: list[str]) -> int | None:
    """Where the rows after the header begin; None where the header is more than a line."""
    rest = beginning.removeprefix(_BOM).lstrip(b"\r\n")
    line, newline, _ = rest.partition(b"\n")
    plain = line.removesuffix(b"\r")
    whole = newline or len(beginning) < BLOCK_BYTES
    if not whole or b"\r" in plain or next(csv.reader([plain.decode(errors="replace")]), []) != header:
        return None
    return len(beginning) - len(rest) + len(line) + len(newline)


def _read_fast(
    source: Source, start: int | None, header: Sequence[str], columns: Columns, threads: int
) -> Iterator[RowBatch]:
    """Pieces between line breaks, parsed side by side. Raises _UnusualError at whatever they cannot be parsed with."""
    if start is None:
        raise _UnusualError
    size = PIECE_BYTES if threads > 1 else ALONE_BYTES
    known: set[int] = set()  # Columns in which an integer was rounded; later pieces need not look for another.
    with _opened(source) as file:
        pieces = (_read_at(file, begin, end) for begin, end in pairwise(_cuts(file, start, size)))
        for part in _parsed(pieces, header, columns, known, threads):
            known.update(index for index, _ in part.rounded)
            yield part


def _parsed(
    pieces: Iterable[bytes], header: Sequence[str], columns: Columns, known: AbstractSet[int], threads: int
) -> Iterator[RowBatch]:
    if threads <= 1:
        for piece in pieces:
            yield _parse(piece, header, columns, known)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[RowBatch]] = deque()
        for piece in pieces:
            # Read here, in the file's order; at most `threads` + 1 pieces are in memory.
            ahead.append(pool.submit(_parse, piece, header, columns, frozenset(known)))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _cuts(file: BinaryIO, start: int, piece: int) -> Iterator[int]:
    """Places right after line breaks, `piece` bytes apart, from `start` to the end of the file."""
    size = file.seek(0, os.SEEK_END)
    yield start
    while start < size:
        start += piece
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


def _parse(piece: bytes, header: Sequence[str], columns: Columns, known: AbstractSet[int]) -> RowBatch:
    import pyarrow as pa

    if b'"' in piece:  # a line break may be one inside quotes
        raise _UnusualError
    try:
        if not piece.isascii():
            piece.decode()
        null_values: list[str] | None = None if columns.missing else []
        batch = _parse_piece(piece, header, _conversion(columns, null_values=null_values))
        return from_record_batch(batch, columns, 0, lambda values: _texts(piece, header, columns, values, known))
    except (pa.ArrowException, InvalidInput, IndexError, UnicodeDecodeError) as error:
        raise_if_memory(error)
        raise _UnusualError from None


def _parse_piece(piece: bytes, header: Sequence[str], conversion: "pa.csv.ConvertOptions") -> "pa.RecordBatch":
    import pyarrow as pa
    from pyarrow.csv import ParseOptions, ReadOptions, read_csv

    table = read_csv(
        pa.py_buffer(piece),
        read_options=ReadOptions(use_threads=False, block_size=len(piece) + 1, column_names=header),
        parse_options=ParseOptions(quote_char=False),
        convert_options=conversion,
    )
    return table.combine_chunks().to_batches()[0]


def _texts(
    piece: bytes, header: Sequence[str], columns: Columns, values: Array, known: AbstractSet[int]
) -> "pa.RecordBatch | None":
    """Parse the columns with large values again, as text, apart from the known ones."""
    large = [index for index in range(len(values)) if index not in known and has_large(values[index])]
    return _parse_piece(piece, header, _as_text([columns.numbers[index] for index in large])) if large else None


def _conversion(columns: Columns, **options: object) -> "pa.csv.ConvertOptions":
    import pyarrow as pa
    from pyarrow.csv import ConvertOptions

    types = dict.fromkeys(columns.numbers, pa.float64()) | dict.fromkeys(columns.keep, pa.string())
    return ConvertOptions(include_columns=list(types), column_types=types, **options)


def _as_text(names: Sequence[str]) -> "pa.csv.ConvertOptions":
    return _conversion(Columns([], keep=names))


def _read_carefully(source: Source, header: Sequence[str], columns: Columns) -> Iterator[RowBatch]:
    import pyarrow as pa

    _check_encoding(source)
    try:
        row = first_csv_row(columns.header)
        texts = _TextBatches(source, header, columns)
        for number, batch in enumerate(_open_carefully(source, header, columns, _conversion(columns))):
            yield from_record_batch(batch, columns, row, functools.partial(texts.batch, number))
            row += batch.num_rows
    except pa.ArrowException as error:
        raise_if_memory(error)
        raise _explanation(str(error), header, columns) from None


class _TextBatches:
    """The batches of a file once more, as text. Equal blocks make equal batches."""

    def __init__(self, source: Source, header: Sequence[str], columns: Columns) -> None:
        self._source, self._header, self._columns = source, header, columns
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._read = 0

    def batch(self, number: int, _: Array) -> "pa.RecordBatch":
        """Return the batch of that number; each is asked for at most once, in ascending order."""
        if self._batches is None:
            conversion = _as_text(self._columns.numbers)
            self._batches = iter(_open_carefully(self._source, self._header, self._columns, conversion))
        skipped, self._read = number - self._read, number + 1
        return next(islice(self._batches, skipped, None))


def _open_carefully(
    source: Source, header: Sequence[str], columns: Columns, conversion: "pa.csv.ConvertOptions"
) -> Any:
    import pyarrow as pa
    from pyarrow.csv import ParseOptions, ReadOptions, open_csv

    names = header if columns.header == "none" else None
    return open_csv(
        str(source) if isinstance(source, Path) else pa.py_buffer(source),
        # One thread: only then does pyarrow say in which row it stumbled.
        read_options=ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names),
        parse_options=ParseOptions(newlines_in_values=True),
        convert_options=conversion,
    )


def _from_row(first: int, parts: Iterator[RowBatch]) -> Iterator[RowBatch]:
    """The parts without their first rows."""
    for values, kept, rounded, _ in parts:
        skipped = min(first, len(values))
        first -= skipped
        if skipped < len(values):
            later = tuple((column, row - skipped) for column, row in rounded if row >= skipped)
            yield RowBatch(values[skipped:], kept.slice(skipped) if kept is not None else None, later)


def _check_encoding(source: Source) -> None:
    """Raises InvalidInput with the row of the first byte that is not UTF-8, if the file has one."""
    at, pending = 0, b""
    with source.open("rb", buffering=0) if isinstance(source, Path) else io.BytesIO(source) as file:
        while True:
            block = file.read(SCAN_BYTES)
            data = pending + block if pending else block
            try:
                length = len(data) if data.isascii() else codecs.utf_8_decode(data, "strict", not block)[1]
            except UnicodeDecodeError as error:
                raise _not_utf8(_row_at(source, at + error.start)) from None
            if not block:
                return
            at, pending = at + length, data[length:]


def _not_utf8(row: int | None) -> InvalidInput:
    if row is None:
        return InvalidInput(f"The file is not UTF-8 text. {SAVE_AS_UTF8}")
    message = f"The file is not UTF-8 text: row {row} has a byte that is not UTF-8. {SAVE_AS_UTF8}"
    return InvalidInput(message, [FieldError(message, row=row)])


class _Head(io.RawIOBase):
    """The beginning of a file, and a word in place of what follows."""

    def __init__(self, file: BinaryIO, length: int, word: bytes) -> None:
        self._file, self._left, self._word = file, length, word

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if found := self._file.read(self._left if size < 0 else min(size, self._left)):
            self._left -= len(found)
            return found
        word, self._word = self._word, b""
        return word


def _row_at(source: Source, offset: int) -> int | None:
    """Return the number of the row in which a byte is, or None if the rows before it cannot be counted."""
    import pyarrow as pa

    for word in (b"word\n", b'word"\n'):  # The byte may be inside quotes.
        try:
            with _opened(source) as file:
                return _count_rows(_Head(file, offset, word))
        except pa.ArrowException as error:
            raise_if_memory(error)
    return None


def _count_rows(file: io.RawIOBase) -> int:
    import pyarrow as pa
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

    skipped = 0

    def skip(_: object) -> str:
        nonlocal skipped
        skipped += 1
        return "skip" if skipped <= MAX_SKIPPED else "error"

    reader = open_csv(
        file,
        read_options=ReadOptions(use_threads=False, block_size=BLOCK_BYTES, autogenerate_column_names=True),
        parse_options=ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=ConvertOptions(include_columns=["f0"], column_types={"f0": pa.binary()}),
    )
    rows = sum(int(batch.num_rows) for batch in reader)
    return rows + skipped


def _explanation(message: str, header: Sequence[str], columns: Columns) -> InvalidInput:
    """What pyarrow's message says, without the input that it quotes."""
    if place := re.match(r"In CSV column #(\d+): Row #(\d+)", message):
        value = re.search(r"invalid value '(.*)'\Z", message, re.DOTALL)
        found = kind_of_text(value[1]) if value else "text"
        choice = " `features` chooses the columns to read." if columns.training else ""
        return row_error(f"Expected a number, found {found}.{choice}", row=int(place[2]), column=header[int(place[1])])
    if place := re.match(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        return row_error(
            f"Expected {place[2]} values, found {place[3]}. Each row needs as many as row 1: put a value with a comma "
            "in quotes, and write decimals with a point.",
            row=int(place[1]),
        )
    if "straddling" in message:
        return InvalidInput(
            f"A row is longer than {BLOCK_BYTES} bytes. Is a closing quote missing? Write shorter rows."
        )
    return InvalidInput("The file is not readable as CSV. Expected rows of values separated by commas.")
