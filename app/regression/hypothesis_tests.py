"""Classical inference for a fitted model: standard errors, t and F tests, confidence intervals.

Source: Greene, Econometric Analysis, 7th ed., chapters 4 and 5.
"""

from dataclasses import dataclass

import numpy as np

from app.regression.linear_model import LinearModel
from app.regression.metrics import TINY
from app.regression.sufficient_statistics import EPSILON, Array


@dataclass(frozen=True, eq=False)
class Inference:
    """Inference for k targets and p columns. Arrays by coefficient are (k, 1 + p), intercept first.

    They are NaN for a coefficient that is not identifiable: the rows determine only sums that contain it (Searle,
    Linear Models, 1971, 5.4). R's lm drops the later of two dependent columns instead, and its standard error for the
    earlier one is valid for that choice only. Without an intercept, its column is 0, with NaN for t and p.
    """

    standard_errors: Array
    t_values: Array
    p_values: Array
    lower: Array  # bounds of the confidence interval
    upper: Array
    residual_deviation: Array  # (k,), s
    f_values: Array  # (k,), for all coefficients except the intercept together
    f_p_values: Array  # (k,); NaN if there are no such coefficients
    degrees_of_freedom: float


def infer(model: LinearModel, *, level: float = 0.95) -> Inference:
    """Return inference with confidence intervals of this level, for a model whose `inference_unavailable` is None."""
    from scipy.special import fdtrc, stdtr, stdtrit  # a quarter of a second and 25 MB, only for inference

    assert model.unscaled_errors is not None
    freedom = model.degrees_of_freedom
    p = model.rank - model.has_intercept
    # For an observation of weight 1. In longdouble, since each product of rounded roots would cost the last digit.
    deviation = model.residual_norms / np.sqrt(np.longdouble(freedom))
    coefficients = np.column_stack([model.intercept, model.coef])
    errors = np.outer(deviation, model.unscaled_errors).astype(np.float64)
    total = model.statistics.total_norms(centred=model.has_intercept)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = coefficients / errors
        ratio = total / model.residual_norms
        f = np.maximum((ratio - 1) * (ratio + 1), 0.0) * freedom / p
    half = -stdtrit(freedom, (1 - level) / 2) * errors
    return Inference(
        standard_errors=errors,
        t_values=t,
        p_values=2 * stdtr(freedom, -np.abs(t)),
        lower=coefficients - half,
        upper=coefficients + half,
        residual_deviation=(deviation / np.sqrt(model.statistics.mean_weight)).astype(np.float64),
        f_values=f,
        f_p_values=fdtrc(p, freedom, f),
        degrees_of_freedom=freedom,
    )


def variance_inflation(model: LinearModel) -> Array:
    """Return 1 / (1 - R_j^2) for each column, (p,), with R_j^2 that of its regression on the others.

    NaN for a column whose coefficient is not identifiable. Without an intercept, R_j^2 is about zero. Rows count by
    their weights. statsmodels' variance_inflation_factor with standardize=False gives the same for columns without a
    constant. Source: Belsley, Kuh and Welsch, Regression Diagnostics, 1980, 3.2.
    """
    design = model.design
    if model.unscaled_errors is None:
        return np.asarray(design.unit_errors**2)
    # More accurate than the design's if the fit was refined.
    return np.asarray((model.unscaled_errors[1:] * design.norms) ** 2)


def covariances(model: LinearModel, inference: Inference) -> Array:
    """Return s^2 (X'WX)^-1 for each target, (k, 1 + p, 1 + p), intercept first; NaN as in `Inference`.

    They are the correlations of the coefficients times the standard errors, so that the diagonal agrees with these. NaN
    also for a value outside the range in which float64 has all its digits.
    """
    design, statistics = model.design, model.statistics
    root = design.unit_root()
    p, rank = root.shape
    rows = np.zeros((1 + p, 1 + rank))
    rows[1:, 1:] = root
    if model.has_intercept:
        to_zero = statistics.mean[:p] / np.where(design.norms > 0, design.norms, 1.0)
        rows[0] = [1 / np.sqrt(statistics.total_weight), *(-to_zero @ root)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        correlations, errors = rows @ rows.T, inference.standard_errors
        products = errors[:, :, np.newaxis] * correlations * errors[:, np.newaxis, :]
    lost = ~np.isfinite(products) | ((np.abs(products) < TINY) & (np.abs(correlations) > EPSILON))
    return np.where(lost, np.nan, products)
