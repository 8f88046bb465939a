"""The child process that parses a workbook, and writes one sheet to its standard output, column by column.

It imports neither numpy nor pyarrow, which would take longer than parsing a small workbook. The workbook is its
standard input. The output is a line of JSON with a Description, or with an error, and then blocks of rows.
A block is the number of its rows and, for each column, buffers: a length in 8 bytes, and the content.
"""

import array
import contextlib
import datetime as dt
import io
import itertools
import json
import mmap
import re
import resource
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, SheetVisibleEnum

from app.data.sheets.child_limits import MAX_ROWS, NO_MEMORY

MAX_COLUMNS = 10_000
HEADER_ROWS = 100  # Rows at the top of a sheet in which the header is searched.
BLOCK_CELLS = 1 << 16
MAX_NAME = 130  # Characters of a column's name that are kept. Longer names are refused anyway.
GAP = -(1 << 63)  # Timestamp of a gap; numpy's NaT.

Cell: TypeAlias = Any  # float, int, str, bool, date, datetime, time or timedelta; "" is a gap

_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - sheets have no time zones
_MICROSECOND = dt.timedelta(microseconds=1)
_DAY = dt.timedelta(days=1)
_KINDS = {
    float: "number", int: "number", dt.timedelta: "number", dt.time: "number", bool: "boolean", dt.date: "date",
    dt.datetime: "date", str: "text",
}  # fmt: skip
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_EXACT = 1e15  # Numbers below this have at most 15 digits, as many as Excel keeps.


class RefusedError(Exception):
    """The workbook cannot be read; the message is for the client."""


def main() -> None:
    """Convert the workbook. The argument is JSON: the limits, and which part of the workbook to read."""
    options = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (options["seconds"], options["seconds"] + 1))
    if sys.platform.startswith("linux"):
        limit = _data_bytes() + options["memory"]
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard),) * 2)
    output = sys.stdout.buffer
    try:
        _convert(output, options["sheet"], options["skip"], options["header"])
    except RefusedError as error:
        output.write(json.dumps({"error": str(error)}).encode() + b"\n")
    except MemoryError:
        sys.exit(NO_MEMORY)


def _data_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmData:")[2].split()[0]) << 10


def _convert(output: BinaryIO, chosen: str | int | None, skip: int, header: str | None) -> None:
    workbook = _open_workbook()
    name, sheet = _sheet(workbook, chosen)
    if sheet.start is None or sheet.end is None:
        raise RefusedError(f"The sheet {_quoted(name)} is empty. Choose another with `sheet`.")
    if sheet.width > MAX_COLUMNS:
        raise RefusedError(f"The sheet {_quoted(name)} has more than {MAX_COLUMNS} columns. Leave some out.")
    if sheet.end[0] >= MAX_ROWS:
        raise RefusedError(f"The sheet {_quoted(name)} has more than {MAX_ROWS} rows. Send it in several parts.")
    top = _first_row(sheet, skip) if header == "none" else _header_row(sheet, skip, header)
    names, start = _names(sheet, top), top + 1
    if header == "none":
        names, start = [f"c{number}" for number in range(1, len(names) + 1)], top
    kinds, rows = _kinds(sheet, start, len(names))
    read = [index for index, (name_, kind) in enumerate(zip(names, kinds, strict=True)) if name_ or kind != "null"]
    description = {
        "names": [names[index] for index in read],
        "kinds": [kinds[index] for index in read],
        "rows": rows,
        "top": top,
        "sheet": name,
    }
    output.write(json.dumps(description, ensure_ascii=False).encode() + b"\n")
    for block in _blocks(sheet, start, rows):
        columns = list(zip(*block, strict=True))
        output.write(struct.pack("<q", len(block)))
        for index in read:
            for buffer in _buffers(columns[index], kinds[index]):
                output.write(struct.pack("<q", len(buffer)))
                output.write(buffer)
    output.flush()


def _open_workbook() -> CalamineWorkbook:
    file = sys.stdin.buffer
    try:
        if file.seekable():
            return CalamineWorkbook.from_path("/dev/fd/0")
        return CalamineWorkbook.from_filelike(io.BytesIO(file.read()))
    except CalamineError:
        pass
    if _is_encrypted(file):
        raise RefusedError("The workbook is encrypted. Save it without a password.")
    raise RefusedError(
        "The body is not readable as an Excel workbook or an OpenDocument spreadsheet: it is damaged, cut off or of "
        "another version. Save it again as .xlsx, or the sheet as CSV."
    )


def _is_encrypted(file: BinaryIO) -> bool:
    with contextlib.suppress(OSError, ValueError), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_ENCRYPTED) >= 0
    return False


def _sheet(workbook: CalamineWorkbook, chosen: str | int | None) -> tuple[str, CalamineSheet]:
    """Return the chosen sheet, or the first visible one with a table: several columns and rows, or otherwise cells."""
    names = workbook.sheet_names
    if not names:
        raise RefusedError("The workbook has no sheets.")
    if isinstance(chosen, str) and chosen not in names and chosen.isdecimal():
        chosen = int(chosen)
    if isinstance(chosen, int) and not 0 < chosen <= len(names):
        raise RefusedError(f"There is no sheet {chosen}: the workbook has {len(names)}. The first is 1.")
    if isinstance(chosen, str) and chosen not in names:
        raise RefusedError(
            f"There is no sheet {_quoted(chosen)}. The workbook has {', '.join(map(_quoted, names[:20]))}."
        )
    if chosen is not None:
        name = chosen if isinstance(chosen, str) else names[chosen - 1]
        return name, _read_sheet(workbook, name)
    visible = [sheet.name for sheet in workbook.sheets_metadata if sheet.visible == SheetVisibleEnum.Visible] or names
    read = ((name, _read_sheet(workbook, name)) for name in visible)
    with_cells = None
    for name, sheet in read:
        if sheet.width > 1 and sheet.height > 1:
            return name, sheet
        if sheet.start is not None and with_cells is None:
            with_cells = (name, sheet)
    if with_cells is None:
        raise RefusedError(
            "The workbook's sheets are empty. Expected a header row with the names of the columns, and rows."
        )
    return with_cells


def _read_sheet(workbook: CalamineWorkbook, name: str) -> CalamineSheet:
    try:
        return workbook.get_sheet_by_name(name)
    except CalamineError:
        raise RefusedError(
            f"The sheet {_quoted(name)} is damaged. Save the workbook again, or the sheet as CSV."
        ) from None


def _quoted(name: str) -> str:
    return '"' + "".join(char if char.isprintable() else "?" for char in name[:100]) + '"'


def _rows(sheet: CalamineSheet, start: int, end: int | None = None) -> Iterator[list[Cell]]:
    return itertools.islice(sheet.iter_rows(), start, end)


def _first_row(sheet: CalamineSheet, skip: int) -> int:
    for index, row in enumerate(_rows(sheet, skip), skip):
        if any(cell != "" for cell in row):
            return index
    raise RefusedError(f"The sheet has no rows after the first {skip}, which `skip` leaves out.")


def _header_row(sheet: CalamineSheet, skip: int, header: str | None) -> int:
    """Return the index of the first full row, or of a row of words above it that is nearly full.

    If there is no full row among the first HEADER_ROWS, it is the row with the most cells.
    """
    counts: list[tuple[int, int]] = []  # cells, and negative index
    words: int | None = None
    for index, row in enumerate(_rows(sheet, skip, max(HEADER_ROWS, skip + 1)), skip):
        filled = sum(cell != "" for cell in row)
        is_words = all(isinstance(cell, str) for cell in row)
        if filled == len(row) or (filled == len(row) - 1 > 0 and row[0] == ""):
            top = index if is_words or words is None else words
            break
        if is_words and 2 * filled > len(row):
            words = index
        counts.append((filled, -index))
    else:
        if not counts or max(counts)[0] == 0:
            raise RefusedError("The sheet has no header row. Expected a row with the names of the columns.")
        top = -max(counts)[1]
    names = next(_rows(sheet, top))
    if header is None and not any(isinstance(cell, str) and not _is_number(cell) for cell in names if cell != ""):
        raise RefusedError(
            f"Row {top + 1} is the first full row, but it holds only numbers, and the names of the columns were "
            "expected. Add a row with the names; or add `header=none`, which names the columns c1, c2, ..., or "
            "`header=names` if the numbers are the names."
        )
    return top


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", text) is not None


def _names(sheet: CalamineSheet, top: int) -> list[str]:
    return [" ".join(_text(cell).split())[:MAX_NAME] for cell in next(_rows(sheet, top))]


def _blocks(sheet: CalamineSheet, start: int, rows: int) -> Iterator[list[list[Cell]]]:
    iterator = _rows(sheet, start, start + rows)
    size = max(1, BLOCK_CELLS // sheet.width)
    while block := list(itertools.islice(iterator, size)):
        yield block


def _kinds(sheet: CalamineSheet, start: int, width: int) -> tuple[list[str], int]:
    """Return the kind of each column, and the number of rows up to the last that has a cell."""
    types: list[set[type]] = [set() for _ in range(width)]
    rows = passed = 0
    for block in _blocks(sheet, start, MAX_ROWS):
        for known, column in zip(types, zip(*block, strict=True), strict=True):
            if str in (found := {*map(type, column)}):
                found = {type(cell) for cell in column if cell != ""}
            known.update(found)
        for index in range(len(block) - 1, -1, -1):
            if any(cell != "" for cell in block[index]):
                rows = passed + index + 1
                break
        passed += len(block)
    return [_kind({_KINDS[type_] for type_ in known}) for known in types], rows


def _kind(kinds: set[str]) -> str:
    if not kinds:
        return "null"
    return kinds.pop() if len(kinds) == 1 else "text"


def _buffers(column: Sequence[Cell], kind: str) -> Iterable[bytes]:
    if kind == "text":
        texts = [_text(cell).encode() for cell in column]
        yield array.array("i", itertools.accumulate(map(len, texts), initial=0)).tobytes()
        yield b"".join(texts)
    elif kind == "date":
        yield array.array("q", map(_microseconds, column)).tobytes()
    elif kind != "null":
        yield array.array("d", map(_number, column)).tobytes()


def _number(cell: Cell) -> float:
    if cell == "":
        return float("nan")
    if isinstance(cell, dt.timedelta):
        return cell / _DAY
    if isinstance(cell, dt.time):
        return (
            dt.timedelta(hours=cell.hour, minutes=cell.minute, seconds=cell.second, microseconds=cell.microsecond)
            / _DAY
        )
    return float(cell)


def _microseconds(cell: Cell) -> int:
    if cell == "":
        return GAP
    if not isinstance(cell, dt.datetime):
        cell = dt.datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001 - sheets have no time zones
    return int((cell - _EPOCH) // _MICROSECOND)


def _text(cell: Cell) -> str:
    """Return a cell as the text that a person would have typed."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, dt.datetime):
        return cell.isoformat(" ")
    if isinstance(cell, dt.date):
        return cell.isoformat()
    number = _number(cell)
    return str(int(number)) if number.is_integer() and abs(number) < _EXACT else repr(number)


if __name__ == "__main__":
    main()
