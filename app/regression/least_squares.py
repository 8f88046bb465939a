"""Exact least squares from sufficient statistics, and whether classical inference is valid for the result."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.regression.design import Design
from app.regression.errors import ColumnOutOfRange, ValuesTooLarge, ValuesTooSmall
from app.regression.solvers.exact import Exact
from app.regression.sufficient_statistics import EPSILON, Array, SufficientStatistics, column_norms, r_factor

# Largest excess of the RSS over the optimum's, relative to the residual variance, that counts as none: 1 % of a
# standard error, squared.
MAX_EXCESS_RSS_RATIO = 1e-4
# Largest root mean square of residuals, relative to that of their terms, that counts as rounding error.
PERFECT = 32 * EPSILON
# Fewest residual degrees of freedom for inference: 1, less the rounding error of a sum of decayed weights. With fewer,
# the bounds of an interval may overflow.
MIN_FREEDOM = 1 - 1e-9
# Largest size of the binary logarithms of column norms, and of ratios of a target's norm to a feature's. Within them,
# coefficients and standard errors have all the digits of float64.
LARGEST_NORM, LARGEST_RATIO = 960, 900
ORDINARY = (1e-100, 1e100)  # Range of column norms and total weights that are far from these limits.

ESSENTIALLY_PERFECT = "The fit is essentially perfect: the residuals are rounding errors."


@dataclass(frozen=True, eq=False)
class Fit:
    """The least-squares solution for k targets and p columns, and the design that determined it."""

    coef: Array  # (k, p)
    intercept: Array  # (k,)
    centre_prediction: Array  # (k,), prediction at the shift of the statistics, free of cancellation
    residual_norms: Array  # (k,), square root of the residual sum of squares (RSS)
    # (1 + p,), standard errors of the coefficients in units of the residual deviation, intercept first: square roots of
    # the diagonal of (X'WX)^-1. NaN for a coefficient that is not identifiable.
    unscaled_errors: Array
    design: Design


def fit(statistics: SufficientStatistics, solver: Exact) -> Fit:
    """Solve for all targets. If the rows do not determine all coefficients, return the minimum-norm solution.

    Raises ValuesTooLarge or ValuesTooSmall if a coefficient would leave the range of 64-bit numbers.
    """
    _check_range(statistics, fit_intercept=solver.fit_intercept)
    p = statistics.features
    design = Design.of(statistics, fit_intercept=solver.fit_intercept)
    shift, offset, units = statistics.shift, statistics.offset, statistics.scale[p:]
    if solver.fit_intercept:
        right = statistics.factor[1 : p + 1, p + 1 :]
        coef = (design.solve(right, l2=solver.l2) * units).T
        at_shift = offset[p:] - coef @ offset[:p]
        centre_prediction = shift[p:] + at_shift
        intercept = centre_prediction - coef @ shift[:p]
        distance = design.lengths((shift[:p] + offset[:p])[np.newaxis])[0]
        intercept_error = math.hypot(distance, 1 / math.sqrt(statistics.total_weight))
    else:
        right = r_factor(statistics.factor_about_zero[:, 1:])[:p, p:]
        coef = (design.solve(right, l2=solver.l2) * units).T
        centre_prediction = coef @ shift[:p]
        at_shift = centre_prediction - shift[p:]
        intercept, intercept_error = np.zeros(statistics.targets), 0.0
    if math.isinf(intercept_error):  # the intercept is not identifiable
        intercept_error = np.nan
    errors = np.concatenate([[intercept_error], design.coefficient_errors()])
    residual_norms = statistics.residual_norms_at_shift(coef, at_shift)
    return Fit(np.ascontiguousarray(coef), intercept, centre_prediction, residual_norms, errors, design)


def _check_range(statistics: SufficientStatistics, *, fit_intercept: bool) -> None:
    p, scale = statistics.features, statistics.scale
    norms = column_norms(statistics.factor[1:, 1:] if fit_intercept else statistics.factor_about_zero[:, 1:])
    low, high = ORDINARY
    in_own_units = norms * scale
    if ((in_own_units > low) & (in_own_units < high)).all() and low < statistics.total_weight < high:
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
    """Return the reason, a sentence, why classical inference is not valid for this fit; None if it is valid.

    `residual_norms` replace those of the fit if more accurate ones are known.
    """
    if solver.l2 > 0:
        return "The model was fitted with a ridge penalty, which biases its coefficients."
    rows, rank = statistics.effective_rows, fitted.design.rank
    if rows <= rank:
        return f"{rows:g} rows leave nothing to estimate the error of {rank} coefficients from."
    if rows - rank < MIN_FREEDOM:
        return (
            f"Decay has left {rows:.6g} rows. After {rank} coefficients, less than one row remains to estimate their "
            "error from."
        )
    if is_essentially_perfect(statistics, fitted, residual_norms).any():
        return ESSENTIALLY_PERFECT
    return None


def is_essentially_perfect(
    statistics: SufficientStatistics, fitted: Fit, residual_norms: Array | None = None
) -> NDArray[np.bool_]:
    """Return for each target, (k,), whether its residuals are no larger than the rounding errors of their terms.

    The root mean square of the residuals is compared with that of the target plus the sum, over columns, of the
    coefficient times the root mean square of the column about the shift. R's summary.lm warns of an "essentially
    perfect fit" by a similar rule.
    """
    p, root_weight = statistics.features, np.sqrt(statistics.total_weight)
    columns = column_norms(statistics.factor[:, 1 : p + 1]) * statistics.scale[:p] / root_weight
    targets = np.hypot(statistics.mean[p:], statistics.total_norms() / root_weight)
    residuals = (fitted.residual_norms if residual_norms is None else residual_norms) / root_weight
    return np.asarray(residuals <= PERFECT * (targets + np.abs(fitted.coef) @ columns))


def is_optimal(residual_norms: Array, statistics: SufficientStatistics, optimum: Fit) -> bool:
    """Return True if no prediction differs from the optimum's by more than 1 % of its standard error.

    If the RSS exceeds the optimum's by E s^2, no prediction differs from the optimum's by more than sqrt(E) of its
    standard error (Cauchy-Schwarz in the metric of the cross products).
    """
    freedom = statistics.effective_rows - optimum.design.rank
    best = optimum.residual_norms
    excess = (residual_norms - best) * (residual_norms + best)
    return bool((excess * freedom <= MAX_EXCESS_RSS_RATIO * best**2).all())
