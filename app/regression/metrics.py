"""How well a model fits the rows it was trained on, from their sufficient statistics."""

from dataclasses import dataclass

import numpy as np

from app.regression.sufficient_statistics import Array, SufficientStatistics


@dataclass(frozen=True, eq=False)
class Metrics:
    """Of the training rows, for each of k targets."""

    mse: float  # mean squared residual over all rows and targets, as F.mse_loss has it
    rmse: Array  # (k,), in the target's unit
    r2: Array  # (k,), share of the variance explained; NaN for a target that does not vary


def training_metrics(statistics: SufficientStatistics, weights: Array, intercept: Array) -> Metrics:
    """Metrics of weights (k, p) and intercept (k,)."""
    residual = statistics.residual_sums(weights, intercept)
    total = statistics.total_sums()
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(total > 0, 1 - residual / total, np.nan)
    return Metrics(
        mse=float(residual.sum() / (statistics.rows * statistics.targets)),
        rmse=np.sqrt(residual / statistics.rows),
        r2=r2,
    )
