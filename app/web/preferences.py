"""The `Prefer` header of a request (RFC 7240)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A quoted string (possibly without a closing quote), a delimiter, or the text between them.
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?$)|[,;]|[^",;]+')
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Preferences:
    """The preferences that this service supports."""

    wait: float | None = None  # seconds
    respond_async: bool = False

    def applied(self, wait: float, *, ended: bool) -> str | None:
        """Return the Preference-Applied header of an answer that waited up to `wait` seconds, or None."""
        found = ["respond-async"] if self.respond_async and not ended else []
        found += [] if self.wait is None else [f"wait={wait:g}"]
        return ", ".join(found) or None


def preferences(fields: Iterable[str]) -> Preferences:
    """Read the `Prefer` fields of a request, which mean the same as one with all their preferences.

    The first preference of a name counts. Unknown and malformed ones are ignored, as the standard demands.
    """
    found: dict[str, str] = {}
    for preference in _listed(",".join(fields)):
        name, _, value = (part.strip() for part in preference.partition("="))
        if _NAME.fullmatch(name):
            found.setdefault(name.lower(), _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value)
    wait = found.get("wait", "")
    return Preferences(float(wait) if re.fullmatch("[0-9]+", wait) else None, "respond-async" in found)


def _listed(field: str) -> Iterator[str]:
    """Yield the preferences of a field without their parameters."""
    preference, in_parameters = "", False
    for piece in _PIECE.findall(field):
        if piece == ",":
            yield preference
            preference, in_parameters = "", False
        elif piece == ";" or in_parameters:
            in_parameters = True
        else:
            preference += piece
    yield preference
