"""The columns a gradient descent works on, and the learning rate below which it is stable.

Both follow from the sufficient statistics, before the first step.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.regression.solvers import GradientDescent
from app.regression.sufficient_statistics import Array, SufficientStatistics, column_norms


@dataclass(frozen=True, eq=False)
class Columns:
    """The features as the descent sees them: (x - centre) / scale, or exactly 0 in a column that is constant."""

    centre: Array  # (p,)
    scale: Array  # (p,), positive
    zero: NDArray[np.bool_]  # (p,), constant columns of a standardised run

    @classmethod
    def of(cls, statistics: SufficientStatistics, options: GradientDescent) -> "Columns":
        """Return the columns of a run: the features as they are, or standardised.

        A standardised column that is constant has its value as centre, and scale 1.
        """
        p = statistics.features
        if not options.standardize:
            return cls(np.zeros(p), np.ones(p), np.zeros(p, dtype=bool))
        constant = statistics.constant
        deviation = (
            statistics.scale[:p] * column_norms(statistics.factor[1:, 1 : p + 1]) / math.sqrt(statistics.total_weight)
        )
        return cls(
            np.where(constant, statistics.minimum, statistics.mean[:p]),
            np.where(~constant & (deviation > 0), deviation, 1.0),
            constant,
        )

    def factor(self, statistics: SufficientStatistics) -> Array:
        """Return R, (1 + p + k, 1 + p + k), of rows [1, columns, y]: its Gram matrix is that of the rows."""
        k = statistics.targets
        factor = statistics.rescaled_factor(
            np.concatenate([self.centre, np.zeros(k)]), np.concatenate([self.scale, np.ones(k)])
        )
        factor[:, 1:-k][:, self.zero] = 0.0
        return np.ascontiguousarray(factor)

    def rows(self, x: Array) -> Array:
        """Return the columns of the rows x, (n, p)."""
        columns = (x - self.centre) / self.scale
        columns[:, self.zero] = 0.0
        return np.asarray(columns)


def largest_learning_rate(
    statistics: SufficientStatistics, options: GradientDescent, factor: Array | None = None
) -> float:
    """Return the bound below which full batches of the rows of `statistics` cannot diverge.

    2 (1 + momentum) / (h + weight_decay), with h the largest eigenvalue of the Hessian. The loss is the mean over n
    rows and k targets, so the Hessian for each target is 2 / (n k) Z'Z, with Z the rows [1, columns]. In the direction
    of an eigenvalue h the iteration has the roots of z^2 - (1 + momentum - rate (h + weight_decay)) z + momentum.
    They are inside the unit circle if 0 < rate (h + weight_decay) < 2 (1 + momentum) (Polyak, 1964). If
    h + weight_decay is 0, one root is 1, but no step has a component in that direction and the loss does not depend
    on it. `factor` is that of the columns, if it is known or the columns were made for other statistics.
    """
    if factor is None:
        factor = Columns.of(statistics, options).factor(statistics)
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
