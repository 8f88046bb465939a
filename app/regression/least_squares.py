"""Exact least squares, from sufficient statistics alone."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.regression.errors import ColumnOutOfRange, ValuesTooLarge, ValuesTooSmall
from app.regression.solvers.exact import Exact
from app.regression.sufficient_statistics import (
    EPSILON,
    Array,
    SufficientStatistics,
    column_norms,
    r_factor,
)

MAX_EXCESS_RSS_RATIO = 1e-4  # a hundredth of a standard error
# Singular values of unit-norm columns, for each column and relative to the largest, below which they are rounding.
RANK_TOLERANCE = 64 * EPSILON
# Root mean square of residuals, relative to that of the terms they are left over from, up to which they are rounding.
PERFECT = 32 * EPSILON
# Degrees of freedom, which decay makes fractions, from which inference is given: with fewer, intervals have no bounds
# that 64-bit numbers hold. One, less the rounding error of a sum of shares.
MIN_FREEDOM = 1 - 1e-9
# Part of a coefficient's unit vector outside the row space of the design, up to which the coefficient is identifiable.
IDENTIFIABLE = 1e-8

ESSENTIALLY_PERFECT = "The fit is essentially perfect: the residuals are rounding errors."
# Powers of two: norms of columns, and ratios of the norms of targets to those of features, that are held. Coefficients
# and standard errors are then in the range in which 64-bit numbers have all their digits.
LARGEST_NORM, LARGEST_RATIO = 960, 900
ORDINARY = (1e-100, 1e100)  # norms of columns, and a total weight, that are far from these limits

PRECISION_UNKNOWN = (
    "Rows were taken out of this version or an earlier one before the precision that this costs was recorded, or an "
    "earlier version that could tell is gone. Train the model again from the rows that remain."
)


@dataclass(frozen=True, eq=False)
class Design:
    """The feature side of the statistics: A with A'A the cross products of the columns, as the fit sees them.

    Columns are deviations from their means if the model has an intercept. They are brought to unit norm before
    anything is decided about rank, so that the units of a feature do not matter.
    """

    unit_factor: Array  # (p, p), of the columns at unit norm; zero for a column that does not vary
    norms: Array  # (p,), Euclidean norm of each column; 0 where the column does not vary
    centre: Array  # (p,), the value of a column that does not vary
    weight: float  # sum of the rows' weights
    effective_rows: float  # rows that the penalty is measured in
    intercept: bool

    @classmethod
    def of(cls, statistics: SufficientStatistics, *, fit_intercept: bool = True) -> "Design":
        p = statistics.features
        scale, shift = statistics.scale[:p], statistics.shift[:p]
        if fit_intercept:
            factor, centre, flat = statistics.factor[1 : p + 1, 1 : p + 1], shift, statistics.constant
        else:
            factor, centre = r_factor(statistics.factor_about_zero[:, 1 : p + 1]), np.zeros(p)
            flat = statistics.constant & (statistics.maximum == 0)
        norms = np.where(flat, 0.0, column_norms(factor))
        unit_factor = np.where(norms > 0, factor, 0.0) / np.where(norms > 0, norms, 1.0)
        return cls(
            unit_factor, norms * scale, centre, statistics.total_weight, statistics.effective_rows, fit_intercept
        )

    @cached_property
    def _singular(self) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
        """U, s, V' of the unit-norm columns, and which singular values count."""
        u, s, vt = np.linalg.svd(self.unit_factor)
        kept = s > RANK_TOLERANCE * (len(s) + 1) * (s[0] or 1.0)
        return u, s, vt, kept

    @property
    def rank(self) -> int:
        """Number of coefficients the rows determine, the intercept among them."""
        return int(self._singular[3].sum()) + int(self.intercept)

    @cached_property
    def full_rank(self) -> bool:
        return bool(self._singular[3].all())

    @property
    def condition_number(self) -> float:
        """Of the unit-norm columns, over the directions that count; 1 where none does."""
        s = self._singular[1][self._singular[3]]
        return float(s[0] / s[-1]) if len(s) else 1.0

    def penalised_condition(self, l2: float) -> float:
        """Return the condition number with a ridge penalty, sqrt((s_1^2 + l2 / n) / (s_r^2 + l2 / n))."""
        s = np.hypot(self._singular[1][self._singular[3]], np.sqrt(l2 / self.effective_rows))
        return float(s[0] / s[-1]) if len(s) else 1.0

    @property
    def null_space(self) -> Array:
        """Orthonormal columns v, (p, p - r), with A v = 0 for the columns at unit norm."""
        _, _, vt, kept = self._singular
        return np.asarray(vt[~kept].T)

    def solve(self, right: Array, *, l2: float = 0.0) -> Array:
        """Return B, (p, k), with A B nearest to right, (p, k); of minimum norm in unit-norm columns if many are.

        With a penalty, B = V diag(s / (s^2 + l2 / n)) U' right, from the singular values that count (Golub and Van
        Loan, Matrix Computations, 4th ed., 6.1.4). For small penalties this tends to the solution of minimum norm.
        """
        norms = np.where(self.norms > 0, self.norms, 1.0)[:, np.newaxis]
        unit: NDArray[np.floating[Any]]
        if l2 == 0 and self.full_rank:
            unit = np.linalg.solve(self.unit_factor, right)
        else:
            u, s, vt, kept = self._singular
            filtered = (u.T @ right)[kept] / (s[kept] + l2 / self.effective_rows / s[kept])[:, np.newaxis]
            unit = vt[kept].T @ filtered
        return np.asarray(np.where(self.norms[:, np.newaxis] > 0, unit, 0.0) / norms, dtype=np.float64)

    def effective_coefficients(self, l2: float) -> float:
        """Return the trace of the hat matrix, sum of s^2 / (s^2 + l2 / n), the intercept counting 1.

        Without a penalty this is the rank (Hastie, Tibshirani and Friedman, 2nd ed., 3.50).
        """
        s = self._singular[1][self._singular[3]]
        return float((s**2 / (s**2 + l2 / self.effective_rows)).sum()) + self.intercept

    def whiten(self, deviations: Array) -> Array:
        """Return rows z, (m, p), of deviations x such that z'z is x'(A'A)^-1 x; infinite if x leaves the rows' span."""
        _, s, vt, kept = self._singular
        if self.full_rank:
            return np.asarray((deviations / self.norms) @ vt.T / s)
        varying = self.norms > 0
        unit = np.where(varying, deviations, 0.0) / np.where(varying, self.norms, 1.0)
        turned = unit @ vt.T
        # At the scale of the training rows, whose own deviations are about 1 / sqrt(n) here, less is rounding.
        size = np.maximum(np.abs(unit).max(axis=1, initial=0.0), 1 / np.sqrt(self.weight))
        beyond = np.abs(turned[:, ~kept]) > np.sqrt(EPSILON) * size[:, np.newaxis]
        turned[:, kept] /= s[kept]
        turned[:, ~kept] = np.where(beyond, np.inf, 0.0)
        moved = ~varying & (np.abs(deviations) > np.sqrt(EPSILON) * np.abs(self.centre))
        turned[moved.any(axis=1)] = np.inf
        return np.asarray(turned)

    @cached_property
    def unit_errors(self) -> Array:
        """Square roots of the diagonal of (A'A)^-1 for columns at unit norm, (p,); NaN if not identifiable.

        A coefficient is identifiable if its unit vector lies in the row space of the design (Searle, Linear Models,
        1971, 5.4). Squared, these are the variance inflation factors of a model with an intercept.
        """
        errors = np.sqrt((self.unit_root() ** 2).sum(axis=1))
        if self.full_rank:
            return np.asarray(errors)
        _, _, vt, kept = self._singular
        outside = np.sqrt((vt[~kept] ** 2).sum(axis=0))
        return np.where(outside <= IDENTIFIABLE, errors, np.nan)

    def unit_root(self) -> Array:
        """Return L, (p, r), with LL' the pseudo-inverse of A'A for columns at unit norm."""
        if self.full_rank:
            return np.asarray(np.linalg.solve(self.unit_factor, np.eye(len(self.norms))))
        _, s, vt, kept = self._singular
        return np.asarray((vt[kept] / s[kept, np.newaxis]).T)

    def coefficient_errors(self) -> Array:
        """Return standard errors in units of the residual deviation, (p,); NaN if not identifiable."""
        return np.asarray(self.unit_errors / np.where(self.norms > 0, self.norms, 1.0))


@dataclass(frozen=True, eq=False)
class Fit:
    """A solved least-squares problem, and how well the rows determined it."""

    coef: Array  # (k, p)
    intercept: Array  # (k,)
    centre_prediction: Array  # (k,), at the shift of the statistics, where nothing large cancels
    residual_norms: Array  # (k,), square root of the sum of squared residuals
    # Standard errors of the coefficients in units of the residual deviation: square roots of the diagonal of
    # (X'WX)^-1, the intercept first, (1 + p,). NaN for a coefficient that is not identifiable.
    unscaled_errors: Array
    design: Design


def fit(statistics: SufficientStatistics, solver: Exact) -> Fit:
    """Solve for all targets at once. Collinear or too few rows give the minimum-norm solution, its rank stated.

    Raises ValuesTooLarge or ValuesTooSmall if coefficients would leave the range of 64-bit numbers.
    """
    _check_range(statistics, fit_intercept=solver.fit_intercept)
    p = statistics.features
    design = Design.of(statistics, fit_intercept=solver.fit_intercept)
    shift, offset, units = statistics.shift, statistics.offset, statistics.scale[p:]
    if solver.fit_intercept:
        right = statistics.factor[1 : p + 1, p + 1 :]
        weights = (design.solve(right, l2=solver.l2) * units).T
        at_shift = offset[p:] - weights @ offset[:p]
        centre_prediction = shift[p:] + at_shift
        intercept = centre_prediction - weights @ shift[:p]
        distance = design.whiten((shift[:p] + offset[:p])[np.newaxis])[0]
        at_zero = math.hypot(*distance.tolist(), 1 / math.sqrt(statistics.total_weight))
    else:
        right = r_factor(statistics.factor_about_zero[:, 1:])[:p, p:]
        weights = (design.solve(right, l2=solver.l2) * units).T
        centre_prediction = weights @ shift[:p]
        at_shift = centre_prediction - shift[p:]
        intercept, at_zero = np.zeros(statistics.targets), 0.0
    errors = np.concatenate([[at_zero if math.isfinite(at_zero) else np.nan], design.coefficient_errors()])
    residual = statistics.residual_norms_at_shift(weights, at_shift)
    return Fit(np.ascontiguousarray(weights), intercept, centre_prediction, residual, errors, design)


def _check_range(statistics: SufficientStatistics, *, fit_intercept: bool) -> None:
    p, scale = statistics.features, statistics.scale
    norms = column_norms(statistics.factor[1:, 1:] if fit_intercept else statistics.factor_about_zero[:, 1:])
    ordinary = norms * scale
    if ((ordinary > ORDINARY[0]) & (ordinary < ORDINARY[1])).all() and ORDINARY[0] < statistics.total_weight < ORDINARY[
        1
    ]:
        return
    norms[:p][statistics.constant] = 0.0
    sizes = np.where(norms > 0, np.log2(np.where(norms > 0, norms, 1.0)) + np.log2(scale), 0.0)
    per_row = np.where(norms > 0, sizes - np.log2(statistics.total_weight) / 2, 0.0)
    extreme = np.flatnonzero(np.maximum(np.abs(sizes), np.abs(per_row)) > LARGEST_NORM)
    if len(extreme):
        raise _out_of_range(int(extreme[0]), sizes)
    varying = norms > 0
    ratios = np.where(np.outer(varying[:p], varying[p:]), sizes[p:] - sizes[:p, np.newaxis], 0.0)
    for feature, target in np.argwhere(np.abs(ratios) > LARGEST_RATIO):
        raise _out_of_range(int(max(feature, p + target, key=lambda column: abs(sizes[column]))), sizes)


def _out_of_range(column: int, sizes: Array) -> ColumnOutOfRange:
    return ValuesTooLarge(column) if sizes[column] > 0 else ValuesTooSmall(column)


def why_no_inference(
    statistics: SufficientStatistics, fitted: Fit, solver: Exact, residual_norms: Array | None = None
) -> str | None:
    """Return why classical theory says nothing about this fit, in a sentence for the reader; None if it does.

    `residual_norms`, (k,), are more accurate ones than those of the fit, if there are any.
    """
    if solver.l2 > 0:
        return "The model was fitted with a ridge penalty, which biases its coefficients."
    if statistics.effective_rows <= fitted.design.rank:
        return (
            f"{statistics.effective_rows:g} rows leave nothing to estimate the error of {fitted.design.rank} "
            "coefficients from."
        )
    if statistics.effective_rows - fitted.design.rank < MIN_FREEDOM:
        return (
            f"Decay has left {statistics.effective_rows:.6g} rows. After {fitted.design.rank} coefficients, less than "
            "one row "
            "remains to estimate their error from."
        )
    if is_essentially_perfect(statistics, fitted, residual_norms).any():
        return ESSENTIALLY_PERFECT
    return None


def is_essentially_perfect(
    statistics: SufficientStatistics, fitted: Fit, residual_norms: Array | None = None
) -> NDArray[np.bool_]:
    """Return for each target, (k,), whether its residuals are no larger than rounding errors of its terms.

    The root mean square of the residuals is compared with that of the target, and with each coefficient times the root
    mean square of its column about the shift. R warns of an "essentially perfect fit" by a similar rule.
    """
    p, root_weight = statistics.features, np.sqrt(statistics.total_weight)
    columns = column_norms(statistics.factor[:, 1 : p + 1]) * statistics.scale[:p] / root_weight
    targets = np.hypot(statistics.mean[p:], statistics.total_norms() / root_weight)
    residuals = (fitted.residual_norms if residual_norms is None else residual_norms) / root_weight
    return np.asarray(residuals <= PERFECT * (targets + np.abs(fitted.coef) @ columns))


def is_optimal(residual_norms: Array, statistics: SufficientStatistics, optimum: Fit) -> bool:
    """Return whether no prediction differs from the optimum's by more than 1 % of its own standard error.

    If the excess over the optimum's residual sum of squares is E s^2, no prediction is further from the optimum's than
    sqrt(E) of its own standard error (Cauchy-Schwarz in the metric of the cross products).
    """
    freedom = statistics.effective_rows - optimum.design.rank
    best = optimum.residual_norms
    excess = (residual_norms - best) * (residual_norms + best)
    return bool((excess * freedom <= MAX_EXCESS_RSS_RATIO * best**2).all())
