"""The columns that a gradient descent works on: the features as they are, or standardised."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.regression.solvers.coefficients import Coefficients
from app.regression.solvers.gradient_descent import GradientDescent
from app.regression.sufficient_statistics import SufficientStatistics, column_norms
from app.regression.training_batch import Array


@dataclass(frozen=True, eq=False)
class Scaler:
    """(x - centre) / scale, or exactly 0 in a column that is constant."""

    centre: Array  # (p,)
    scale: Array  # (p,), positive
    zero: NDArray[np.bool_]  # (p,), constant columns of a standardised run

    @classmethod
    def of(cls, statistics: SufficientStatistics, options: GradientDescent) -> "Scaler":
        """Return the scaler of a run: the identity, or the one that standardises.

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
