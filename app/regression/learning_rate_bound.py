"""The learning rate below which a gradient descent with full batches is stable.

It follows from the sufficient statistics, before the first step.
"""

import math

import numpy as np

from app.regression.solvers.gradient_descent import GradientDescent
from app.regression.solvers.scaler import Scaler
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.training_batch import Array


def largest_learning_rate(
    statistics: SufficientStatistics, options: GradientDescent, factor: Array | None = None
) -> float:
    """Return the bound below which full batches of the rows of `statistics` cannot diverge.

    2 (1 + momentum) / (h + weight_decay), with h the largest eigenvalue of the Hessian. The loss is the mean over n
    rows and k targets, so the Hessian for each target is 2 / (n k) Z'Z, with Z the rows [1, columns]. In the direction
    of an eigenvalue h the iteration has the roots of z^2 - (1 + momentum - rate (h + weight_decay)) z + momentum.
    They are inside the unit circle if 0 < rate (h + weight_decay) < 2 (1 + momentum) (Polyak, 1964). If
    h + weight_decay is 0, one root is 1, but no step has a component in that direction and the loss does not depend
    on it. `factor` is that of the scaled columns; give it if the scaler was made for other statistics.
    """
    if factor is None:
        factor = Scaler.of(statistics, options).factor(statistics)
    return _bound(float(np.linalg.norm(factor[:, : statistics.features + 1], ord=2)), statistics, options)


def exceeds_bound(statistics: SufficientStatistics, options: GradientDescent, factor: Array) -> bool:
    """Return True if the learning rate is above `largest_learning_rate`.

    The Frobenius norm is never below the spectral norm and far cheaper, so it decides first.
    """
    frobenius = float(np.linalg.norm(factor[:, : statistics.features + 1]))
    if options.learning_rate <= _bound(frobenius, statistics, options):
        return False
    return options.learning_rate > largest_learning_rate(statistics, options, factor)


def _bound(norm: float, statistics: SufficientStatistics, options: GradientDescent) -> float:
    """Return the bound if the rows [1, columns] together have this norm."""
    root = norm / math.sqrt(statistics.total_weight)
    return 2 * (1 + options.momentum) / (2 * root * root / statistics.targets + options.weight_decay)
