"""The design matrix of a fit, reduced to its QR factor: rank, condition, solutions and unscaled standard errors."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.regression.sufficient_statistics import EPSILON, Array, SufficientStatistics, column_norms, r_factor

if TYPE_CHECKING:  # loads scipy
    from app.regression.rank_revealing import RankRevealing

# Largest singular value of unit-norm columns that counts as zero, relative to the largest one and per column.
RANK_TOLERANCE = 64 * EPSILON
# Largest part of a coefficient's unit vector outside the row space with which the coefficient is identifiable.
IDENTIFIABLE = 1e-8
WIDE = 300  # Number of columns above which a rank-revealing decomposition replaces the singular values.


class _Svd(NamedTuple):
    u: Array
    s: Array
    vt: Array
    kept: NDArray[np.bool_]  # singular values that are not zero to rounding


@dataclass(frozen=True, eq=False)
class Design:
    """A matrix A with A'A the cross products of the p columns, without the rows.

    With an intercept, the columns are deviations from their means. Rank decisions are made on columns at unit norm, so
    that the units of a feature do not matter.
    """

    unit_factor: Array  # (p, p), A with columns at unit norm; zero for a constant column
    norms: Array  # (p,), Euclidean norm of each column; 0 for a constant column
    centre: Array  # (p,), value of each constant column
    weight: float  # sum of the rows' weights
    effective_rows: float  # n, the unit of the ridge penalty
    intercept: bool

    @classmethod
    def of(cls, statistics: SufficientStatistics, *, fit_intercept: bool = True) -> "Design":
        """Return the design of the rows that `statistics` summarise, with or without an intercept."""
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
    def _revealed(self) -> "RankRevealing | None":
        """The decomposition of a wide design; None if the design is not wide, or if the rank is not clear from it."""
        p = len(self.norms)
        if p <= WIDE:
            return None
        from app.regression.rank_revealing import RankRevealing

        # The largest singular value of p columns at unit norm is between 1 and the root of p.
        tolerance = RANK_TOLERANCE * (p + 1)
        return RankRevealing.of(self.unit_factor, zero=tolerance, nonzero=tolerance * np.sqrt(p))

    @cached_property
    def _svd(self) -> _Svd:
        u, s, vt = np.linalg.svd(self.unit_factor)
        # One rank for all purposes: values that were computed without vectors may differ by rounding.
        return _Svd(u, s, vt, self.are_nonzero(vars(self).get("_singular_values", s)))

    @cached_property
    def _singular_values(self) -> Array:
        """The singular values, which take a third of the time of the whole decomposition."""
        return np.asarray(self._svd.s if "_svd" in vars(self) else np.linalg.svd(self.unit_factor, compute_uv=False))

    def are_nonzero(self, singular_values: Array) -> NDArray[np.bool_]:
        """Return which singular values of columns at unit norm are not zero to rounding. They are in descending order.

        The columns may be a subset of those of the design.
        """
        largest = singular_values.max(initial=0.0) or 1.0
        return np.asarray(singular_values > RANK_TOLERANCE * (len(self.norms) + 1) * largest)

    @property
    def is_decomposed(self) -> bool:
        """Return True if the design is decomposed already."""
        return "_svd" in vars(self) or vars(self).get("_revealed") is not None

    @property
    def _nonzero_singular_values(self) -> Array:
        return np.asarray(self._singular_values[self.are_nonzero(self._singular_values)])

    @property
    def rank(self) -> int:
        """Number of coefficients that the rows determine, including the intercept."""
        found = len(self._nonzero_singular_values) if self._revealed is None else self._revealed.rank
        return found + int(self.intercept)

    @cached_property
    def full_rank(self) -> bool:
        if self._revealed is not None:
            return self._revealed.rank == len(self.norms)
        return bool(self.are_nonzero(self._singular_values).all())

    @property
    def condition_number(self) -> float:
        """Largest singular value of the unit-norm columns over the smallest nonzero one; 1 if all are zero.

        Source: Belsley, Kuh and Welsch, Regression Diagnostics, 1980, 3.2.
        """
        return self.penalised_condition(0.0)

    def penalised_condition(self, l2: float) -> float:
        """Return the condition number with a ridge penalty, sqrt((s_1^2 + l2 / n) / (s_r^2 + l2 / n))."""
        nonzero = self._nonzero_singular_values if self._revealed is None else self._revealed.extremes
        s = np.hypot(nonzero, np.sqrt(l2 / self.effective_rows))
        return float(s[0] / s[-1]) if len(s) else 1.0

    @property
    def null_space(self) -> Array:
        """Orthonormal columns v, (p, p - r), with A v = 0 for A with columns at unit norm."""
        if self._revealed is not None:
            return self._revealed.null_space
        return np.asarray(self._svd.vt[~self._svd.kept].T)

    def solve(self, right: Array, *, l2: float = 0.0) -> Array:
        """Return the B, (p, k), that minimises |A B - right|, for right (p, k).

        If several B do, return the one whose coefficients of unit-norm columns have the smallest norm. With a penalty,
        B = V diag(s / (s^2 + l2 / n)) U' right over the nonzero singular values (Golub and Van Loan, Matrix
        Computations, 4th ed., 6.1.4). As l2 goes to 0, this tends to the minimum-norm solution.
        """
        norms = np.where(self.norms > 0, self.norms, 1.0)[:, np.newaxis]
        if self._revealed is not None:
            unit = self._revealed.solve(right, l2 / self.effective_rows)
        elif l2 == 0 and self.full_rank:
            unit = np.asarray(np.linalg.solve(self.unit_factor, right), dtype=np.float64)
        else:
            u, s, vt, kept = self._svd
            filtered = (u.T @ right)[kept] / (s[kept] + l2 / self.effective_rows / s[kept])[:, np.newaxis]
            unit = vt[kept].T @ filtered
        return np.asarray(np.where(self.norms[:, np.newaxis] > 0, unit, 0.0) / norms, dtype=np.float64)

    def effective_coefficients(self, l2: float) -> float:
        """Return the trace of the hat matrix: sum of s^2 / (s^2 + l2 / n), plus 1 for the intercept.

        Without a penalty this is the rank (Hastie, Tibshirani and Friedman, Elements of Statistical Learning, 2nd ed.,
        3.50).
        """
        if self._revealed is not None:
            return self._revealed.effective_rank(l2 / self.effective_rows) + self.intercept
        s = self._nonzero_singular_values
        return float((s**2 / (s**2 + l2 / self.effective_rows)).sum()) + self.intercept

    def whiten(self, deviations: Array) -> Array:
        """Return rows z with z'z = x'(A'A)^-1 x for rows x of `deviations`, (m, p); infinite if A does not span x."""
        if self.full_rank:
            unit = deviations / self.norms
            return np.asarray(
                unit @ self._svd.vt.T / self._svd.s if self._revealed is None else unit @ self.unit_root()
            )
        varying = self.norms > 0
        unit = np.where(varying, deviations, 0.0) / np.where(varying, self.norms, 1.0)
        if self._revealed is None:
            _, s, vt, kept = self._svd
            rotated = unit @ vt.T
            inside, lost = rotated[:, kept] / s[kept], rotated[:, ~kept]
        else:
            inside, lost = unit @ self.unit_root(), unit @ self.null_space
        # The training rows' own deviations are about 1 / sqrt(n) in these units. Smaller values are rounding errors.
        size = np.maximum(np.abs(unit).max(axis=1, initial=0.0), 1 / np.sqrt(self.weight))
        outside = np.abs(lost) > np.sqrt(EPSILON) * size[:, np.newaxis]
        rotated = np.hstack([inside, np.where(outside, np.inf, 0.0)])
        moved = ~varying & (np.abs(deviations) > np.sqrt(EPSILON) * np.abs(self.centre))
        rotated[moved.any(axis=1)] = np.inf
        return np.asarray(rotated)

    def lengths(self, deviations: Array) -> Array:
        """Return the norm of each row of `whiten(deviations)`, (m,). Nothing is decomposed if the rank is full."""
        if self.full_rank and self._revealed is None and not self.is_decomposed:
            whitened = np.linalg.solve(self.unit_factor.T, (deviations / self.norms).T)
        else:
            whitened = self.whiten(deviations).T
        outside = np.isinf(whitened).any(axis=0)
        return np.where(outside, np.inf, column_norms(np.where(outside, 0.0, whitened)))

    @cached_property
    def unit_errors(self) -> Array:
        """Square roots of the diagonal of (A'A)^-1 for columns at unit norm, (p,); NaN if not identifiable.

        A coefficient is identifiable if its unit vector is in the row space of the design (Searle, Linear Models,
        1971, 5.4). With an intercept, the squares are the variance inflation factors.
        """
        errors = np.sqrt((self.unit_root() ** 2).sum(axis=1))
        if self.full_rank:
            return np.asarray(errors)
        outside = np.sqrt((self.null_space.T**2).sum(axis=0))
        return np.where(outside <= IDENTIFIABLE, errors, np.nan)

    def unit_root(self) -> Array:
        """Return L, (p, r), with LL' the pseudo-inverse of A'A for columns at unit norm."""
        if self._revealed is not None:
            return self._revealed.root
        if self.full_rank:
            return np.asarray(np.linalg.solve(self.unit_factor, np.eye(len(self.norms))))
        _, s, vt, kept = self._svd
        return np.asarray((vt[kept] / s[kept, np.newaxis]).T)

    def coefficient_errors(self) -> Array:
        """Return standard errors in units of the residual deviation, (p,); NaN if not identifiable."""
        return np.asarray(self.unit_errors / np.where(self.norms > 0, self.norms, 1.0))
