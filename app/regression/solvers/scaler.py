"""The columns of a gradient descent, the features as they are or standardised, and the learning rate they allow."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.regression.solvers.base import Coefficients
from app.regression.solvers.gradient_descent import GradientDescent
from app.regression.sufficient_statistics import Array, SufficientStatistics, column_norms


@dataclass(frozen=True, eq=False)
class Scaler:
    """(x - centre) / scale, or exactly 0 in a column that is constant."""

    centre: Array  # (p,)
    scale: Array  # (p,), positive
    zero: NDArray[np.bool_]  # (p,), constant columns of a standardised run

    @classmethod
    def of(cls, statistics: SufficientStatistics, options: GradientDescent) -> "Scaler":
        """Return the scaler of a run: the identity, or the one that standardises."""
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

    def apply(self, own: Coefficients) -> Coefficients:
        """Return the same function of the scaled columns, for coefficients of features in their own units."""
        return Coefficients(own.coef * self.scale, own.intercept + own.coef @ self.centre)

    def undo(self, scaled: Coefficients) -> Coefficients:
        """Return the same function of features in their own units, for coefficients of the scaled columns."""
        coef = scaled.coef / self.scale
        return Coefficients(coef, scaled.intercept - coef @ self.centre)

    def columns(self, x: Array) -> Array:
        """Return the scaled columns of the rows x, (n, p)."""
        columns = (x - self.centre) / self.scale
        columns[:, self.zero] = 0.0
        return np.asarray(columns)

    def factor(self, statistics: SufficientStatistics) -> Array:
        """Return R, (1 + p + k, 1 + p + k), of rows [1, scaled columns, y]: its Gram matrix is that of the rows."""
        k = statistics.targets
        factor = statistics.rescaled_factor(
            np.concatenate([self.centre, np.zeros(k)]), np.concatenate([self.scale, np.ones(k)])
        )
        factor[:, 1:-k][:, self.zero] = 0.0
        return np.ascontiguousarray(factor)


def largest_learning_rate(
    statistics: SufficientStatistics, options: GradientDescent, scaler: Scaler | None = None
) -> float:
    """Return the bound below which full batches of the rows of `statistics` cannot diverge.

    2 (1 + momentum) / (h + weight_decay), with h the largest eigenvalue of the Hessian. The loss is the mean over n
    rows and k targets, so the Hessian for each target is 2 / (n k) Z'Z, with Z the rows [1, scaled columns]. In the
    direction of an eigenvalue h the iteration has the roots of z^2 - (1 + momentum - rate (h + weight_decay)) z +
    momentum. They are inside the unit circle if 0 < rate (h + weight_decay) < 2 (1 + momentum) (Polyak, 1964). If
    h + weight_decay is 0, one root is 1, but no step has a component in that direction and the loss does not depend
    on it. Give the scaler if it was made for other statistics.
    """
    scaler = scaler or Scaler.of(statistics, options)
    inputs = scaler.factor(statistics)[:, : statistics.features + 1]
    root = float(np.linalg.norm(inputs, ord=2)) / math.sqrt(statistics.total_weight)
    return 2 * (1 + options.momentum) / (2 * root * root / statistics.targets + options.weight_decay)
