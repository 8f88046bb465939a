"""Receivers of responses that are not kept in memory: a file, or server-sent events."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias

Output: TypeAlias = str | os.PathLike[str] | IO[bytes]


class FileSink:
    """Writes a response to a path, which has the new content only once all of it has arrived.

    The file keeps its permissions. If the path is a link, it stays one, and its target gets the content.
    """

    restartable = True

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))
        self._temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._file: IO[bytes] | None = None

    def start(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self._path))
        try:
            self._file = self._temporary.open("wb")
            if self._path.exists():
                shutil.copymode(self._path, self._temporary)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(self._path)) from None

    def feed(self, chunk: bytes) -> bool:
        assert self._file is not None
        self._file.write(chunk)
        return False

    def close(self, *, succeeded: bool) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
            if succeeded:
                self._temporary.replace(self._path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()


class DeviceSink:
    """Writes a response to a device or a named pipe, which a file may not replace."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    @property
    def restartable(self) -> bool:
        return self._file is None

    def start(self) -> None: ...

    def feed(self, chunk: bytes) -> bool:
        self._file = self._file or self._path.open("wb")
        self._file.write(chunk)
        return False

    def close(self, *, succeeded: bool) -> None:  # noqa: ARG002 - what is written stays
        if self._file is not None:
            self._file.close()


class StreamSink:
    """Writes a response to an open file. Once it has bytes of a response, no other attempt is made."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._begun = False

    @property
    def restartable(self) -> bool:
        return not self._begun

    def start(self) -> None:
        pass

    def feed(self, chunk: bytes) -> bool:
        self._begun = True
        self._file.write(chunk)
        return False

    def close(self, *, succeeded: bool) -> None:
        if succeeded:
            self._file.flush()


def sink_of(output: Output) -> FileSink | DeviceSink | StreamSink:
    """Return the sink for a path or an open file."""
    if not isinstance(output, str | os.PathLike):
        return StreamSink(output)
    path = Path(output)
    is_replaceable = path.is_file() or path.is_dir() or not path.exists()
    return FileSink(path) if is_replaceable else DeviceSink(path)


class EventSink:
    """Parses server-sent events whose data is JSON, and passes them on."""

    restartable = True

    def __init__(self, on_event: Callable[[Any], bool]) -> None:
        """`on_event` returns True if no further event is needed."""
        self._on_event = on_event
        self._rest = b""
        self._data: list[bytes] = []
        self._id = ""
        self.last_id = ""  # id of the last complete event

    def start(self) -> None:
        self._rest, self._data = b"", []

    def feed(self, chunk: bytes) -> bool:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return any(self._line(line.rstrip(b"\r")) for line in lines)

    def _line(self, line: bytes) -> bool:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"id:"):
            self._id = line[3:].strip().decode()
        elif not line and self._data:
            value, self._data, self.last_id = json.loads(b"\n".join(self._data)), [], self._id
            return self._on_event(value)
        return False

    def close(self, *, succeeded: bool) -> None:
        pass
