"""What the statistics say of gradient descent before its first step."""

import math

import numpy as np

from app.regression.solvers import GradientDescent
from app.regression.sufficient_statistics import Array, SufficientStatistics, column_norms


def largest_learning_rate(statistics: SufficientStatistics, options: GradientDescent) -> float:
    """The bound below which full batches do not diverge: 2 (1 + momentum) / (largest eigenvalue + weight decay).

    The loss is the mean over n rows and k targets, so its Hessian for each target is 2 / (n k) [1, X]'[1, X]; the bound
    with momentum is Polyak's (1964).
    """
    p = statistics.features
    if options.standardize:
        factor = np.zeros((p + 1, p + 1))
        factor[0, 0] = math.sqrt(statistics.weight)
        factor[1:, 1:] = statistics.centred_factor[:p, :p] / feature_scale(statistics)
    else:
        factor = statistics.raw_factor[: p + 1, : p + 1]
    largest = 2 * np.linalg.norm(factor, ord=2) ** 2 / (statistics.weight * statistics.targets)
    return float(2 * (1 + options.momentum) / (largest + options.weight_decay))


def feature_scale(statistics: SufficientStatistics) -> Array:
    """Standard deviation of each feature, (p,); 1 for one that does not vary."""
    p = statistics.features
    deviation = column_norms(statistics.centred_factor[:p, :p]) / math.sqrt(statistics.weight)
    return np.where(statistics.constant, 1.0, deviation)
