"""The rows of a CSV file as UTF-8 bytes: their ends, and their cells without surrounding spaces.

pyarrow reads neither spaces before a quote nor runs of spaces as separators, and it cannot be asked where a row ends.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from app.errors import InvalidInput

MAX_ROW_BYTES = 1 << 20  # Bytes of the longest row.
_QUOTED = rb'"[^"]*+(?:""[^"]*+)*+"'
# The beginning of a cell up to the end of its quotes. It does not match quotes that have no end.
_BEGINNING = rb' *+(?:%b|(?!"))' % _QUOTED


class _Patterns(NamedTuple):
    row: re.Pattern[bytes]  # one row, without its line break
    rows: re.Pattern[bytes]  # all whole rows, with their line breaks, up to the first quotes that have no end
    lines: re.Pattern[bytes]  # the same if no space precedes a quote and rows end with "\\n"; a third faster
    quoted: re.Pattern[bytes]  # quotes of a cell and their content, after what precedes the cell
    spaces: re.Pattern[bytes]  # spaces around cells; group 1 has what precedes a cell
    quoted_spaces: re.Pattern[bytes]  # the same; group 2 has the quotes of a cell and their content


@lru_cache
def _patterns(sep: str) -> _Patterns:
    separator = re.escape(sep.encode())
    ends = rb"[%b\r\n]" % separator
    inside = rb"[^%b\r\n]" % separator
    before = rb"(%b|\A)" % ends
    after = rb" ++(?=%b|\Z)" % ends
    row = rb'%b(?:[^"%b\r\n]++|%b%b|")*+' % (_BEGINNING, separator, separator, _BEGINNING)
    return _Patterns(
        re.compile(row),
        # A carriage return at the end of a text may be the first half of a line break.
        re.compile(rb"(?:%b(?:\r?\n|\r(?!\Z)))*+" % row),
        re.compile(rb'(?:[^"\n]*+(?:(?<!%b)%b[^"\n]*+|(?<=%b)"[^"\n]*+)*+\n)*+' % (inside, _QUOTED, inside)),
        re.compile(rb"(%b *+)%b" % (before.replace(b"(", b"(?:", 1), _QUOTED)),
        re.compile(rb"%b|%b ++" % (after, before)),
        re.compile(rb"%b|%b *+(%b)?+" % (after, before, _QUOTED)),
    )


def row_end(text: bytes, start: int, sep: str) -> int | None:
    """Return the offset of the line break after the row at `start`, or None if it has quotes without an end."""
    match = _patterns(sep).row.match(text, start)
    if match is None or (match.end() < len(text) and text[match.end()] not in b"\r\n"):
        return None
    return match.end()


def row_start(text: bytes, index: int, sep: str) -> int:
    """Return the offset of the row with this index, from 0. Empty lines are not rows."""
    start = 0
    while True:
        while text[start : start + 1] in (b"\r", b"\n"):
            start += 1
        end = row_end(text, start, sep) if index else start
        if end is None or not index:
            return len(text) if end is None else end
        start, index = end, index - 1


def after_line(text: bytes, start: int) -> int:
    """Return the offset after the line at `start` and its line break."""
    match = _LINE.match(text, start)
    assert match is not None
    return match.end()


def skipped(text: bytes, lines: int) -> int:
    """Return the offset after some lines."""
    start = 0
    for _ in range(lines):
        start = after_line(text, start)
    return start


_LINE = re.compile(rb"[^\r\n]*+(?:\r\n|\r|\n)?")


def without_quoted(text: bytes, sep: str) -> bytes:
    """Return a text with a single quote in place of each quoted cell, so that its separators and lines can be counted.

    Quotes without an end are left as they are.
    """
    end = after_line(text, text.rfind(b'"') + 1) if b'"' in text else 0  # often only the header has quotes
    return _patterns(sep).quoted.sub(rb'\1"', text[:end]) + text[end:] if end else text


def count_rows(text: bytes, sep: str) -> int:
    """Return the number of rows that end before the end of a text. Empty lines are not rows."""
    if b'"' not in text and b"\r" not in text and text.endswith(b"\n") and b"\n\n" not in text:
        return text.count(b"\n") - text.startswith(b"\n")
    match = _patterns(sep).rows.match(text)
    return sum(map(bool, without_quoted(text[: match.end()], sep).splitlines())) if match else 0


def has_spaces(text: bytes, sep: str) -> bool:
    """Return True if spaces may be around some cell, or are separators."""
    if b" " not in text:
        return False
    separator = sep.encode()
    if sep == " " or text.startswith(b" ") or text.endswith(b" "):
        return True
    return any(pair in text for pair in (separator + b" ", b" " + separator, b"\n ", b" \n", b" \r", b"\r "))


def without_spaces(text: bytes, sep: str) -> bytes:
    """Return whole rows without the spaces around their cells. Runs of spaces that separate become one.

    Spaces inside quotes stay.
    """
    patterns = _patterns(sep)
    if b'"' in text:
        return patterns.quoted_spaces.sub(rb"\1\2", text)
    return patterns.spaces.sub(rb"\1", text)


def whole_rows(chunks: Iterable[bytes], sep: str) -> Iterator[bytes]:
    """Yield a text in blocks that end with a row. Raises InvalidInput if a row is longer than MAX_ROW_BYTES."""
    rest = b""
    for chunk in chunks:
        if rest and (b'"' in rest or b'"' in chunk or b"\n" not in chunk):
            chunk, rest = rest + chunk, b""  # noqa: PLW2901 - the row goes on
        end = last_row_end(chunk, sep)
        if len(chunk) - end > MAX_ROW_BYTES:
            raise InvalidInput(
                f"A row is longer than {MAX_ROW_BYTES} bytes. Is a closing quote missing? Write shorter rows."
            )
        if end:
            yield b"".join((rest, memoryview(chunk)[:end]))
            rest = chunk[end:]
        else:
            rest = chunk
    if rest:
        yield rest


def last_row_end(text: bytes, sep: str) -> int:
    """Return the offset after the last row that is certainly whole, or 0."""
    if b'"' in text:
        patterns = _patterns(sep)
        lines = patterns.lines.match(text) if b' "' not in text else None
        if lines is not None and lines.end():
            return lines.end()
        match = patterns.rows.match(text)
        return match.end() if match else 0
    return text.rfind(b"\n") + 1 or text.rfind(b"\r", 0, len(text) - 1) + 1
