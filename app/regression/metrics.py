"""Goodness of fit on the training rows, from their sufficient statistics."""

import math
from dataclasses import dataclass

import numpy as np

from app.regression.sufficient_statistics import Array, SufficientStatistics

TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Metrics:
    """Goodness of fit for k targets."""

    mse: float  # mean squared residual over rows and targets, as F.mse_loss; NaN as in `mean_square`
    rmse: Array  # (k,), in the target's unit
    r2: Array  # (k,), explained share of the variance; NaN for a constant target
    adjusted_r2: Array  # (k,), the same with unbiased variances; NaN without residual degrees of freedom


def training_metrics(
    statistics: SufficientStatistics, residual_norms: Array, *, rank: int, fit_intercept: bool = True
) -> Metrics:
    """Return the metrics of a model with these square roots of residual sums of squares, (k,).

    Without an intercept, the variance is about zero (Greene, Econometric Analysis, 7th ed., 3.5). `rank` is the number
    of coefficients that the rows determine.
    """
    total = statistics.total_norms(centred=fit_intercept)
    count, freedom = statistics.effective_rows, statistics.effective_rows - rank
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(total > 0, 1 - (residual_norms / total) ** 2, np.nan)
        adjusted = 1 - (1 - r2) * (count - fit_intercept) / freedom if freedom > 0 else np.full_like(r2, np.nan)
    rmse = residual_norms / np.sqrt(statistics.total_weight)
    return Metrics(mse=mean_square(rmse), rmse=rmse, r2=r2, adjusted_r2=adjusted)


def mean_square(values: Array) -> float:
    """Return the mean of the squares; NaN if it leaves the range in which float64 has all its digits."""
    with np.errstate(over="ignore", under="ignore"):
        mean = float((values**2).mean())
    if np.isfinite(mean) and (mean >= TINY or not values.any()):
        return mean
    return math.nan
