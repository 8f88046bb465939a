"""Bodies of requests: streamed files, and rows as JSON."""

import contextlib
import json
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, runtime_checkable

from linserve._options import in_query
from linserve._steps import CHUNK_BYTES, JSON, Body, BytesBody
from linserve.errors import UnreadableRows

Row: TypeAlias = Mapping[str, Any] | Sequence[Any]
Source: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes]

CSV, ARROW, PARQUET = "text/csv", "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
NDJSON, OCTETS = "application/x-ndjson", "application/octet-stream"
EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
# Media types of tables by the extension of a file, which is also the name of a format.
MEDIA_TYPES = {
    "csv": CSV, "tsv": "text/tab-separated-values", "tab": "text/tab-separated-values", "txt": "text/plain",
    "json": JSON, "ndjson": NDJSON, "jsonl": NDJSON, "arrow": ARROW, "arrows": ARROW, "feather": ARROW, "ipc": ARROW,
    "parquet": PARQUET, "pq": PARQUET, "xlsx": EXCEL, "xlsm": EXCEL, "xlsb": EXCEL, "xls": "application/vnd.ms-excel",
    "ods": "application/vnd.oasis.opendocument.spreadsheet", "excel": EXCEL,
}  # fmt: skip
_ENCODINGS = {"gz": "gzip", "zst": "zstd"}
STDIN = "-"
_BYTES = (bytes, bytearray, memoryview)


def media_type_of(format_name: str) -> str:
    """Return the media type of a format. Raises ValueError if there is no such format."""
    try:
        return MEDIA_TYPES[format_name.lower().lstrip(".")]
    except KeyError:
        known = ", ".join(sorted(MEDIA_TYPES))
        raise ValueError(f"There is no format {format_name!r}. Formats: {known}.") from None


def _types_of(name: str, format_name: str | None, fallback: str) -> tuple[str, str | None]:
    """Return the media type and the Content-Encoding of a file with this name."""
    *_, stem_suffix, suffix = ["", "", *name.lower().split(".")]
    encoding = _ENCODINGS.get(suffix)
    if format_name is not None:
        return media_type_of(format_name), encoding
    return MEDIA_TYPES.get(stem_suffix if encoding else suffix, fallback), encoding


@dataclass(frozen=True)
class PathBody:
    """A file, which is read again for each attempt.

    Bytes appended to it meanwhile are left out, because the length is announced.
    """

    path: Path
    media_type: str | None
    encoding: str | None = None
    length: int | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", self.path.stat().st_size if self.path.is_file() else None)

    @property
    def replayable(self) -> bool:
        return self.path.is_file()  # A pipe can be read only once.

    def chunks(self) -> Iterator[bytes]:
        left = sys.maxsize if self.length is None else self.length
        with self.path.open("rb") as file:
            while chunk := file.read(min(CHUNK_BYTES, left)):
                left -= len(chunk)
                yield chunk


@dataclass
class FileBody:
    """An open file, from its current position. If it cannot seek, it can be sent only once."""

    file: IO[bytes]
    media_type: str | None
    encoding: str | None = None
    _start: int | None = field(default=None, init=False)
    _begun: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.file.read(0), str):
            raise TypeError('The file is open as text. Open it with mode "rb".')
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._start = self.file.tell() if self.file.seekable() else None

    @property
    def length(self) -> int | None:
        return None

    @property
    def replayable(self) -> bool:
        return self._start is not None or not self._begun

    def chunks(self) -> Iterator[bytes]:
        if self._begun and self._start is not None:
            self.file.seek(self._start)
        self._begun = True
        while chunk := self.file.read(CHUNK_BYTES):
            yield chunk


def body_of_source(source: Source, format_name: str | None = None, *, fallback: str = CSV) -> Body:
    """Return the body with the content of a path, of an open file or of bytes. `-` is standard input.

    The format is `format_name`, otherwise the one of the file's extension, otherwise `fallback`.
    """
    if isinstance(source, _BYTES):
        media_type, _ = _types_of("", format_name, fallback)
        return BytesBody(bytes(source), media_type)
    if isinstance(source, str) and source == STDIN:
        source = sys.stdin.buffer
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"There is no file {str(path)!r}.")
        return PathBody(path, *_types_of(path.name, format_name, fallback))
    name = getattr(source, "name", "")
    return FileBody(source, *_types_of(name if isinstance(name, str) else "", format_name, fallback))


def is_source(rows: object) -> bool:
    """Return True if the rows are a path, bytes or an open file."""
    return isinstance(rows, (str, os.PathLike, *_BYTES)) or hasattr(rows, "read")


def json_body(value: Any) -> BytesBody:
    """Return the value as JSON. Raises UnreadableRows if it has values that JSON does not have."""
    plain = _plain(value)
    try:
        return BytesBody(json.dumps(plain, allow_nan=False, separators=(",", ":")).encode())
    except ValueError:
        raise UnreadableRows("The rows have an infinite number, which cannot be sent.") from None


class _Numeric(Protocol):
    """An array or a number of NumPy."""

    def tolist(self) -> Any: ...


_CONVERSIONS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (date | time, lambda value: value.isoformat() if value == value else None),  # noqa: PLR0124 - NaT differs from itself
    (Decimal, float),
    (uuid.UUID, str),
    (runtime_checkable(_Numeric), lambda value: value.tolist()),
)


def _plain(value: Any) -> Any:
    """Return the value in the types of JSON. NaN, NaT and NA become null, and dates become text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if type(value).__name__ == "NAType":
        return None
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    for made, convert in _CONVERSIONS:
        if isinstance(value, made):
            return _plain(convert(value))
    raise UnreadableRows(f"The rows have a value of type {type(value).__name__}, which cannot be sent as JSON.")


@dataclass(frozen=True)
class FormBody:
    """A form with the parts `options`, as JSON, and one or more parts `file`."""

    files: tuple[Body, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    boundary: str = field(default_factory=lambda: uuid.uuid4().hex)
    encoding: str | None = None

    @property
    def media_type(self) -> str | None:
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def length(self) -> int | None:
        return None

    @property
    def replayable(self) -> bool:
        return all(file.replayable for file in self.files)

    def chunks(self) -> Iterator[bytes]:
        start = f"--{self.boundary}\r\nContent-Disposition: form-data; name="
        if self.options:
            yield f'{start}"options"\r\n\r\n'.encode() + json_body(self.options).content + b"\r\n"
        for file in self.files:
            yield f'{start}"file"; filename="file"\r\nContent-Type: {file.media_type or OCTETS}\r\n\r\n'.encode()
            yield from file.chunks()
            yield b"\r\n"
        yield f"--{self.boundary}--\r\n".encode()


def with_options(body: Body, options: Mapping[str, Any]) -> tuple[Body, Mapping[str, str]]:
    """Return the body and the query that have the options: in a form if they do not fit into a query."""
    params = in_query(options)
    return (FormBody((body,), options), {}) if params is None else (body, params)
