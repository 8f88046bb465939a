"""Bounds of the errors that rows taken out of the statistics leave in a fit.

A sum of squares from which most was subtracted keeps the rounding errors of the large sum. The bounds here compare the
remaining sums with the largest sums that the statistics ever held.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr, solve_triangular

from app.regression.design import RANK_TOLERANCE
from app.regression.errors import InvalidData
from app.regression.least_squares import Fit
from app.regression.sufficient_statistics import PRECISION_UNKNOWN, Array, SufficientStatistics, column_norms

WITHHELD_FROM = 1e-6  # Relative error bound above which sums of squares and squared standard errors are withheld.
FAILED_FROM = 1e-3  # Error of a coefficient, in its standard errors, above which a fit fails.
# Error of a coefficient, in deviations of the target per deviation of the feature, that is always accepted, because the
# standard errors of an essentially perfect fit are rounding errors themselves.
NEGLIGIBLE = 1e-9

PRECISION_LOST = "Too many digits were lost when rows were forgotten. Train the model again from the rows that remain."
RESIDUALS_UNKNOWN = (
    "Too many rows were forgotten: sums of squares or standard errors of this version may be off by more than one part "
    "in a million. Train the model again from the rows that remain."
)


def pivoted_factor(factor: Array) -> tuple[Array, NDArray[np.intp], int]:
    """Return R, the column order and the rank of a QR decomposition with column pivoting, of columns at unit norm.

    Source: Golub and Van Loan, Matrix Computations, 4th ed., 5.4.2.
    """
    pivoted, order = qr(factor, mode="r", pivoting=True)
    diagonal = np.abs(pivoted.diagonal())
    return pivoted, order, int((diagonal > RANK_TOLERANCE * len(diagonal) * diagonal[0]).sum())


def precision_loss(statistics: SufficientStatistics) -> float:
    """Return the largest ratio, over all directions of [1, x, y], of the sum of squares ever held to the present one.

    The ratio is 1 if no row was taken out, and infinite if a direction was lost. Rows that are added lower it, and
    decay does not change it.
    """
    if statistics.removed is None:
        return 1.0
    norms = column_norms(statistics.cumulative_factor)
    norms = np.where(norms > 0, norms, 1.0)
    pivoted, order, rank = pivoted_factor(statistics.cumulative_factor / norms)
    remaining = (statistics.factor / norms)[:, order[:rank]]
    shares = np.linalg.svd(solve_triangular(pivoted[:rank, :rank], remaining.T, trans="T"), compute_uv=False)
    least = float(shares[-1]) ** 2
    return 1 / least if least > 0 else np.inf


@dataclass(frozen=True, eq=False)
class PrecisionBounds:
    """Bounds of the errors of a fit that come from rows taken out of its statistics."""

    rss: Array  # (k,), relative error of the residual sums of squares
    tss: Array  # (k,), relative error of the total sums of squares
    coefficients: Array  # (k, 1 + p), error in standard errors, intercept first; NaN if not identifiable
    standard_errors: Array  # (1 + p,), relative error of the squares of `Fit.unscaled_errors`; NaN if not identifiable
    unusable: bool  # True if the error of a coefficient exceeds FAILED_FROM and is not NEGLIGIBLE

    @property
    def withheld(self) -> bool:
        """Return True if a relative error of a sum of squares or standard error may exceed WITHHELD_FROM."""
        bounds = np.concatenate([self.rss, self.tss, self.standard_errors])
        return bool((bounds[~np.isnan(bounds)] > WITHHELD_FROM).any())


@dataclass(frozen=True, eq=False)
class GramError:
    """Bounds of the errors of quadratic forms a'Gb of the Gram matrix G = R'R.

    Each column of R has the relative error `relative` in the corresponding column of the cumulative factor H. Then a'Gb
    is off by at most relative * (|Ha| S(b) + |Hb| S(a)), with S(a) = sum of |a_j| |H_j|.
    """

    cumulative: Array  # H, (d, d)
    sizes: Array  # (d,), norm of each column of H
    relative: float

    @classmethod
    def of(cls, statistics: SufficientStatistics, *, intercept: bool) -> "GramError":
        sizes = column_norms(statistics.cumulative_factor)
        if not intercept:  # the columns about zero are rounded too
            sizes[1:] += np.abs(statistics.shift / statistics.scale) * sizes[0]
        return cls(statistics.cumulative_factor, sizes, statistics.factor_error)

    def bound(self, a: Array, b: Array) -> Array:
        """Return the bound, (m, n), for each pair of a column of a, (d, m), and a column of b, (d, n)."""
        (ha, sa), (hb, sb) = self._norms(a), self._norms(b)
        return self.relative * (np.outer(ha, sb) + np.outer(sa, hb))

    def _norms(self, a: Array) -> tuple[Array, Array]:
        """Return |Ha| and S(a). Terms that cancel in Ha leave their rounding errors."""
        size = self.sizes @ np.abs(a)
        return column_norms(self.cumulative @ a) + self.relative * size, size

    def squares(self, a: Array) -> Array:
        """Return the bound for a'Ga of each column of a."""
        return self.bound(a, a).diagonal()


def precision_bounds(statistics: SufficientStatistics, fitted: Fit, *, l2: float = 0.0) -> PrecisionBounds | None:
    """Return the bounds for a fit of these statistics; None if no row was ever taken out of them.

    The RSS is v'Gv with v = (-intercept, -coef, 1). To first order a coefficient is off by u'dG v, with u its row of
    (X'X)^-1, and its standard error is the residual deviation times |Ru| (Stewart, Matrix Algorithms, 1998, 4.3, for
    perturbations of least squares). With a ridge penalty, u is the row of (X'X + penalty)^-1.
    """
    if statistics.removed is None:
        return None
    p, design = statistics.features, fitted.design
    gram = GramError.of(statistics, intercept=design.intercept)
    scale, units = statistics.scale[:p], statistics.scale[p:]
    residual, slopes = _residual_directions(statistics, fitted)
    # The direction of each column's deviation from its mean, or from zero.
    origin = (-statistics.offset if design.intercept else statistics.shift) / statistics.scale
    squares = gram.squares(np.vstack([origin, np.eye(len(origin))]))
    rss = fitted.residual_norms / units
    tss = statistics.total_norms(centred=design.intercept) / units
    inverse = _inverse_directions(statistics, fitted, l2=l2)
    off = gram.bound(residual, inverse)  # errors of the coefficients in scaled coordinates, (k, 1 + p)
    rss_error = gram.squares(residual)
    if l2 > 0:
        # The penalty depends on the deviations and has their errors. The RSS is not at its minimum.
        share = l2 / statistics.effective_rows
        off = off + share * np.abs(slopes) * squares[:p] @ np.abs(inverse[1 : p + 1])
        rss_error = rss_error + 2 * share * (off[:, 1:] * np.abs(slopes) * (design.norms / scale) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative_rss, relative_tss = rss_error / rss**2, squares[p:] / tss**2
        lengths = column_norms(statistics.factor @ inverse)
        # A coefficient is compared with the smallest standard error that agrees with the bounds of the RSS.
        freedom = max(statistics.effective_rows - design.rank, 1.0)
        relative = off / np.outer(rss * _certain_root(relative_rss) / np.sqrt(freedom), lengths)
        standard_errors = gram.squares(inverse) / lengths**2
        negligible = NEGLIGIBLE * _units_of_effect(statistics, fitted, tss * _certain_root(relative_tss))
        usable = np.isnan(relative) | (relative <= FAILED_FROM) | (off <= negligible)
    unknown = np.isnan(fitted.unscaled_errors)
    unknown[0] = not design.intercept
    return PrecisionBounds(
        rss=np.where(rss > 0, relative_rss, np.inf),
        tss=np.where(tss > 0, relative_tss, 0.0),
        coefficients=np.where(unknown, np.nan, relative),
        standard_errors=np.where(unknown, np.nan, standard_errors) if l2 == 0 else np.full(p + 1, np.nan),
        unusable=not bool(usable[:, ~unknown].all()),
    )


def _residual_directions(statistics: SufficientStatistics, fitted: Fit) -> tuple[Array, Array]:
    """Return v = (-intercept, -coef, 1), (1 + p + k, k), and coef, (k, p), in the coordinates of the factor."""
    p, k = statistics.features, statistics.targets
    scale, units = statistics.scale[:p], statistics.scale[p:]
    at_shift = (fitted.centre_prediction - statistics.shift[p:]) / units
    slopes = fitted.coef * scale / units[:, np.newaxis]
    if fitted.design.intercept:  # not rounded to the spacing of the targets
        at_shift = statistics.offset[p:] / units - slopes @ (statistics.offset[:p] / scale)
    return np.vstack([-at_shift, -slopes.T, np.eye(k)]), slopes


def _units_of_effect(statistics: SufficientStatistics, fitted: Fit, tss: Array) -> Array:
    """Return deviations of the target per deviation of each column, (k, 1 + p); of the target for the intercept."""
    root_weight = math.sqrt(statistics.total_weight)
    scale = statistics.scale[: statistics.features]
    spread = np.concatenate([[1.0], fitted.design.norms / scale / root_weight])
    return np.outer(tss / root_weight, 1 / spread)


def _certain_root(relative_error: Array) -> Array:
    """Return the square root of the certain share of a sum with this relative error."""
    return np.sqrt(np.maximum(1 - np.nan_to_num(relative_error, nan=1.0, posinf=1.0), 0.0))


def _inverse_directions(statistics: SufficientStatistics, fitted: Fit, *, l2: float) -> Array:
    """Return the columns of (X'X + penalty)^-1 for [1, x] in the factor's coordinates, (1 + p + k, 1 + p).

    The first column is that of the intercept, and zero if the model has none.
    """
    p, d = statistics.features, len(statistics.factor)
    to_zero = -statistics.shift[:p] / statistics.scale[:p]
    rows = statistics.factor
    if not fitted.design.intercept:
        rows = statistics.factor_about_zero
        rows[:, 0] = 0.0
    penalty = np.sqrt(l2 / statistics.effective_rows) * fitted.design.norms / statistics.scale[:p]
    rows = np.vstack([rows[:, : p + 1], np.diag(np.concatenate([[0.0], penalty]))])
    norms = column_norms(rows)
    norms = np.where(norms > 0, norms, 1.0)
    _, s, vt = np.linalg.svd(rows / norms)
    kept = s > RANK_TOLERANCE * len(s) * s[0]
    inverse = (vt[kept].T / s[kept] ** 2) @ vt[kept] / norms[:, np.newaxis] / norms
    directions = np.zeros((d, p + 1))
    directions[: p + 1] = inverse
    if fitted.design.intercept:
        directions[: p + 1, 0] += inverse[:, 1:] @ to_zero
    else:
        directions[0] = -to_zero @ inverse[1:]
    return directions


def check_precision(statistics: SufficientStatistics, bounds: PrecisionBounds | None) -> str | None:
    """Return the reason, a sentence, why the sums of squares of a fit with these bounds are withheld; None if not.

    Raises InvalidData if the bounds are unusable.
    """
    if statistics.untracked:
        return PRECISION_UNKNOWN
    if bounds is None:
        return None
    if bounds.unusable:
        raise InvalidData(PRECISION_LOST)
    return RESIDUALS_UNKNOWN if bounds.withheld else None
