"""What the statistics say of gradient descent before its first step."""

import math

import numpy as np

from app.regression.sufficient_statistics import Array, SufficientStatistics


def largest_learning_rate(statistics: SufficientStatistics, *, standardize: bool) -> float:
    """The bound below which full-batch gradient descent does not diverge: 2 / largest eigenvalue of the Hessian.

    The loss is the mean over n rows and k targets, so its Hessian for each target is 2 / (n k) [1, X]'[1, X].
    """
    p = statistics.features
    if standardize:
        factor = np.zeros((p + 1, p + 1))
        factor[0, 0] = math.sqrt(statistics.weight)
        factor[1:, 1:] = statistics.centred_factor[:p, :p] / feature_scale(statistics)
    else:
        factor = statistics.raw_factor[: p + 1, : p + 1]
    largest = np.linalg.norm(factor, ord=2) ** 2
    return float(statistics.weight * statistics.targets / largest)


def feature_scale(statistics: SufficientStatistics) -> Array:
    """Standard deviation of each feature, (p,); 1 for one that does not vary."""
    p = statistics.features
    deviation = np.sqrt((statistics.centred_factor[:p, :p] ** 2).sum(axis=0) / statistics.weight)
    return np.where(deviation > 0, deviation, 1.0)
