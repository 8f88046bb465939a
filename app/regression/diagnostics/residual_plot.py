"""Residuals against fitted values, as a two-dimensional histogram.

A curve in it shows a missing term, and a funnel a variance that depends on the mean (Cook and Weisberg, Residuals and
Influence in Regression, 1982, 2.3).
"""

from typing import Any

import numpy as np

from app.regression.diagnostics.bins import Bins, summed
from app.regression.diagnostics.chunk import RowChunk
from app.regression.sufficient_statistics import Array

FITTED_BINS, RESIDUAL_BINS = 24, 16  # Most bins of each axis, the two outer ones included.
RESIDUAL_REACH = 3.5  # Root mean squares of the residuals that the inner bins cover.


class ResidualPlot:
    """Counts the rows of one target by fitted value and residual."""

    def __init__(self, target: int, mean: float, deviation: float, unit: float) -> None:
        """Prepare bins for fitted values with this mean and deviation. `unit` is the scaled residuals' unit."""
        self._target, self._unit = target, unit
        # A model may predict nearly the same value for all rows.
        spread = max(deviation, 1e-6 * unit, 1e-10 * abs(mean))
        self._fitted = Bins.about(mean, spread, FITTED_BINS - 2)
        self._residual = Bins(-RESIDUAL_REACH, RESIDUAL_REACH, RESIDUAL_BINS - 2)
        self._counts = np.zeros((self._fitted.size, self._residual.size))

    def add(self, rows: RowChunk) -> None:
        across = self._fitted.places(rows.fitted[:, self._target])
        place = across * self._residual.size + self._residual.places(rows.scaled[:, self._target])
        self._counts += summed(place, self._counts.size, rows.counts).reshape(self._counts.shape)

    def result(self) -> dict[str, Any]:
        """Return edges and counts. Residuals with precision weights are those of a row of mean weight."""
        fitted_edges, columns = self._fitted.settle(self._counts)
        residual_edges, lines = self._residual.settle(self._counts.T)
        return {
            "fitted_edges": fitted_edges,
            "residual_edges": [edge * self._unit for edge in residual_edges],
            "counts": whole(self._counts[columns, lines]),
        }


def whole(counts: Array) -> Any:
    """Return counts as plain integers, in nested lists."""
    return np.rint(counts).astype(np.int64).tolist()
