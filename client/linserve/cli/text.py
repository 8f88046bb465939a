"""Text from the service as a terminal and a pipe may get it.

Names, levels and messages come from other people. Control characters in them could recolour a terminal, rewrite its
lines or change its title, so they are shown as escapes.
"""

import json
import math
import unicodedata
from typing import Any

_HARMLESS_IN_TEXT = "\n\t"
_MAX_DECIMALS = 6  # Significant digits of a number in a table on a terminal.


def is_hidden(character: str) -> bool:
    """Return True for control characters, invisible format characters, lone surrogates and line separators."""
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")


def clean(text: str, keep: str = "") -> str:
    r"""Replace hidden characters by escapes such as `\x1b`, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if is_hidden(character) and character not in keep else character
        for character in text
    )


def clean_lines(text: str) -> str:
    """Replace hidden characters by escapes, except line breaks and tabs."""
    return clean(text, _HARMLESS_IN_TEXT)


def as_json(value: Any, indent: int | None = None) -> str:
    r"""Return JSON in which hidden characters are escapes such as `\u001b`. It has the same value."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isprintable():
        return text
    return "".join(
        _json_escape(character) if character != "\n" and is_hidden(character) else character for character in text
    )


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) != _DELETE else "\\u007f"


_DELETE = 0x7F  # JSON need not escape it.


def cell(value: Any, *, exact: bool) -> str:
    """Return a value of the API as the text of a cell. Numbers have all digits if `exact`."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if exact or not math.isfinite(value):
            return repr(value)
        return f"{value:.{_MAX_DECIMALS}g}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item, exact=exact) for item in value)
    return clean(value if isinstance(value, str) else str(value))


def ranges(numbers: list[int]) -> str:
    """Return ascending numbers as ranges, such as `1-3, 5`."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ", ".join("-".join(map(str, ends)) for ends in found)
