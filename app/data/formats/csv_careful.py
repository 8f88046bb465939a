"""Reading of CSV files with quotes, line breaks in cells, or faults.

It uses one thread, because pyarrow names the row of a fault only then.
"""

import codecs
import functools
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from app.data.batch import Array, Columns, RowBatch, Source, from_record_batch, open_source, row_error
from app.data.formats.csv_header import MAX_ROW_BYTES, not_utf8
from app.data.lazy_pyarrow import pa, raise_if_memory
from app.errors import InvalidInput

SCAN_BYTES = 1 << 16  # Bytes checked at a time for their encoding: they stay in the cache between read and check.
MAX_SKIPPED = 1000  # Rows of the wrong length that are counted on the way to a byte that is not UTF-8.
_MAX_DESCRIBED = 100  # Characters of a text that is inspected.
_DESCRIPTIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"[^0-9]{0,3}[0-9]+(?:[.,][0-9]+)*,[0-9]+(?:\.[0-9]+)?[^0-9]{0,3}"),
        "a number with a comma. Write decimals with a point, and no separators between thousands",
    ),
    (
        re.compile(r"[+-]?[0-9]{1,3}(?:[ '_\u00a0\u2009\u202f\u2019][0-9]{3})+(?:\.[0-9]+)?"),
        "a number with separators between thousands. Write it without them",
    ),
    (
        re.compile(r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}(?:[ T].*)?|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}.*)?"),
        "a date or a time. Convert it to a number, such as days since a date",
    ),
    (
        re.compile(r"[^0-9.+\-]{1,4}[0-9.]+|[+-]?[0-9.]+ ?[^0-9. ]{1,5}"),
        "a number with a unit or a sign. Write the number alone",
    ),
    (re.compile(r"true|false|yes|no", re.IGNORECASE), "a boolean. Write 1 or 0"),
    (re.compile(r"[?\-.*]|none|missing|unknown|#n/a|<na>|nil", re.IGNORECASE), "a mark for a missing value"),
)


def read_carefully(source: Source, header: Sequence[str], columns: Columns, first_row: int) -> Iterator[RowBatch]:
    """Yield the rows. Raises InvalidInput with the place of the first fault."""
    _check_encoding(source)
    try:
        row = first_row
        texts = _text_batches(source, header, columns)
        for number, batch in enumerate(_open_carefully(source, header, columns, conversion(columns))):
            yield from_record_batch(batch, columns, row, functools.partial(_text_batch, texts, number))
            row += batch.num_rows
    except pa.ArrowException as error:
        raise_if_memory(error)
        raise _explanation(str(error), header, columns) from None


def conversion(columns: Columns, **options: object) -> "pa.csv.ConvertOptions":
    """Return pyarrow's options for reading the columns."""
    types = dict.fromkeys(columns.numbers, pa.float64()) | dict.fromkeys(columns.keep, pa.string())
    return pa.csv.ConvertOptions(include_columns=list(types), column_types=types, **options)


def conversion_to_text(names: Sequence[str]) -> "pa.csv.ConvertOptions":
    """Return pyarrow's options for reading the columns as text."""
    return conversion(Columns([], keep=names))


def _text_batches(source: Source, header: Sequence[str], columns: Columns) -> "Iterator[tuple[int, pa.RecordBatch]]":
    """Yield the batches of a file once more, as text. The file is opened for the first of them."""
    yield from enumerate(_open_carefully(source, header, columns, conversion_to_text(columns.numbers)))


def _text_batch(texts: "Iterator[tuple[int, pa.RecordBatch]]", number: int, _: Array) -> "pa.RecordBatch":
    return next(batch for other, batch in texts if other == number)


def _open_carefully(source: Source, header: Sequence[str], columns: Columns, options: "pa.csv.ConvertOptions") -> Any:
    names = header if columns.dialect.header == "none" else None
    return pa.csv.open_csv(
        str(source) if isinstance(source, Path) else pa.py_buffer(source),
        # With several threads pyarrow does not name the row of a fault.
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=MAX_ROW_BYTES, column_names=names),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=options,
    )


def _check_encoding(source: Source) -> None:
    """Raise InvalidInput with the row of the first byte that is not UTF-8, if the file has one."""
    at, pending = 0, b""
    with open_source(source) as file:
        while True:
            block = file.read(SCAN_BYTES)
            data = pending + block if pending else block
            try:
                length = len(data) if data.isascii() else codecs.utf_8_decode(data, "strict", not block)[1]
            except UnicodeDecodeError as error:
                raise not_utf8(_row_at(source, at + error.start)) from None
            if not block:
                return
            at, pending = at + length, data[length:]


class _Head(io.RawIOBase):
    """The beginning of a file, followed by a word in place of the rest."""

    def __init__(self, file: BinaryIO, length: int, word: bytes) -> None:
        self._file, self._left, self._word = file, length, word

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if data := self._file.read(self._left if size < 0 else min(size, self._left)):
            self._left -= len(data)
            return data
        word, self._word = self._word, b""
        return word


def _row_at(source: Source, offset: int) -> int | None:
    """Return the number of the row in which a byte is, or None if the rows before it cannot be counted."""
    for word in (b"word\n", b'word"\n'):  # The byte may be inside quotes.
        try:
            with open_source(source) as file:
                return _count_rows(_Head(file, offset, word))
        except pa.ArrowException as error:
            raise_if_memory(error)
    return None


def _count_rows(file: io.RawIOBase) -> int:
    skipped = 0

    def skip(_: object) -> str:
        nonlocal skipped
        skipped += 1
        return "skip" if skipped <= MAX_SKIPPED else "error"

    reader = pa.csv.open_csv(
        file,
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=MAX_ROW_BYTES, autogenerate_column_names=True),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=pa.csv.ConvertOptions(include_columns=["f0"], column_types={"f0": pa.binary()}),
    )
    return sum(int(batch.num_rows) for batch in reader) + skipped


def _explanation(message: str, header: Sequence[str], columns: Columns) -> InvalidInput:
    """Return an error for pyarrow's message, without the input that it quotes."""
    if place := re.match(r"In CSV column #(\d+): Row #(\d+)", message):
        value = re.search(r"invalid value '(.*)'\Z", message, re.DOTALL)
        received = _describe_text(value[1]) if value else "text"
        choice = " `features` chooses the columns to read." if columns.training else ""
        fault = f"Expected a number, found {received}.{choice}"
        return row_error(fault, row=int(place[2]), column=header[int(place[1])])
    if place := re.match(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        return row_error(
            f"Expected {place[2]} values, found {place[3]}. Each row needs as many as row 1: put a value with a comma "
            "in quotes, and write decimals with a point.",
            row=int(place[1]),
        )
    if "straddling" in message:
        return InvalidInput(
            f"A row is longer than {MAX_ROW_BYTES} bytes. Is a closing quote missing? Write shorter rows."
        )
    return InvalidInput("The file is not readable as CSV. Expected rows of values separated by commas.")


def _describe_text(text: str) -> str:
    """Describe a text that is not a number, with a hint if there is one. The text itself is never repeated."""
    text = text.strip()
    if len(text) <= _MAX_DESCRIBED:
        for pattern, description in _DESCRIPTIONS:
            if pattern.fullmatch(text):
                return description
    return "text"
