"""The `Prefer` header of a request (RFC 7240)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# One preference: its text up to the first semicolon, and its parameters. A quoted string may lack its closing quote.
_QUOTED = r'"(?:[^"\\]|\\.)*(?:"|\\?$)'
_PREFERENCE = re.compile(rf"""((?:{_QUOTED}|[^",;])*)(?:;(?:{_QUOTED}|[^",])*)?(?:,|$)""")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Preferences:
    """The preferences that this service supports."""

    wait: float | None = None  # seconds
    respond_async: bool = False

    def applied(self, wait: float, *, ended: bool) -> str | None:
        """Return the Preference-Applied header of a response that waited up to `wait` seconds, or None."""
        applied = ["respond-async"] if self.respond_async and not ended else []
        applied += [] if self.wait is None else [f"wait={wait:g}"]
        return ", ".join(applied) or None


def preferences(fields: Iterable[str]) -> Preferences:
    """Read the `Prefer` fields of a request. Several fields are equivalent to one with all their preferences.

    If a preference is repeated, the first counts. Unknown and malformed ones are ignored (RFC 7240, section 2).
    """
    values: dict[str, str] = {}
    for preference in _PREFERENCE.findall(",".join(fields)):
        name, _, value = (part.strip() for part in preference.partition("="))
        if _NAME.fullmatch(name):
            values.setdefault(name.lower(), _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value)
    wait = values.get("wait", "")
    return Preferences(float(wait) if re.fullmatch("[0-9]+", wait) else None, "respond-async" in values)
