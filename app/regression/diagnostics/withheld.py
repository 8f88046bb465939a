"""Reasons why parts of the diagnostics are withheld."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.regression.design import Design
from app.regression.diagnostics.lens import ALLOWED_ERROR, LEVERAGE_ERROR
from app.regression.fit import FitResult
from app.regression.least_squares import ESSENTIALLY_PERFECT, is_essentially_perfect
from app.regression.linear_model import LinearModel

PERFECT = "The residuals of this target are zero or rounding errors."
PENALISED = "The fit has a penalty, for which the classical formulas do not hold."
COLLINEAR = "The columns are so nearly collinear that the leverage of a row is not known to six digits."
COLLINEAR_DEVIATIONS = "The deviations of the columns from their means are too nearly collinear."
NO_COEFFICIENT = "The rows determine no coefficient."
INACCURATE = "The rounding errors of the residuals change their sum of squares by more than one part in a million."
INACCURATE_LEVERAGE = "The rounding errors of the leverages change their sum by more than one part in a million."
ALONE = "Each row determines a coefficient alone, so no residual is left to standardise."
NO_ORDER = "Frequency weights count repeated observations, which have no order."
NO_NUMBERS = "No column of numbers has a coefficient that the rows determine."
NO_VARIANCE = "The squared residuals do not vary, so there is no variance to explain."
NOTHING_VARIES = "No column varies."
NO_FREEDOM = "The rows leave no degrees of freedom to explain the squared residuals."
UNCERTAIN_RANK = "Without their weights, the columns are too nearly collinear."
WITHOUT_ERROR = "The columns explain the squared residuals exactly, so the F statistic is infinite."
NOT_FINITE = "A number of this part is too large for a 64-bit float."
OTHER_ROWS = "The rows that were read again are not those of the fit."


@dataclass(frozen=True)
class Withheld:
    """In place of a part of the diagnostics: the reason, a sentence, why it is not given."""

    reason: str


def is_finite(value: Any) -> bool:
    """Return True if all numbers of a part of the diagnostics are finite."""
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, list):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def why_no_leverage(design: Design, *, is_penalised: bool) -> str | None:
    """Return the reason why the leverage of a row is not given; None if it is."""
    if is_penalised:
        return PENALISED
    if not design.rank:
        return NO_COEFFICIENT
    return COLLINEAR if LEVERAGE_ERROR * design.condition_number > ALLOWED_ERROR else None


def why_no_standardising(model: LinearModel) -> str | None:
    """Return the reason why residuals are not standardised; None if they are.

    If some targets fit perfectly, inference is unavailable although it is valid for the others.
    """
    reason = model.inference_unavailable
    return None if reason == ESSENTIALLY_PERFECT else reason


def why_no_residuals(result: FitResult, targets: Iterable[int]) -> dict[int, str]:
    """Return those of the targets whose residuals are not known, each with the reason."""
    model, found = result.model, dict[int, str]()
    perfect = is_essentially_perfect(model.statistics, result.optimum, model.residual_norms)
    for target in targets:
        if np.isnan(model.residual_norms[target]):
            found[target] = model.inference_unavailable or INACCURATE
        elif perfect[target]:
            found[target] = PERFECT
    return found
