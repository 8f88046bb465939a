"""Partial residuals of columns of numbers, as means in bins of the column.

The partial residual e_i + b_j x_ij is the target minus the effects of the other columns. Its plot against x_j has the
slope b_j, and shows how the effect departs from a straight line (Larsen and McCleary, Technometrics 14, 1972;
statsmodels' plot_ccpr).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.regression.design import Design
from app.regression.diagnostics.bins import Bins, summed
from app.regression.diagnostics.chunk import RowChunk
from app.regression.diagnostics.residual_plot import whole
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import EPSILON, Array, column_norms

BINS = 20  # Most bins of a column, the two outer ones included.
MAX_COLUMNS = 20  # Columns with partial residuals, over all targets.


class PartialResiduals:
    """Adds up the partial residuals of one target by bins of some columns. A row counts by its weight."""

    def __init__(self, target: int, chosen: Sequence[int], coef: Array, bins: dict[int, Bins]) -> None:
        """Prepare the sums. `coef` are the target's coefficients, (p,), and `bins` are those of each chosen column."""
        self._target, self._coef = target, coef
        self._bins = {column: bins[column] for column in chosen}
        self._sums = {column: np.zeros((3, BINS)) for column in chosen}  # of weighted values, of weights, of rows

    def add(self, rows: RowChunk, places: dict[int, Any]) -> None:
        """Add rows, of which `places` has the bin of each column."""
        weights = rows.counts if rows.weights is None else rows.weights
        residuals = rows.residuals[:, self._target]
        for column, sums in self._sums.items():
            place = places[column]
            values = residuals + self._coef[column] * rows.columns[:, column]
            sums[0] += summed(place, BINS, values if weights is None else values * weights)
            sums[2] += (count := summed(place, BINS, rows.counts))
            sums[1] += count if rows.weights is None else summed(place, BINS, rows.weights)

    def result(self, names: Sequence[str]) -> dict[str, Any]:
        return {names[column]: self._of(column) for column in self._sums}

    def _of(self, column: int) -> dict[str, Any]:
        values, weights, counts = self._sums[column]
        edges, kept = self._bins[column].settle(counts, (values, weights))
        pairs = zip(values[kept].tolist(), weights[kept].tolist(), strict=True)
        means = [value / weight if weight else None for value, weight in pairs]
        return {"edges": edges, "means": means, "counts": whole(counts[kept])}


def bins_of(model: LinearModel, columns: Sequence[int]) -> dict[int, Bins]:
    """Return bins for each of the columns that varies by more than the spacing of its values."""
    statistics, p = model.statistics, len(model.columns)
    deviations = column_norms(statistics.factor[1:, 1 : p + 1]) * statistics.scale[:p]
    deviations /= np.sqrt(statistics.total_weight)
    found = {}
    for column in columns:
        low, high = float(statistics.minimum[column]), float(statistics.maximum[column])
        bins = Bins.about(float(statistics.mean[column]), float(deviations[column]), BINS - 2, low=low, high=high)
        if bins.high - bins.low > 8 * BINS * EPSILON * max(abs(low), abs(high)):
            found[column] = bins
    return found


def by_importance(model: LinearModel, design: Design, target: int, columns: Sequence[int]) -> list[int]:
    """Return the columns whose coefficients the rows determine, those with the largest |t| first.

    Without standard errors, they are ordered by the coefficient times the column's standard deviation.
    """
    size = np.abs(model.coef[target])
    errors = None if model.unscaled_errors is None else model.unscaled_errors[1:]
    order = size * design.norms if errors is None else size / np.where(errors > 0, errors, np.inf)
    known = np.isfinite(order) & ~np.isnan(design.unit_errors)
    return sorted((column for column in columns if known[column]), key=lambda column: -order[column])
