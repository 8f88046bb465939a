"""Numbers in text, and descriptions of text that should be a number."""

import re

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
LOCAL_NUMBER = re.compile(r"[+-]?[0-9]+,[0-9]+")  # With a decimal comma, or with one comma between thousands.
MISSING_WORDS = ("", "na", "nan", "n/a", "null")  # in lower case

_MAX_LENGTH = 100  # Characters of a text that is inspected.
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


def describe_text(text: str) -> str:
    """Describe a text that is not a number, with a hint if there is one. The text itself is never repeated."""
    text = text.strip()
    if len(text) <= _MAX_LENGTH:
        for pattern, description in _DESCRIPTIONS:
            if pattern.fullmatch(text):
                return description
    return "text"
