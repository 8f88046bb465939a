"""Destinations of a response: a file, a pipe, or a terminal, which gets hidden characters as escapes."""

import codecs
import json
import sys
from typing import Any

import typer

from linserve._sinks import StreamSink, sink_of
from linserve._steps import Sink
from linserve.cli.text import clean_lines
from linserve.cli.uploads import STANDARD


class TerminalSink:
    """Writes text to the terminal, with hidden characters escaped."""

    def __init__(self) -> None:
        # A chunk may end within a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._begun = False

    @property
    def restartable(self) -> bool:
        return not self._begun

    def start(self) -> None: ...

    def feed(self, chunk: bytes) -> bool:
        self._begun = True
        sys.stdout.write(clean_lines(self._decoder.decode(chunk)))
        return False

    def close(self, *, succeeded: bool) -> None: ...


class RowsSink:
    """Keeps the first rows of NDJSON, and stops after them."""

    restartable = True

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.rows: list[dict[str, Any]] = []
        self.is_complete = True
        self._rest = b""

    def start(self) -> None:
        self.rows, self._rest, self.is_complete = [], b"", True

    def feed(self, chunk: bytes) -> bool:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._add(line)
        return not self.is_complete

    def close(self, *, succeeded: bool) -> None:
        if succeeded:
            self._add(self._rest)

    def _add(self, line: bytes) -> None:
        if not line.strip():
            return
        if len(self.rows) < self._limit:
            self.rows.append(json.loads(line))
        else:
            self.is_complete = False


def sink_for(output: str, *, is_text: bool) -> Sink:
    """Return the sink for `--output`. Raises typer.BadParameter if binary data would reach a terminal."""
    if output != STANDARD:
        return sink_of(output)
    if not sys.stdout.isatty():
        return StreamSink(sys.stdout.buffer)
    if not is_text:
        raise typer.BadParameter(
            "this format is binary and would garble the terminal. Add --output FILE, or use a pipe"
        )
    return TerminalSink()
