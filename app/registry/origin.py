"""The origin of a version that was fitted elsewhere and imported, and what follows for its use."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

WITHOUT_STATISTICS = "imported without statistics"
MEANS_UNKNOWN = "Contributions are relative to 0, because the training means are not known."

# Parts of a fit that an import had, from the fewest to the most.
Given: TypeAlias = Literal["coefficients", "covariance", "statistics"]

_APPROXIMATE = "imported with a covariance, from which the statistics of its rows follow only approximately"
_REMEDY = "Train a version from rows, import the model with its statistics, or promote a version that has rows."


@dataclass(frozen=True)
class Imported:
    """How a version was imported."""

    format: str  # name in `app.exchange.IMPORTS`
    given: Given
    source: str = ""  # program that fitted the model, if the file names it
    fingerprint: str = ""  # digest of the request, to recognise it if it is repeated
    means_unknown: bool = False  # True if the means of the columns in training are not known, and count as 0

    @property
    def is_fit(self) -> bool:
        """True if the coefficients are known to be those of a least-squares fit, and with which options."""
        return self.given != "coefficients"

    @property
    def reason(self) -> str:
        """Why operations that need the rows, or their exact statistics, are not possible: the end of a sentence."""
        return reason_of(self.given)


def reason_of(given: Given) -> str:
    """Return the end of a sentence on a version that was imported with these parts."""
    return WITHOUT_STATISTICS if given == "coefficients" else _APPROXIMATE


def no_rows(number: int, imported: Imported) -> str:
    """Return why no rows can be added to, or taken out of, a current version that lacks exact statistics."""
    return (
        f"The current version, {number}, was {imported.reason}, so no rows can be added to it or taken out of it. "
        f"{_REMEDY}"
    )
