"""How well a model fits the rows it was trained on, from their sufficient statistics."""

import math
from dataclasses import dataclass

import numpy as np

from app.regression.sufficient_statistics import Array, SufficientStatistics

TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Metrics:
    """Of the training rows, for each of k targets."""

    mse: float  # mean squared residual over all rows and targets, as F.mse_loss has it; see mean_square
    rmse: Array  # (k,), in the target's unit
    r2: Array  # (k,), share of the variance explained; NaN for a target that does not vary
    adjusted_r2: Array  # (k,), the same by unbiased variances; NaN where no row is left to estimate one


def training_metrics(
    statistics: SufficientStatistics, residual_norms: Array, *, rank: int, fit_intercept: bool = True
) -> Metrics:
    """Return the metrics of a model with these square roots of sums of squared residuals, (k,).

    Without an intercept the variance is that about zero (Greene, Econometric Analysis, 7th ed., 3.5). `rank` is the
    number of coefficients that the rows determine, which adjusted R squared takes degrees of freedom for.
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
        found = float((values**2).mean())
    if np.isfinite(found) and (found >= TINY or not values.any()):
        return found
    return math.nan
