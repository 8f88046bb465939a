"""Numbers that are withheld: each is shown as a link to the note with its reason."""

from collections.abc import Iterator, Mapping
from itertools import product

from app.pages.charts.svg import number
from app.pages.formatting import sentence

# Fields whose nulls are not explained on a page.
_UNMISSED = ("covariance", "parent", "job", "validation", "precision_bounds", "shares", "diagnostics")
_UNEXPLAINED = "This number was not recorded."


class Notes:
    """Collects the reasons of the withheld numbers of one page, each once, in the order of their appearance."""

    def __init__(self, unavailable: Mapping[str, str]) -> None:
        self._unavailable = unavailable
        self.reasons: list[str] = []

    def cell(self, value: float | None, *path: str, digits: int = 5) -> dict[str, object]:
        """Return a number for a template, or the number of the note that says why there is none.

        `path` has the names in the card that lead to the value: the field, the target, the coefficient and so on.
        """
        text = number(value, digits)
        if value is not None and text != number(None):
            return {"text": text, "value": value, "note": None}
        return {"text": None, "value": None, "note": self.note(self.reason(*path))}

    def note(self, reason: str) -> int:
        """Return the number of the note with this reason, from 1."""
        reason = sentence(reason)
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1

    def reason(self, *path: str) -> str:
        """Return why the value at this path is withheld."""
        return next((self._unavailable[key] for key in _keys(path) if key in self._unavailable), _UNEXPLAINED)

    def add_fields(self) -> None:
        """Add the reasons for whole fields and for numbers that the page does not show one by one."""
        for key, reason in self._unavailable.items():
            if key.partition(".")[0] not in _UNMISSED:
                self.note(reason)


def _keys(path: tuple[str, ...]) -> Iterator[str]:
    """Yield the keys under which the reason may be: the most specific first. `*` stands for every name."""
    for length in range(len(path), 0, -1):
        field, *names = path[:length]
        for steps in product(*((name, "*") for name in names)):
            yield ".".join((field, *steps))
