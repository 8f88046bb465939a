"""The summary table of a fitted model, with the numbers that R's summary.lm and statsmodels print."""

from collections.abc import Iterator

import numpy as np

from app.regression.hypothesis_tests import Inference, infer
from app.regression.linear_model import LinearModel
from app.regression.metrics import likelihood, training_metrics, why_no_likelihood
from app.regression.sufficient_statistics import Array

WITHHELD = "-"  # Shown in place of a number that is withheld.
MAX_NAME_WIDTH = 30  # Characters of a coefficient's name.
NUMBER_WIDTH = 12


class Summary(str):
    """Text that an interactive session shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def summarise_model(model: LinearModel, title: str, *, level: float = 0.95) -> Summary:
    """Return a table for each target: fit statistics, then coefficients with confidence intervals of this level.

    A number that is withheld is shown as "-", with the reason below the table.
    """
    inference = infer(model, level=level) if model.inference_unavailable is None else None
    lines = [title]
    for target in range(len(model.targets)):
        lines += ["", f"Target: {model.targets[target]}"]
        lines += _statistics(model, inference, target)
        lines += ["", *_coefficients(model, inference, target, level)]
    lines += ["", *_notes(model)]
    return Summary("\n".join(lines).rstrip())


def _statistics(model: LinearModel, inference: Inference | None, target: int) -> Iterator[str]:
    metrics = training_metrics(
        model.statistics, model.residual_norms, rank=model.rank, fit_intercept=model.has_intercept
    )
    values = {
        "Observations": f"{model.statistics.effective_rows:g}",
        "R-squared": _number(metrics.r2[target]),
        "Residual df": f"{model.degrees_of_freedom:g}",
        "Adjusted R-squared": _number(metrics.adjusted_r2[target]),
        "Rank": str(model.rank),
        "RMSE": _number(metrics.rmse[target]),
        "Residual std error": WITHHELD,
        "Log-likelihood": WITHHELD,
        f"F ({model.rank - model.has_intercept}, {model.degrees_of_freedom:g})": WITHHELD,
        "AIC": WITHHELD,
        "Prob (F)": WITHHELD,
        "BIC": WITHHELD,
    }
    labels = list(values)
    if inference is not None:
        values["Residual std error"] = _number(inference.residual_deviation[target])
        values[labels[8]] = _number(inference.f_values[target])
        values["Prob (F)"] = _number(inference.f_p_values[target])
        if why_no_likelihood(model.statistics) is None:
            criteria = likelihood(model)
            values["Log-likelihood"] = _number(criteria.log_likelihood[target])
            values["AIC"], values["BIC"] = _number(criteria.aic[target]), _number(criteria.bic[target])
    for left, right in zip(labels[::2], labels[1::2], strict=True):
        yield f"  {left:20}{values[left]:>{NUMBER_WIDTH}}    {right:20}{values[right]:>{NUMBER_WIDTH}}"


def _coefficients(model: LinearModel, inference: Inference | None, target: int, level: float) -> Iterator[str]:
    names = ["intercept"] * model.has_intercept + [name[:MAX_NAME_WIDTH] for name in model.columns]
    width = max(map(len, names))
    tail = (1 - level) / 2
    headings = ["coef", "std err", "t", "P>|t|", f"[{tail:.5g}", f"{1 - tail:.5g}]"]
    yield " " * width + "".join(f"{heading:>{NUMBER_WIDTH}}" for heading in headings)
    first = 0 if model.has_intercept else 1
    values: list[Array | None] = [np.concatenate([[model.intercept[target]], model.coef[target]]), *[None] * 5]
    if inference is not None:
        arrays = (inference.standard_errors, inference.t_values, inference.p_values, inference.lower, inference.upper)
        values[1:] = [array[target] for array in arrays]
    for index, name in enumerate(names, first):
        numbers = (_number(None if column is None else column[index]) for column in values)
        yield f"{name:{width}}" + "".join(f"{number:>{NUMBER_WIDTH}}" for number in numbers)


def _number(value: float | np.floating | None) -> str:
    return WITHHELD if value is None or np.isnan(value) else f"{value:.5g}"


def _notes(model: LinearModel) -> Iterator[str]:
    if model.inference_unavailable is not None:
        yield f"Withheld: {model.inference_unavailable}"
    elif (reason := why_no_likelihood(model.statistics)) is not None:
        yield f"Likelihood withheld: {reason}"
    coefficients = len(model.columns) + model.has_intercept
    if model.rank < coefficients:
        yield f"The rows determine only {model.rank} of {coefficients} coefficients."
    if not model.has_intercept:
        yield "R-squared and F are about zero, since the model has no intercept."
