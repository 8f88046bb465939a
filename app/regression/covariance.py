"""Compute the statistics of unknown rows from the covariance of the coefficients that were fitted to them.

Intervals and standard errors need no more than these. The rounding errors of the covariance are not bounded, so no row
can be added to the statistics or taken out of them.
"""

from typing import NamedTuple

import numpy as np

from app.regression.errors import InvalidData
from app.regression.sufficient_statistics import EPSILON, Array, SufficientStatistics, power_of_two

# Relative differences up to which two numbers of a covariance count as the same. Statistical programs print and store
# covariances with six digits or more.
TOLERANCE = 1e-6
MAX_ROWS = 2**53
NOT_POSITIVE = (
    "The covariance is not positive definite, or so nearly singular that its digits do not determine its inverse."
)
NOT_OF_ROWS = (
    "The covariance is not that of a fit to {rows:g} rows of equal weight: its rows would have a total weight of "
    "{weight:.6g}. If the rows had weights, add `weighted: true`. A robust covariance cannot be imported: give the one "
    "of classical theory, s^2 (X'X)^-1."
)


class LeastSquares(NamedTuple):
    """A least-squares fit to unknown rows: its coefficients and their covariance."""

    coef: Array  # (k, p)
    intercept: Array  # (k,)
    covariance: Array  # (k, 1 + p, 1 + p), of the intercept and the coefficients; without an intercept (k, p, p)
    residual_df: float
    rss: Array  # (k,)
    weighted: bool = False  # True if the rows had precision weights


def statistics_of(fit: LeastSquares, centre: Array | None = None) -> SufficientStatistics:
    """Return statistics from which the covariance follows. Their shift is `centre`, (p,), or else the mean.

    With an intercept, the covariance of target t is s_t^2 [1/W + m'Cm, -m'C; -Cm, C], with C the inverse of the
    centred cross products, m the means, W the total weight and s_t^2 = RSS_t / df (Greene, Econometric Analysis, 7th
    ed., 3.5 and 4.3.4). Cross products with the targets follow from the normal equations. The residuals of several
    targets count as uncorrelated, which no number of the service depends on. Without an intercept, the means count as
    zero, and the rows have no weights. Ranges are not known.

    Raises InvalidData if no least-squares fit has this covariance.
    """
    p = fit.coef.shape[1]
    has_intercept = fit.covariance.shape[1] == p + 1
    unscaled = _unscaled(fit)
    slopes = unscaled[-p:, -p:]
    root = _root(slopes)  # R^-1 with C = R^-1 R^-T
    rows = fit.residual_df + len(unscaled)
    means, weight = np.zeros(p), rows
    if has_intercept:
        means = -_solve(slopes, unscaled[1:, 0])
        weight = 1 / (unscaled[0, 0] + unscaled[0, 1:] @ means)
        if not (np.isfinite(weight) and weight > 0 and np.isfinite(means).all()):
            raise InvalidData(NOT_POSITIVE)
        if not fit.weighted:
            # The difference of two numbers has the rounding error of the larger one.
            tolerance = TOLERANCE * max(1.0, unscaled[0, 0] * weight)
            if abs(weight / rows - 1) > tolerance:
                raise InvalidData(NOT_OF_ROWS.format(rows=rows, weight=weight))
            weight = rows
    factor = np.asarray(np.linalg.solve(root, np.eye(p)), dtype=np.float64)
    shift = means if centre is None else centre
    return _statistics(fit, factor, means, shift, weight=weight, rows=rows)


def _statistics(
    fit: LeastSquares, factor: Array, means: Array, shift: Array, *, weight: float, rows: float
) -> SufficientStatistics:
    k, p = fit.coef.shape
    at_shift = fit.intercept + fit.coef @ shift
    spread = np.concatenate([np.abs(factor).max(axis=0), np.abs(factor @ fit.coef.T).max(axis=0)])
    scale = power_of_two(spread / np.sqrt(weight), np.ones(p + k))
    whole = np.zeros((1 + p + k, 1 + p + k))
    whole[0, 0] = np.sqrt(weight)
    whole[0, 1:] = whole[0, 0] * np.concatenate([means - shift, fit.coef @ (means - shift)]) / scale
    whole[1 : p + 1, 1 : p + 1] = factor / scale[:p]
    whole[1 : p + 1, p + 1 :] = factor @ fit.coef.T / scale[p:]
    whole[p + 1 :, p + 1 :] = np.diag(np.sqrt(fit.rss) / scale[p:])
    if not (np.isfinite(whole).all() and np.isfinite(at_shift).all()):
        raise InvalidData(NOT_POSITIVE)
    unknown = np.full(p, np.nan)
    return SufficientStatistics(
        features=p,
        rows=int(np.floor(rows)),
        effective_rows=float(rows),
        shift=np.concatenate([shift, at_shift]),
        scale=scale,
        factor=whole,
        minimum=unknown,
        maximum=unknown,
        log_weights=np.nan if fit.weighted else 0.0,
    )


def unscaled_errors(fit: LeastSquares) -> Array:
    """Return the standard errors in units of the residual deviation, (1 + p,), intercept first, as `Fit` has them."""
    errors = np.sqrt(_unscaled(fit).diagonal())
    return errors if len(errors) > fit.coef.shape[1] else np.concatenate([[0.0], errors])


def _unscaled(fit: LeastSquares) -> Array:
    """Return (X'WX)^-1, which is the same for all targets. Raises InvalidData if it is not."""
    if not (np.isfinite(fit.covariance).all() and np.isfinite(fit.rss).all() and np.isfinite(fit.residual_df)):
        raise InvalidData("The covariance, `rss` and `residual_df` have to be finite.")
    if not (fit.residual_df > 0 and fit.residual_df <= MAX_ROWS and (fit.rss > 0).all()):
        raise InvalidData("`residual_df` and each value of `rss` have to be positive.")
    with np.errstate(all="ignore"):
        each = fit.covariance * (fit.residual_df / fit.rss)[:, np.newaxis, np.newaxis]
        errors = np.sqrt(each.diagonal(axis1=1, axis2=2))
        size = errors[:, :, np.newaxis] * errors[:, np.newaxis, :]
    if not (np.isfinite(each).all() and np.isfinite(size).all() and (errors > 0).all()):
        raise InvalidData(NOT_POSITIVE)
    if (np.abs(each - each.transpose(0, 2, 1)) > TOLERANCE * size).any():
        raise InvalidData("The covariance is not symmetric.")
    if (np.abs(each - each[0]) > TOLERANCE * size).any():
        raise InvalidData(
            "The covariances of the targets do not belong to one fit: divided by rss / residual_df, they differ. "
            "Import the targets as models of their own."
        )
    return np.asarray((each[0] + each[0].T) / 2)


def _root(matrix: Array) -> Array:
    """Return the upper-triangular root U with UU' the matrix, which is symmetric. Raises InvalidData if it has none."""
    size = np.sqrt(matrix.diagonal())
    unit = matrix / size[:, np.newaxis] / size
    if not np.isfinite(unit).all() or np.linalg.eigvalsh(unit)[0] <= len(unit) * 4 * EPSILON:
        raise InvalidData(NOT_POSITIVE)
    backwards = np.linalg.cholesky(unit[::-1, ::-1])[::-1, ::-1]
    return np.asarray(backwards * size[:, np.newaxis])


def _solve(matrix: Array, right: Array) -> Array:
    """Return matrix^-1 right, for a symmetric matrix, with its rows and columns at unit size."""
    size = np.sqrt(matrix.diagonal())
    return np.asarray(np.linalg.solve(matrix / size[:, np.newaxis] / size, right / size) / size)
