"""Files and standard input as the body of a request.

A body may be sent twice if a connection breaks, so standard input and pipes are first copied to a temporary file.
"""

import json
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

import typer

from linserve._bodies import ARROW, CSV, EXCEL, MEDIA_TYPES, NDJSON, PARQUET
from linserve._steps import CHUNK_BYTES, JSON

STANDARD = "-"
_ENCODINGS = {".gz": "gzip", ".zst": "zstd"}
_ENCODING_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_FORMAT_MAGIC = {b"ARROW1": ARROW, b"\xff\xff\xff\xff": ARROW, b"PAR1": PARQUET, b"PK\x03\x04": EXCEL}
_REQUEST = re.compile(rb"\s*(?:\{|\[\s*\[)")
_HEAD_BYTES = 1 << 16
_SPOOL_BYTES = 1 << 24  # Standard input up to this size stays in memory.


class Upload:
    """The body of a request (`linserve._steps.Body`). Close it, or use it as a context manager.

    `on_sent` is called with the number of bytes sent so far.
    """

    replayable = True

    def __init__(self, name: str) -> None:
        """Open a file, or standard input if the name is `-`. Raises typer.BadParameter."""
        self.name = "standard input" if name == STANDARD else name
        self.on_sent: Callable[[int], None] = lambda _sent: None
        self._file = _opened(name)
        self.length = self._file.seek(0, 2)
        suffixes = [] if name == STANDARD else [suffix.lower() for suffix in Path(name).suffixes[-2:]]
        head = self.head(_HEAD_BYTES)
        self.encoding = _encoding(suffixes, head)
        if suffixes and suffixes[-1] in _ENCODINGS:
            suffixes.pop()
        by_suffix = MEDIA_TYPES.get(suffixes[-1].lstrip(".")) if suffixes else None
        self.media_type: str | None = by_suffix or _recognised(head, self.encoding)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def head(self, count: int) -> bytes:
        self._file.seek(0)
        return self._file.read(count)

    @property
    def is_request(self) -> bool:
        """True for JSON whose options are in it: an object, or a list of lists. Objects in a list are a table."""
        is_json = self.media_type == JSON and self.encoding is None
        return is_json and bool(_REQUEST.match(self.head(_HEAD_BYTES)))

    def read(self) -> bytes:
        return self.head(self.length)

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the beginning.

        Bytes appended to the file since it was opened are left out, because the length is announced.
        """
        self._file.seek(0)
        sent = 0
        self.on_sent(sent)
        while sent < self.length and (chunk := self._file.read(min(CHUNK_BYTES, self.length - sent))):
            yield chunk
            sent += len(chunk)
            self.on_sent(sent)


def _opened(name: str) -> IO[bytes]:
    if name == STANDARD:
        if sys.stdin.isatty():
            typer.echo("Reading from the terminal. End with Ctrl-D.", err=True)
        return _spooled(sys.stdin.buffer)
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - Upload closes it
    except OSError as error:
        raise typer.BadParameter(f"{name}: {error.strerror}") from None
    if stat.S_ISREG(Path(name).stat().st_mode):
        return file
    with file:
        return _spooled(file)  # a pipe, such as bash makes for <(command)


def _spooled(source: IO[bytes]) -> IO[bytes]:
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - as above
    shutil.copyfileobj(source, spool)
    return spool


def _encoding(suffixes: list[str], head: bytes) -> str | None:
    by_magic = next((name for magic, name in _ENCODING_MAGIC.items() if head.startswith(magic)), None)
    return by_magic or (_ENCODINGS.get(suffixes[-1]) if suffixes else None)


def _recognised(head: bytes, encoding: str | None) -> str:
    """Return the media type of a table by its first bytes. Text that is not JSON is CSV."""
    if encoding:
        return CSV
    if binary := next((media_type for magic, media_type in _FORMAT_MAGIC.items() if head.startswith(magic)), None):
        return binary
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"["):
        return JSON
    if not text.startswith(b"{"):
        return CSV
    first, _, _ = text.partition(b"\n")
    try:
        row = json.loads(first)
    except ValueError:
        return JSON  # one object over several lines
    return JSON if "instances" in row else NDJSON
