"""Bins for values that arrive in batches, with edges that are known before the first value."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.regression.sufficient_statistics import Array

REACH = 3.0  # Standard deviations about the mean that bins of equal width cover.
# Share of a bin's width below an edge within which a value counts as on it, so that rounding moves none across.
NUDGE = 1e-9


class Bins:
    """Inner bins of equal width, and an outer one on each side that reaches to the extreme value.

    An outlier therefore does not squeeze all other values into one bin. A value on an edge is in the bin above it.
    """

    def __init__(self, low: float, high: float, count: int) -> None:
        """Divide the range from `low` to `high` into `count` inner bins."""
        self.low, self.high, self.count = low, high, count
        self.size = count + 2
        self._minimum, self._maximum = math.inf, -math.inf

    @classmethod
    def about(cls, mean: float, deviation: float, count: int, *, low: float = -np.inf, high: float = np.inf) -> "Bins":
        """Return bins for values between `low` and `high`, most of which are within REACH deviations of the mean."""
        return cls(max(low, mean - REACH * deviation), min(high, mean + REACH * deviation), count)

    def places(self, values: Array) -> NDArray[np.intp]:
        """Return the bin of each value, and note the extremes. 0 is the lower outer bin, `size` - 1 the upper one."""
        self._minimum = min(self._minimum, float(values.min(initial=math.inf)))
        self._maximum = max(self._maximum, float(values.max(initial=-math.inf)))
        position = np.floor((values - self.low) * (self.count / (self.high - self.low)) + NUDGE)
        return np.clip(position, -1, self.count).astype(np.intp) + 1

    def settle(self, counts: Array, tables: Sequence[Array] = ()) -> tuple[list[float], slice]:
        """Return the edges of the bins in use, from the first to the last that has values, and which bins these are.

        The first axis of `counts` and of further `tables` is that of the bins. The values at `high` itself are moved to
        the last inner bin if none is above.
        """
        if self._maximum <= self.high + NUDGE * (self.high - self.low) / self.count:
            for table in (counts, *tables):
                table[-2] += table[-1]
                table[-1] = 0
        used = np.flatnonzero(counts.reshape(self.size, -1).any(axis=1))
        kept = slice(int(used[0]), int(used[-1]) + 1)
        inner = np.linspace(self.low, self.high, self.count + 1)
        edges = [min(self._minimum, self.low), *inner.tolist(), max(self._maximum, self.high)]
        return edges[kept.start : kept.stop + 1], kept


def summed(places: NDArray[np.intp], size: int, values: Array | None) -> Array:
    """Return the sum of the values in each of `size` bins, (size,); with None, the number of places."""
    return np.bincount(places, weights=values, minlength=size).astype(np.float64)
