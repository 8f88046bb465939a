"""Changes of coefficients between two models, measured in standard errors."""

from typing import NamedTuple

import numpy as np

from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array


class Coefficients(NamedTuple):
    """The coefficients of one target, (1 + p,), the intercept first."""

    values: Array
    standard_errors: Array  # NaN if unknown


def coefficients(model: LinearModel, target: str) -> Coefficients:
    """Return the coefficients of a target with their standard errors, as `hypothesis_tests.infer` computes them."""
    place = model.targets.index(target)
    values = np.array([model.intercept[place], *model.coef[place]])
    if model.inference_unavailable is not None or model.unscaled_errors is None:
        return Coefficients(values, np.full(len(values), np.nan))
    deviation = model.residual_norms[place] / np.sqrt(np.longdouble(model.degrees_of_freedom))
    return Coefficients(values, (deviation * model.unscaled_errors).astype(np.float64))


def change_in_standard_errors(base: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return other - base, and that difference divided by the standard error of `base`; NaN if it has none.

    `base` and `other` are a coefficient and its standard error. The standard error of the difference itself is unknown:
    two versions usually share rows, so their coefficients are correlated, and the root of the sum of squares would be
    too large. Divided by the error of the base, the difference is the distance that the estimate moved on the scale of
    its own uncertainty. It is not a test.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        difference = np.float64(other[0]) - np.float64(base[0])
        ratio = difference / np.float64(base[1]) if base[1] > 0 else np.float64(np.nan)
    return float(difference), float(ratio)
