"""Properties of a column of numbers that cause warnings: its range, distant values, and whether it counts the rows."""

from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from app.data.batch import Array

MAX_IDS = 100_000  # Values that are compared with each other, to find a column that identifies rows.

_SHARE_OF_RANGE = 3  # Distance of an outlier from the other values, in multiples of their range.
_RECURRENCES = 3  # Rows with an outlier that recurs.


@dataclass
class Extreme:
    """The lowest value, the rows that have it, and the next one. Negated values give the highest."""

    value: float = np.inf
    rows: int = 0
    next: float = np.inf

    def add(self, values: Array, lowest: float, weights: NDArray[np.int64] | None) -> None:
        """Count values, of which the lowest is given. None is NaN."""
        if lowest > self.value:
            self.next = min(self.next, lowest)
            return
        if lowest < self.value:
            self.value, self.rows, self.next = lowest, 0, self.value
        is_lowest = values == lowest
        self.rows += int(np.count_nonzero(is_lowest) if weights is None else weights[is_lowest].sum())
        self.next = min(self.next, float(values[~is_lowest].min(initial=np.inf)))

    def merge(self, other: "Extreme") -> None:
        """Count the values that `other` has counted."""
        lowest = min(self.value, other.value)
        nexts = [value for side in (self, other) for value in (side.value, side.next) if value > lowest]
        self.rows = sum(side.rows for side in (self, other) if side.value == lowest)
        self.value, self.next = lowest, min(nexts, default=np.inf)


@dataclass
class NumberProfile:
    """The numbers of a column."""

    count: int = 0
    total: float = 0.0
    lowest: Extreme = field(default_factory=Extreme)
    highest: Extreme = field(default_factory=Extreme)  # of the negated values
    is_integer: bool = True
    counts_rows: bool = True  # from 0 or 1
    is_yyyymmdd: bool = True
    ids: set[float] = field(default_factory=set)  # the first MAX_IDS values, if they are integers

    def add(self, values: Array, rows: NDArray[np.int64], weights: NDArray[np.int64] | None = None) -> None:
        """Count values in these rows, from 0. NaN is a gap. With `weights`, each counts for several rows."""
        is_gap = np.isnan(values)
        if is_gap.any():
            self.counts_rows = False
            weights = None if weights is None else weights[~is_gap]
            values, rows = values[~is_gap], rows[~is_gap]
        if not len(values):
            return
        self.counts_rows = self.counts_rows and _counts(values, rows, weights)
        lowest, highest = float(values.min()), float(values.max())
        self.lowest.add(values, lowest, weights)
        self.highest.add(-values, -highest, weights)
        self.is_integer = self.is_integer and bool((values == np.floor(values)).all())
        self.is_yyyymmdd = self.is_yyyymmdd and self.is_integer and _are_days(values, lowest, highest)
        if self.is_integer and len(self.ids) == self.count < MAX_IDS:
            self.ids.update(values[: MAX_IDS - self.count].tolist())
            if weights is not None and (weights > 1).any():
                self.ids.clear()
        self.count += len(values) if weights is None else int(weights.sum())
        with np.errstate(over="ignore"):
            self.total += float(values.sum() if weights is None else values @ weights)

    def merge(self, other: "NumberProfile") -> None:
        """Count the values of later rows. Whether all differ may be unknown; then it becomes false."""
        if len(self.ids) == self.count < MAX_IDS and len(other.ids) == min(other.count, MAX_IDS):
            ids = self.ids | other.ids
            if len(ids) == len(self.ids) + len(other.ids):
                self.ids = set(islice(ids, MAX_IDS))
        self.count += other.count
        with np.errstate(over="ignore"):
            self.total = float(np.float64(self.total) + other.total)
        self.lowest.merge(other.lowest)
        self.highest.merge(other.highest)
        self.is_integer = self.is_integer and other.is_integer
        self.counts_rows = self.counts_rows and other.counts_rows
        self.is_yyyymmdd = self.is_yyyymmdd and other.is_yyyymmdd

    @property
    def minimum(self) -> float:
        return self.lowest.value if self.count else np.nan

    @property
    def maximum(self) -> float:
        return -self.highest.value if self.count else np.nan

    @property
    def mean(self) -> float:
        """The mean; a value in the middle if the sum exceeds the range of floats, and 0 without values."""
        if not self.count:
            return 0.0
        mean = self.total / self.count
        return mean if np.isfinite(mean) else self.minimum / 2 + self.maximum / 2

    @property
    def all_differ(self) -> bool:
        """True if all values are integers, and the first MAX_IDS of them differ."""
        return self.is_integer and self.count > 1 and len(self.ids) == min(self.count, MAX_IDS)

    @property
    def outlier(self) -> Extreme | None:
        """The lowest or the highest value, if it may mark a gap, as -999 does."""
        for extreme, other in ((self.lowest, self.highest), (self.highest, self.lowest)):
            gap, range_ = extreme.next - extreme.value, -other.value - extreme.next
            if not (np.isfinite(gap) and range_ > 0):
                continue
            is_mark = gap > range_ and _is_nines(extreme.value)
            if is_mark or (gap > _SHARE_OF_RANGE * range_ and extreme.rows >= _RECURRENCES):
                return extreme
        return None


def _counts(values: Array, rows: NDArray[np.int64], weights: NDArray[np.int64] | None) -> bool:
    start = values[0] - rows[0]
    if start not in (0, 1) or values[-1] - rows[-1] != start or (weights is not None and (weights > 1).any()):
        return False
    return bool((values - rows == start).all())


def _are_days(values: Array, lowest: float, highest: float) -> bool:
    if lowest < 1800_01_01 or highest > 2100_12_31:  # noqa: PLR2004 - days
        return False
    month, day = values // 100 % 100, values % 100
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())  # noqa: PLR2004 - a calendar


def _is_nines(value: float) -> bool:
    """Return True for 99, -99, 999, -999 and so on."""
    digits = f"{abs(value):.0f}"
    return abs(value) > 9 and float(digits) == abs(value) and set(digits) == {"9"}  # noqa: PLR2004 - one digit
