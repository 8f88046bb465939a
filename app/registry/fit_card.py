"""The fields of a card that follow from a fit: metrics, bounds of errors, and warnings."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from app.regression.cross_validation import CrossValidation
from app.regression.dependencies import implicit_constant
from app.regression.design import Design
from app.regression.least_squares import ESSENTIALLY_PERFECT
from app.regression.linear_model import LinearModel
from app.regression.metrics import mean_square, training_metrics
from app.regression.precision import PrecisionBounds
from app.regression.solvers import Exact, GradientDescent, Solver
from app.regression.sufficient_statistics import Array

DIGITS = 16  # decimal digits of a 64-bit number
NEARLY_COLLINEAR = 1e8  # condition number above which half the digits of a coefficient may be lost
MAX_NAMES = 10  # columns that a warning lists


def metrics_of(
    model: LinearModel, design: Design, validation: CrossValidation | None, *, optimum_norms: Array | None = None
) -> dict[str, Any]:
    """Return the card's metrics; None for each that is not known.

    `optimum_norms` are the residual norms of the least-squares optimum, if the model may not be at it.
    """
    training = training_metrics(
        model.statistics, model.residual_norms, rank=design.rank, fit_intercept=model.has_intercept
    )
    by_target = zip(training.r2, training.adjusted_r2, training.rmse, strict=True)
    metrics: dict[str, Any] = {
        target: {"r2": _known(r2), "adjusted_r2": _known(adjusted), "rmse": _known(rmse)}
        for target, (r2, adjusted, rmse) in zip(model.targets, by_target, strict=True)
    }
    metrics["mse"] = _known(training.mse)
    metrics["r2_about"] = "mean" if model.has_intercept else "zero"
    if optimum_norms is not None:
        metrics["optimum_mse"] = _known(mean_square(optimum_norms / np.sqrt(model.statistics.total_weight)))
    if validation is not None:
        metrics["cross_validation"] = {
            target: {"r2": _known(r2), "rmse": _known(rmse)}
            for target, r2, rmse in zip(model.targets, validation.r2, validation.rmse, strict=True)
        } | {"mse": _known(mean_square(validation.rmse)), "folds": validation.folds}
    return metrics


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def bounds_of(bounds: PrecisionBounds | None, targets: Sequence[str]) -> dict[str, dict[str, float | None]] | None:
    """Return the card's bounds of the errors that rows taken out have left; None if no row was ever taken out."""
    if bounds is None:
        return None
    known = bounds.coefficients[:, ~np.isnan(bounds.coefficients).all(axis=0)]
    coefficients = np.nan_to_num(known, nan=np.inf).max(axis=1, initial=0.0)
    return {
        target: {"residual_sum": _known(residual), "coefficients": _known(coefficient)}
        for target, residual, coefficient in zip(targets, bounds.rss, coefficients, strict=True)
    }


def warnings_of(model: LinearModel, design: Design, solver: Solver, *, refined: bool) -> Iterator[str]:
    """Yield a sentence for each property of the fit that limits the use of its numbers.

    `refined` means that the coefficients were solved in higher precision than 64-bit numbers have.
    """
    if np.isnan(model.residual_norms).any() and model.inference_unavailable is not None:
        yield f"Metrics and inference are withheld. {model.inference_unavailable}"
    exact = isinstance(solver, Exact)
    column = "term" if model.terms else "feature"
    emptied = model.statistics.indicator_rows
    for index, (name, norm) in enumerate(zip(model.columns, design.norms, strict=True)):
        if emptied is not None and emptied[index] == 0:
            yield f'No row is left for the coefficient "{name}": it is not identifiable{" and 0" * exact}.'
        elif norm == 0:
            yield f'The {column} "{name}" is constant in these rows{"; its coefficient is 0" * exact}.'
    yield from _constant_targets(model)
    yield from _collinearity(model, design, solver, refined=refined)
    yield from _implicit_constant(model)
    if model.inference_unavailable == ESSENTIALLY_PERFECT:
        yield f"{ESSENTIALLY_PERFECT} Standard errors and the numbers that follow from them are withheld."


def _constant_targets(model: LinearModel) -> Iterator[str]:
    flat = model.statistics.total_norms(centred=model.has_intercept) == 0
    names = [name for name, constant in zip(model.targets, flat, strict=True) if constant]
    if names:
        subject = ("The target {} is", "The targets {} are")[len(names) > 1].format(_listed(names))
        yield (
            f"{subject} constant in these rows, so there is no variation to explain and R² is null. Check that this is "
            "the column to predict, and send rows in which it varies."
        )


def _collinearity(model: LinearModel, design: Design, solver: Solver, *, refined: bool) -> Iterator[str]:
    coefficients = len(model.columns) + design.intercept
    l2 = solver.l2 if isinstance(solver, Exact) else 0.0
    if design.rank < coefficients:
        chosen = ""
        if isinstance(solver, GradientDescent):
            chosen = " This is the solution that the descent reached from its start."
        elif isinstance(solver, Exact) and l2 == 0:
            chosen = " This is the solution with the smallest standardised coefficients."
        rows = model.statistics.rows
        reason = "features are collinear, or rows are too similar. Leave out features that follow from others."
        if rows < coefficients:
            reason = f"{rows} row(s) are too few. Send at least {coefficients}, and preferably many more."
        yield f"The rows determine only {design.rank} of {coefficients} coefficients: {reason}{chosen}"
        return
    condition = design.penalised_condition(l2)
    if condition <= NEARLY_COLLINEAR:
        return
    digits = min(int(np.ceil(np.log10(condition))), DIGITS)
    if not isinstance(solver, Exact):
        meaning = "very different coefficients fit these rows almost equally well."
    elif refined:
        meaning = (
            "the coefficients are accurate for exactly these values, but a change in the last of a value's "
            f"{DIGITS} digits may change about {digits} digits of a coefficient."
        )
    else:
        meaning = f"coefficients may have lost about {digits} of their {DIGITS} digits."
    yield f"The columns are nearly collinear (condition number {condition:.0e}): {meaning}"


def _implicit_constant(model: LinearModel) -> Iterator[str]:
    if model.has_intercept:
        return
    names = [model.columns[index] for index in implicit_constant(model.statistics)]
    if names:
        subject = ("The column {} is", "A weighted sum of the columns {} is")[len(names) > 1].format(_listed(names))
        yield (
            f"{subject} constant in these rows, so the model has an intercept although fit_intercept is false. R², "
            "adjusted R² and F are about zero. To get them about the mean, leave one of these columns out and train "
            "with fit_intercept true."
        )


def _listed(names: Sequence[str]) -> str:
    """Return the names in quotes, at most MAX_NAMES of them."""
    quoted = [f'"{name}"' for name in names[:MAX_NAMES]]
    if len(names) > MAX_NAMES:
        return f"{', '.join(quoted)} and {len(names) - MAX_NAMES} more"
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
