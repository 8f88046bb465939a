"""Coefficients from elsewhere, judged by the statistics of their training rows."""

import numpy as np

from app.regression.least_squares import fit, is_essentially_perfect, is_optimal, why_no_inference
from app.regression.precision import check_precision, precision_bounds
from app.regression.solvers.base import Solution
from app.regression.solvers.exact import Exact
from app.regression.sufficient_statistics import Array, SufficientStatistics

NOT_OPTIMAL = "The imported coefficients are not the least-squares optimum of the imported statistics."


def judge(
    statistics: SufficientStatistics,
    coef: Array,
    intercept: Array,
    centre_prediction: Array | None,
    *,
    l2: float = 0.0,
    fit_intercept: bool = True,
) -> Solution:
    """Return the coefficients with the residuals that they leave, and with inference if they are the optimum.

    `centre_prediction` is the prediction at the shift of the statistics, if it is known to more digits than the
    intercept gives. Raises FitError as the exact solver does.
    """
    solver = Exact(l2=l2, fit_intercept=fit_intercept)
    optimum = fit(statistics, solver)
    bounds = precision_bounds(statistics, optimum, l2=l2)
    withheld = check_precision(statistics, bounds)
    shift = statistics.shift[: statistics.features]
    centre = None if centre_prediction is None else shift
    norms = statistics.residual_norms(coef, intercept if centre_prediction is None else centre_prediction, centre)
    reason = withheld or why_no_inference(statistics, optimum, solver, optimum.residual_norms)
    if reason is None and is_essentially_perfect(statistics, optimum, norms).any():
        reason = why_no_inference(statistics, optimum, solver, norms)
    if reason is None and not is_optimal(norms, statistics, optimum):
        reason = NOT_OPTIMAL
    return Solution(
        coef,
        intercept,
        coef @ shift + intercept if centre_prediction is None else centre_prediction,
        np.full_like(norms, np.nan) if withheld else norms,
        optimum.unscaled_errors if reason is None else None,
        optimum,
        reason,
        bounds=bounds,
    )
