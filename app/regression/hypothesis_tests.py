"""What classical theory says of a fitted model (Greene, Econometric Analysis, ch. 4 and 5)."""

from dataclasses import dataclass

import numpy as np

from app.regression.linear_model import LinearModel
from app.regression.metrics import TINY
from app.regression.sufficient_statistics import EPSILON, Array


@dataclass(frozen=True, eq=False)
class Inference:
    """Inference of an unpenalised fit. Arrays by coefficient are (k, 1 + p), the intercept first.

    NaN for a coefficient that is not identifiable: its unit vector does not lie in the row space of the design, so that
    the rows determine only sums in which it takes part (Searle, Linear Models, 1971, 5.4). R's lm drops the later of
    two dependent columns instead, and gives the earlier one a standard error that holds for that choice alone.

    If the model has no intercept, its column holds zeros, and NaN for t and p.
    """

    standard_errors: Array
    t_values: Array
    p_values: Array
    lower: Array  # of the confidence interval
    upper: Array
    residual_deviation: Array  # (k,), the estimate s
    f_values: Array  # (k,), of all coefficients but the intercept together
    f_p_values: Array  # (k,); NaN if there are no other coefficients
    degrees_of_freedom: float


def infer(model: LinearModel, *, level: float = 0.95) -> Inference:
    """Return standard errors, t, p, confidence intervals of this level, and F.

    `inference_unavailable` has to be None.
    """
    from scipy.special import fdtrc, stdtr, stdtrit  # a quarter of a second and 25 MB, for those who want inference

    assert model.unscaled_errors is not None
    freedom = model.degrees_of_freedom
    p = model.rank - model.has_intercept
    # In units of an observation of weight 1; the mean weight brings it to an ordinary observation's. In longdouble,
    # because each product of rounded roots would cost the last digit again.
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
    """Return 1 / (1 - R_j^2) for each column, R_j^2 that of its regression on the others, (p,); NaN as in Inference.

    Without an intercept, R_j^2 is about zero. statsmodels' variance_inflation_factor gives the same with
    standardize=False for columns without a constant. Rows count by their weights.
    """
    design = model.design
    if model.unscaled_errors is None:
        return np.asarray(design.unit_errors**2)
    # More accurate than the design's if the fit was refined.
    return np.asarray((model.unscaled_errors[1:] * design.norms) ** 2)


def covariances(model: LinearModel, inference: Inference) -> Array:
    """Return s^2 (X'WX)^-1 for each target, (k, 1 + p, 1 + p), the intercept first; NaN as in Inference.

    They are the correlations of the coefficients times the standard errors, so that the diagonal agrees with these. NaN
    too for a value that leaves the range in which float64 has all its digits.
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
        found = errors[:, :, np.newaxis] * correlations * errors[:, np.newaxis, :]
    lost = ~np.isfinite(found) | ((np.abs(found) < TINY) & (np.abs(correlations) > EPSILON))
    return np.where(lost, np.nan, found)
