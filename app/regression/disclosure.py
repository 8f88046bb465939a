"""Change statistics so that they have no value of a single row, before they leave the service."""

from dataclasses import replace

import numpy as np

from app.regression.column_changes import NOT_AN_INDICATOR
from app.regression.sufficient_statistics import Array, SufficientStatistics, column_norms, power_of_two


def without_row_values(statistics: SufficientStatistics) -> SufficientStatistics:
    """Return the statistics of the same rows without values of single rows.

    The shift, a value of some row, becomes the mean. The scale becomes the power of two above the standard deviation.
    Minima and maxima become NaN, except those of the indicators of levels. The factor of the rows that were taken out
    becomes an upper bound.
    """
    p, norms = statistics.features, column_norms(statistics.factor[1:, 1:]) * statistics.scale
    counts = statistics.indicator_rows
    is_indicator = np.zeros(p, dtype=bool) if counts is None else counts != NOT_AN_INDICATOR
    # A constant column keeps its value, so that its deviations stay exactly 0.
    is_kept = np.concatenate([is_indicator, np.zeros(statistics.targets, dtype=bool)]) | (norms == 0)
    shift = np.where(is_kept, statistics.shift, statistics.mean)
    spread = power_of_two(norms / np.sqrt(statistics.total_weight), statistics.shift)
    scale = np.where(is_kept, statistics.scale, spread)
    removed = statistics.removed
    return replace(
        statistics,
        shift=shift,
        scale=scale,
        factor=np.triu(statistics.rescaled_factor(shift, scale)),
        minimum=np.where(is_indicator, statistics.minimum, np.nan),
        maximum=np.where(is_indicator, statistics.maximum, np.nan),
        removed=None if removed is None else upper_bound(statistics.transform(removed, shift, scale)),
        operations=statistics.operations + 1,
    )


def upper_bound(factor: Array) -> Array:
    """Return a diagonal D of powers of two with x'D'Dx at least x'R'Rx for a factor R, (d, d), and all x.

    By the Cauchy-Schwarz inequality, |Rx|^2 is at most d times the sum of the squares of x_j |R_j|.
    """
    norms = column_norms(factor) * np.sqrt(len(factor))
    return np.diag(np.where(norms > 0, power_of_two(norms, norms), 0.0))
