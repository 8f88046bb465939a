"""The leverage of the rows: the weight that each has in its own fitted value.

h_i = w_i (1, x_i) (X'WX)^-1 (1, x_i)', the diagonal of the hat matrix of sqrt(W) X (Hoaglin and Welsch, The American
Statistician 32, 1978). Its sum is the rank.
"""

from typing import Any

import numpy as np

from app.regression.diagnostics.bins import Bins, summed
from app.regression.diagnostics.chunk import RowChunk
from app.regression.diagnostics.residual_plot import whole

BINS_PER_MEAN, MEANS = 4, 6  # Bins of a width of the mean leverage, and the number of means that they cover.
HIGH = 3  # Leverage above this multiple of the mean is high, as for a prediction.


class LeverageHistogram:
    """Counts the rows by leverage, which does not depend on the targets."""

    def __init__(self, rank: int, rows: float) -> None:
        self._mean = rank / rows
        self._bins = Bins(0.0, MEANS * self._mean, BINS_PER_MEAN * MEANS)
        self._counts = np.zeros(self._bins.size)
        self._maximum, self._ones = 0.0, 0.0
        self.total = 0.0  # sum of the leverages

    def add(self, rows: RowChunk) -> None:
        values, counts = rows.leverage, rows.counts
        self._counts += summed(self._bins.places(values), self._bins.size, counts)
        self._maximum = max(self._maximum, float(values.max(initial=0.0)))
        uncertain = ~rows.certain
        self._ones += float(uncertain.sum() if counts is None else counts[uncertain].sum())
        self.total += float(values.sum() if counts is None else values @ counts)

    def result(self) -> dict[str, Any]:
        edges, kept = self._bins.settle(self._counts)
        return {
            "edges": edges,
            "counts": whole(self._counts[kept]),
            "maximum": min(self._maximum, 1.0),
            "threshold": HIGH * self._mean,
            "ones": int(self._ones),
        }
