"""The `Prefer` header of a request (RFC 7240)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A quoted string (possibly without a closing quote), a delimiter, or the text between them.
_PART = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?$)|[,;]|[^",;]+')
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
    for preference in _split(",".join(fields)):
        name, _, value = (part.strip() for part in preference.partition("="))
        if _NAME.fullmatch(name):
            values.setdefault(name.lower(), _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value)
    wait = values.get("wait", "")
    return Preferences(float(wait) if re.fullmatch("[0-9]+", wait) else None, "respond-async" in values)


def _split(field: str) -> Iterator[str]:
    """Yield the preferences of a field without their parameters."""
    preference, in_parameters = "", False
    for part in _PART.findall(field):
        if part == ",":
            yield preference
            preference, in_parameters = "", False
        elif part == ";" or in_parameters:
            in_parameters = True
        else:
            preference += part
    yield preference
