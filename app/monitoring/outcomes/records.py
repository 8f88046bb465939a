"""Recorded predictions, the outcomes that come later, and the errors that follow from both."""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

LEVEL = 0.95  # Level of the intervals that are recorded with predictions.
MAX_NAMED = 20  # Ids of each kind that a response lists.

# Result for one value: another one was known and stays, or none was given.
Result: TypeAlias = Literal["new", "replaced", "repeated", "different", "none"]


class NotRecorded(Exception):
    """Raised with the reason, in a sentence for the client, if predictions could not be recorded."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class RecordedRows:
    """Predictions of one version, each with an id. Features are not recorded."""

    model: str
    version: int
    targets: tuple[str, ...]
    ids: Sequence[str]
    predictions: Array  # (n, k); NaN for a row without a prediction.
    intervals: Array | None  # (n, k, 2) lower and upper bounds at LEVEL; None if the model has no inference.
    time: float  # Seconds since 1970 at which the predictions were made.


class OutcomeRows(NamedTuple):
    """Outcomes by prediction id."""

    ids: Sequence[str]
    targets: Sequence[str]
    values: Array  # (n, k); NaN for a value that is not known yet.


@dataclass
class Matches:
    """The results of outcomes. A row counts in `matched` if it has a value that was not known before."""

    matched: int = 0
    replaced: int = 0  # Rows without a new value, and with one that replaced another.
    repeated: int = 0  # Rows whose values were all known already.
    different: int = 0  # Rows with a value other than the known one, which stays.
    different_ids: list[str] = field(default_factory=list)
    unknown: int = 0  # Rows whose id is not that of a recorded prediction.
    unknown_ids: list[str] = field(default_factory=list)
    without_values: int = 0
    versions: Counter[int] = field(default_factory=Counter)  # Matched rows by version.

    def add(self, other: "Matches") -> None:
        """Add the counts of other rows."""
        for name in ("matched", "replaced", "repeated", "different", "unknown", "without_values"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for ids, more in ((self.different_ids, other.different_ids), (self.unknown_ids, other.unknown_ids)):
            ids.extend(more[: MAX_NAMED - len(ids)])
        self.versions.update(other.versions)

    def count(self, identity: str, version: int, results: AbstractSet[Result]) -> None:
        """Count a row whose values had these results."""
        if "new" in results:
            self.matched += 1
            self.versions[version] += 1
        elif "replaced" in results:
            self.replaced += 1
        elif not results - {"none"}:
            self.without_values += 1
        elif "different" not in results:
            self.repeated += 1
        if "different" in results:
            self.different += 1
            if len(self.different_ids) < MAX_NAMED:
                self.different_ids.append(identity)

    def add_unknown(self, identity: str) -> None:
        self.unknown += 1
        if len(self.unknown_ids) < MAX_NAMED:
            self.unknown_ids.append(identity)


class TargetError(TypedDict):
    """Errors of the predictions of one target, made at the time. An error is the prediction minus the outcome."""

    rows: int
    rmse: float | None
    mae: float | None
    bias: float | None  # Mean error.
    interval_rows: int  # Rows whose predictions had an interval.
    interval_coverage: float | None  # Share of them whose interval contains the outcome.


@dataclass(frozen=True)
class RollingError:
    """Errors of the predictions that one version made in a window of time."""

    recorded: int  # Predictions, also those removed since.
    matched: int  # Predictions with an outcome of at least one target.
    waiting: int  # Predictions that may still get one.
    targets: Mapping[str, TargetError]
    level: float = LEVEL


@dataclass(frozen=True)
class Usage:
    """The recorded predictions of all models, and the space that they take."""

    bytes: int  # Of the file, or of the tables in Postgres.
    max_bytes: int
    recorded: int
    matched: int
    waiting: int
    removed: int  # Without an outcome: too old, or the oldest when the limit was reached.
