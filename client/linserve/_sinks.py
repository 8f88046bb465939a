"""Receivers of responses that are not kept in memory: a file, or server-sent events."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias

Output: TypeAlias = str | os.PathLike[str] | IO[bytes]


class FileSink:
    """Writes a response to a path, which has the new content only once all of it has arrived."""

    restartable = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file: IO[bytes] | None = None

    def start(self) -> None:
        if self._file is not None:
            self._file.close()
        try:
            self._file = self._temporary.open("wb")
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(self._path)) from None

    def feed(self, chunk: bytes) -> bool:
        assert self._file is not None
        self._file.write(chunk)
        return False

    def close(self, *, succeeded: bool) -> None:
        if self._file is None:
            return
        self._file.close()
        if succeeded:
            self._temporary.replace(self._path)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()


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


def sink_of(output: Output) -> FileSink | StreamSink:
    """Return the sink for a path or an open file."""
    return FileSink(Path(output)) if isinstance(output, str | os.PathLike) else StreamSink(output)


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
