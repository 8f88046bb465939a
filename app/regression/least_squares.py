"""Exact least squares, from sufficient statistics alone."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.regression.solvers import Exact
from app.regression.sufficient_statistics import Array, SufficientStatistics, triangle

MOST_EXCESS = 1e-4  # a hundredth of a standard error


@dataclass(frozen=True, eq=False)
class Design:
    """The feature side of the statistics: A with A'A the cross products of the columns, as the fit sees them.

    Columns are deviations from their means where the model has an intercept. They are brought to unit norm before
    anything is decided about rank, so that the units a feature is measured in do not matter.
    """

    factor: Array  # (p, p), upper triangular
    norms: Array  # (p,), Euclidean norm of each column; 0 where the column does not vary
    weight: float  # of all rows together
    intercept: bool

    @classmethod
    def of(cls, statistics: SufficientStatistics, *, fit_intercept: bool = True) -> "Design":
        p = statistics.features
        if fit_intercept:
            factor = statistics.centred_factor[:p, :p]
            # Below this, a column's variation is the rounding of its own mean.
            largest = np.maximum(np.abs(statistics.minimum), np.abs(statistics.maximum))
            noise = 4 * np.finfo(float).eps * np.sqrt(statistics.weight) * largest
        else:
            factor = triangle(statistics.raw_factor[:, 1 : p + 1])
            noise = np.zeros(p)
        norms = np.sqrt((factor**2).sum(axis=0))
        return cls(factor, np.where(norms > noise, norms, 0.0), statistics.weight, fit_intercept)

    @property
    def _unit_factor(self) -> Array:
        varying = self.norms > 0
        return np.where(varying, self.factor, 0.0) / np.where(varying, self.norms, 1.0)

    @cached_property
    def _singular(self) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
        """U, s, V' of the unit-norm columns, and which singular values count."""
        u, s, vt = np.linalg.svd(self._unit_factor)
        kept = s > (64 * np.finfo(float).eps * (len(s) + 1)) * (s[0] or 1.0)
        return u, s, vt, kept

    @property
    def rank(self) -> int:
        """Number of coefficients the rows determine, the intercept among them."""
        return int(self._singular[3].sum()) + int(self.intercept)

    @property
    def full_rank(self) -> bool:
        return bool(self._singular[3].all())

    @property
    def condition_number(self) -> float:
        """Of the unit-norm columns, over the directions that count; 1 where none does."""
        s = self._singular[1][self._singular[3]]
        return float(s[0] / s[-1]) if len(s) else 1.0

    def solve(self, right: Array, *, l2: float = 0.0) -> Array:
        """B, (p, k), with A B nearest to right, (p, k); of minimum norm in unit-norm columns where many are."""
        norms = np.where(self.norms > 0, self.norms, 1.0)[:, np.newaxis]
        unit: NDArray[np.floating[Any]]
        if l2 > 0:
            # The penalty as rows of its own (Golub and Van Loan, 6.1.5): no product A'A is ever formed.
            p, k = right.shape
            penalty = np.sqrt(l2 / self.weight) * np.eye(p)
            stacked = triangle(np.block([[self._unit_factor, right], [penalty, np.zeros((p, k))]]))
            unit = np.linalg.solve(stacked[:p, :p], stacked[:p, p:])
        elif self.full_rank:
            unit = np.linalg.solve(self._unit_factor, right)
        else:
            u, s, vt, kept = self._singular
            unit = vt[kept].T @ ((u.T @ right)[kept] / s[kept][:, np.newaxis])
        return np.asarray(np.where(self.norms[:, np.newaxis] > 0, unit, 0.0) / norms, dtype=np.float64)

    def whiten(self, deviations: Array) -> Array:
        """Rows z, (m, p), of deviations x such that z'z is x'(A'A)^-1 x; infinite where x leaves the rows' span."""
        unit = deviations / np.where(self.norms > 0, self.norms, 1.0)
        _, s, vt, kept = self._singular
        turned = unit @ vt.T
        # At the scale of the training rows, whose own deviations are about 1 / sqrt(n) here, less is rounding.
        size = np.maximum(np.abs(unit).max(axis=1, initial=0.0), 1 / np.sqrt(self.weight))
        beyond = np.abs(turned[:, ~kept]) > np.sqrt(np.finfo(float).eps) * size[:, np.newaxis]
        turned[:, kept] /= s[kept]
        turned[:, ~kept] = np.where(beyond, np.inf, 0.0)
        return np.asarray(turned)

    def coefficient_variances(self) -> Array:
        """Diagonal of (A'A)^-1, (p,): variances of the coefficients in units of the residual variance."""
        inverse = np.linalg.solve(self._unit_factor, np.eye(len(self.norms)))
        return np.asarray((inverse**2).sum(axis=1) / self.norms**2)


@dataclass(frozen=True, eq=False)
class Fit:
    """A solved least-squares problem, and how well the rows determined it."""

    weights: Array  # (k, p)
    intercept: Array  # (k,)
    residual_sums: Array  # (k,), sum of squared residuals
    # Of the coefficients, in units of the residual variance: the diagonal of (X'X)^-1, the intercept first, (1 + p,).
    # None where theory gives none: with a penalty, or where the rows do not determine the coefficients.
    variances: Array | None
    design: Design


def fit(statistics: SufficientStatistics, solver: Exact) -> Fit:
    """Solve for all targets at once. Collinear or too few rows give the minimum-norm solution, its rank stated."""
    p = statistics.features
    design = Design.of(statistics, fit_intercept=solver.fit_intercept)
    if solver.fit_intercept:
        right = statistics.centred_factor[:p, p:]
        weights = design.solve(right, l2=solver.l2).T
        intercept = statistics.mean[p:] - weights @ statistics.mean[:p]
    else:
        right = triangle(statistics.raw_factor[:, 1:])[:p, p:]
        weights = design.solve(right, l2=solver.l2).T
        intercept = np.zeros(statistics.targets)
    variances = None
    if solver.l2 == 0 and design.full_rank:
        at_zero = 0.0
        if solver.fit_intercept:
            at_zero = (design.whiten(statistics.mean[np.newaxis, :p]) ** 2).sum() + 1 / statistics.weight
        variances = np.concatenate([[at_zero], design.coefficient_variances()])
    residual = statistics.residual_sums(weights, intercept)
    return Fit(np.ascontiguousarray(weights), intercept, residual, variances, design)


def why_no_inference(statistics: SufficientStatistics, fitted: Fit, solver: Exact) -> str | None:
    """Why classical theory says nothing about this fit, in a sentence for the reader; None where it does."""
    coefficients = statistics.features + fitted.design.intercept
    if solver.l2 > 0:
        return "The model was fitted with a ridge penalty, which biases its coefficients."
    if not fitted.design.full_rank:
        return f"The rows determine only {fitted.design.rank} of {coefficients} coefficients."
    if statistics.count <= coefficients:
        return f"{statistics.count:g} rows leave nothing to estimate the error of {coefficients} coefficients from."
    return None


def is_optimal(residual_sums: Array, statistics: SufficientStatistics, optimum: Fit) -> bool:
    """Whether weights with these residual sums, (k,), are the optimum for all that inference can tell.

    Where the excess over the optimum's residual sum is E s^2, no prediction is further from the optimum's than sqrt(E)
    of its own standard error (Cauchy-Schwarz in the metric of the cross products).
    """
    freedom = statistics.count - statistics.features - optimum.design.intercept
    excess = residual_sums - optimum.residual_sums
    return bool((excess * freedom <= MOST_EXCESS * optimum.residual_sums).all())
