"""Read a sheet of a workbook through the child process that parses it."""

import contextlib
import hashlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from app.data.batch import Source
from app.data.columns.options import Header
from app.data.lazy_pyarrow import pa
from app.data.sheets.child_limits import NO_MEMORY
from app.data.sheets.workbook_size import unpacked_bytes
from app.errors import InvalidInput

MAX_SECONDS = 120  # CPU time of the child.
BASE_BYTES = 1 << 26  # Memory that the child may allocate, in addition to MEMORY_TIMES the bytes of the unpacked parts.
MEMORY_TIMES = 5
CACHE_BYTES = 1 << 23  # Largest converted sheet that is kept in memory, because each file is read several times.

_DAMAGED = (
    "The workbook is not readable: it is damaged, cut off or of another version. Save it again as .xlsx, or the sheet "
    "as CSV."
)


class Part(NamedTuple):
    """The part of a workbook to read."""

    sheet: str | int | None = None  # None: the first visible one with cells
    skip: int = 0  # rows before the header
    header: Header | None = None


class Sheet(NamedTuple):
    """What the child process found in a workbook."""

    names: list[str]
    kinds: list[str]  # of the columns: number, boolean, date, text or null
    rows: int
    top: int  # index of the header row; without a header, of the first row that has a cell
    sheet: str


def memory_of(source: Source) -> int:
    """Return the most bytes that the child process may allocate. Raises BodyTooLarge or InvalidInput."""
    return BASE_BYTES + MEMORY_TIMES * unpacked_bytes(source)


@contextlib.contextmanager
def open_sheet(source: Source, part: Part) -> "Iterator[tuple[Sheet, Iterator[pa.RecordBatch]]]":
    """Yield the description of a sheet, and its rows. Raises InvalidInput if the sheet cannot be read."""
    with _output(source, part) as read:
        sheet = _description(read)
        yield sheet, _batches(read, sheet)


@contextlib.contextmanager
def _output(source: Source, part: Part) -> "Iterator[_Output]":
    """Yield the output of the child process, or the cached output if the last sheet was the same and is cached."""
    global _last  # noqa: PLW0603 - a cache with one entry
    identity = _identity(source)
    if _last is not None and _last.identity == identity and part in _last.parts:
        yield _Output(_last.output)
        return
    process = _start(source, part)
    stdout = cast("BinaryIO", process.stdout)
    try:
        begin = stdout.read(CACHE_BYTES + 1)
        if len(begin) <= CACHE_BYTES:
            _check_status(process.wait())
            _last = _Cached(identity, _equal_parts(part, begin), begin)
        yield _Output(begin, process)
    finally:
        process.kill()
        stdout.close()
        process.wait()


class _Cached(NamedTuple):
    identity: object  # of the workbook
    parts: Sequence[Part]  # parts of which `output` is the content
    output: bytes


_last: _Cached | None = None


def _equal_parts(part: Part, output: bytes) -> Sequence[Part]:
    """Return the part, and how it is named after its header was found."""
    found = json.loads(_Output(output).line())
    return [part, part._replace(skip=found["top"])] if "top" in found else [part]


def _identity(source: Source) -> object:
    if isinstance(source, bytes):
        return hashlib.sha256(source).digest()
    assert isinstance(source, Path)
    status = source.stat()
    return (source, status.st_ino, status.st_size, status.st_mtime_ns)


def _start(source: Source, part: Part) -> "subprocess.Popen[bytes]":
    limits = {"memory": memory_of(source), "seconds": MAX_SECONDS}
    command = [sys.executable, "-m", "app.data.sheets.child", json.dumps(part._asdict() | limits)]
    if isinstance(source, Path):
        with source.open("rb") as file:
            return _popen(command, file)
    process = _popen(command, subprocess.PIPE)
    with contextlib.suppress(BrokenPipeError), cast("BinaryIO", process.stdin) as pipe:
        assert isinstance(source, bytes)
        pipe.write(source)
    return process


def _popen(command: list[str], stdin: BinaryIO | int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: S603


def _check_status(status: int) -> None:
    """Raise InvalidInput unless the child process succeeded. Its memory allocator aborts it at the limit."""
    if status in (NO_MEMORY, -signal.SIGABRT):
        raise InvalidInput(
            "Parsing the workbook takes more memory than its size allows. Delete cells far from the table, shorten "
            "long texts, or save the sheet as CSV."
        )
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        raise InvalidInput(f"Parsing the workbook takes more than {MAX_SECONDS} seconds. Save the sheet as CSV.")
    if status:
        raise InvalidInput(_DAMAGED)


class _Output:
    """The output of the child process. `begin` is the part that was read already."""

    def __init__(self, begin: bytes, process: "subprocess.Popen[bytes] | None" = None) -> None:
        self._begin = io.BytesIO(begin)
        self._process = process

    def line(self) -> bytes:
        """Return the first line."""
        return self._begin.readline()

    def read(self, size: int) -> bytes:
        """Return `size` bytes. Raises InvalidInput if there are fewer."""
        content = self._begin.read(size)
        if len(content) < size and self._process is not None and self._process.stdout is not None:
            content += self._process.stdout.read(size - len(content))
        if len(content) < size:
            _check_status(self._process.wait() if self._process is not None else 0)
            raise InvalidInput(_DAMAGED)
        return content


def _description(output: _Output) -> Sheet:
    description = json.loads(output.line())
    if "error" in description:
        raise InvalidInput(description["error"])
    return Sheet(**description)


def _batches(output: _Output, sheet: Sheet) -> "Iterator[pa.RecordBatch]":
    left = sheet.rows
    while left > 0:
        rows = _integer(output)
        yield pa.RecordBatch.from_arrays([_array(kind, rows, output) for kind in sheet.kinds], names=sheet.names)
        left -= rows


def _integer(output: _Output) -> int:
    return int.from_bytes(output.read(8), "little")


def _buffer(output: _Output) -> bytes:
    return output.read(_integer(output))


def _array(kind: str, rows: int, output: _Output) -> "pa.Array":
    if kind == "null":
        return pa.nulls(rows)
    first = _buffer(output)
    if kind == "date":
        return pa.array(np.frombuffer(first, "datetime64[us]"))  # a gap is NaT, which becomes null
    if kind == "text":
        words = pa.StringArray.from_buffers(rows, pa.py_buffer(first), pa.py_buffer(_buffer(output)))
        return pa.compute.if_else(pa.compute.equal(pa.compute.binary_length(words), 0), None, words)
    numbers = np.frombuffer(first, np.float64)
    if kind == "boolean":
        return pa.array(numbers == 1, mask=np.isnan(numbers))
    return pa.array(numbers, from_pandas=True)
