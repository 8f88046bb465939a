"""What classical theory says of a fitted model (Greene, Econometric Analysis, ch. 4 and 5)."""

from dataclasses import dataclass

import numpy as np

from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array


@dataclass(frozen=True, eq=False)
class Inference:
    """Of a full-rank, unpenalised fit. Arrays by coefficient are (k, 1 + p), the intercept first.

    Where the model has no intercept, its column holds zeros, and NaN for t and p.
    """

    standard_errors: Array
    t_values: Array
    p_values: Array
    lower: Array  # of the confidence interval
    upper: Array
    residual_deviation: Array  # (k,), the estimate s
    f_values: Array  # (k,), of all coefficients but the intercept together
    f_p_values: Array  # (k,)
    degrees_of_freedom: float


def infer(model: LinearModel, *, level: float = 0.95) -> Inference:
    """Standard errors, t, p, confidence intervals of this level, and F, for a model whose `no_intervals` is None."""
    from scipy.special import fdtrc, stdtr, stdtrit  # a quarter of a second and 25 MB, for those who want inference

    assert model.unscaled_errors is not None
    freedom = model.degrees_of_freedom
    p = model.rank - model.has_intercept
    # In units of an observation of weight 1; the mean weight brings it to an ordinary observation's.
    deviation = model.residual_norms / np.sqrt(freedom)
    coefficients = np.column_stack([model.intercept, model.weights])
    errors = np.outer(deviation, model.unscaled_errors)
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
        residual_deviation=deviation / np.sqrt(model.statistics.mean_weight),
        f_values=f,
        f_p_values=fdtrc(p, freedom, f),
        degrees_of_freedom=freedom,
    )
