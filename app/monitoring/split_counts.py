"""Counts of a traffic split: what each version answered, and how far the shadow's predictions were from the answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from app.regression.sufficient_statistics import Array

MAX_TARGETS = 20  # Targets of a shadow whose differences are summarised: the first ones.


@dataclass
class Differences:
    """Summary of differences, each the shadow's prediction minus the one that was returned."""

    count: int = 0
    total: float = 0.0
    absolute: float = 0.0  # sum of the absolute differences
    largest: float = 0.0  # absolute

    @classmethod
    def of(cls, values: Array) -> "Differences":
        """Summarise the finite ones of these differences, (n,)."""
        finite = values[np.isfinite(values)]
        if not len(finite):
            return cls()
        sizes = np.abs(finite)
        with np.errstate(over="ignore"):
            return cls(len(finite), float(finite.sum()), float(sizes.sum()), float(sizes.max()))

    def add(self, other: "Differences") -> None:
        self.count += other.count
        self.total += other.total
        self.absolute += other.absolute
        self.largest = max(self.largest, other.largest)


@dataclass
class Answered:
    """Requests that a version answered, and their rows."""

    requests: int = 0
    rows: int = 0


@dataclass
class SplitCounts:
    """Counts since the split with this identity was set."""

    identity: str
    versions: dict[int, Answered] = field(default_factory=dict)
    compared: int = 0  # rows for which the shadow predicted too
    failed: int = 0  # rows for which it could not
    skipped: int = 0  # rows for which it was not asked, because there were too many
    targets: dict[str, Differences] = field(default_factory=dict)

    def add(self, other: "SplitCounts") -> None:
        """Add the counts of the same split."""
        for number, each in other.versions.items():
            own = self.versions.setdefault(number, Answered())
            own.requests += each.requests
            own.rows += each.rows
        self.compared += other.compared
        self.failed += other.failed
        self.skipped += other.skipped
        for target, differences in other.targets.items():
            if target in self.targets or len(self.targets) < MAX_TARGETS:
                self.targets.setdefault(target, Differences()).add(differences)


def include(counts: dict[str, SplitCounts], other: Mapping[str, SplitCounts]) -> None:
    """Add counts by model. If the splits of a model differ, those of the later one stay."""
    for model, each in other.items():
        own = counts.get(model)
        if own is None or own.identity < each.identity:
            own = counts[model] = SplitCounts(each.identity)
        if own.identity == each.identity:
            own.add(each)
