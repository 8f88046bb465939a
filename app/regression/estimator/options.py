"""Parameters of the estimator to the solver and the terms of a fit, with a check of each."""

import operator
from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from app.regression.errors import InvalidOption, InvalidTerms
from app.regression.solvers import SOLVER_OF_KIND, Exact, GradientDescent, Solver, Start
from app.regression.sufficient_statistics import WeightKind
from app.regression.terms import parse_terms

if TYPE_CHECKING:
    from app.regression.estimator.regressor import LinearRegressor

# How a bound of an option is checked, and how a message states it.
COMPARISONS: dict[type, tuple[Any, str]] = {
    Ge: (operator.ge, "at least"),
    Gt: (operator.gt, "above"),
    Le: (operator.le, "at most"),
    Lt: (operator.lt, "below"),
}


def chosen_solver(estimator: "LinearRegressor") -> Solver:
    """Return the solver of an estimator's parameters. Raises InvalidOption."""
    solver = estimator.solver
    if isinstance(solver, str) and solver not in SOLVER_OF_KIND:
        raise InvalidOption("solver", f"There is no solver {solver!r}: {', '.join(SOLVER_OF_KIND)}.")
    if solver == "exact":
        # An update or a forget has the penalty that was chosen before.
        chosen = getattr(getattr(estimator, "solver_", None), "l2", 0.0)
        l2 = chosen if estimator.l2 == "auto" else _penalty(estimator.l2)
        return Exact(l2=l2, fit_intercept=bool(estimator.fit_intercept))
    if estimator.l2 != 0 or not estimator.fit_intercept:
        raise InvalidOption("solver", 'l2 and fit_intercept need solver="exact", or belong to the solver object.')
    if isinstance(solver, str):
        return SOLVER_OF_KIND[solver]()
    _check_bounds(solver)
    return _with_start(solver, estimator) if isinstance(solver, GradientDescent) else solver


def _penalty(l2: Any) -> float:
    if isinstance(l2, str) or not 0 <= l2 < np.inf:
        raise InvalidOption("l2", f'l2 is {l2!r}, expected "auto" or a number of at least 0.')
    return float(l2)


def _check_bounds(solver: Solver) -> None:
    """Raise InvalidOption unless each option of the solver is within the bounds that its annotation states."""
    for name, annotation in get_type_hints(type(solver), include_extras=True).items():
        metadata = [item for part in (annotation, *get_args(annotation)) for item in getattr(part, "__metadata__", ())]
        limits = [(*COMPARISONS[type(item)], *astuple(item)) for item in metadata if type(item) in COMPARISONS]
        value = getattr(solver, name)
        if value is not None and not all(holds(value, limit) for holds, _, limit in limits):
            expected = " and ".join(f"{words} {limit}" for _, words, limit in limits)
            raise InvalidOption(name, f"{name} is {value!r}, expected a number {expected}.")


def _with_start(solver: GradientDescent, estimator: "LinearRegressor") -> GradientDescent:
    """Return the solver with the coefficients of the estimator if it starts from the current ones."""
    if solver.start == "current":
        model = estimator.fitted_model()
        return replace(solver, start=Start(weights=model.coef.tolist(), intercept=model.intercept.tolist()))
    if isinstance(solver.start, Start) and solver.start.version is not None:
        raise InvalidOption("start", 'An estimator has no versions: start from "current", or from weights.')
    return solver


def checked_share(value: float, name: str) -> float:
    """Return a share of weights. Raises InvalidOption if it is not in (0, 1]."""
    if not 0 < value <= 1:
        raise InvalidOption(name, f"{name} is {value}, expected a number above 0 and at most 1.")
    return value


def checked_weight_kind(value: WeightKind) -> WeightKind:
    """Return the kind of weights. Raises InvalidOption if there is no such kind."""
    if value not in get_args(WeightKind):
        raise InvalidOption("weight_kind", f"weight_kind is {value!r}, expected one of {get_args(WeightKind)}.")
    return value


def checked_terms(terms: Sequence[str] | None, features: Sequence[str]) -> tuple[str, ...]:
    """Return the terms. Raises InvalidOption, with each term that cannot be made from the features."""
    if isinstance(terms, str):
        raise InvalidOption("terms", f"terms is {terms!r}, expected a list of terms.")
    names = tuple(terms or ())
    try:
        parse_terms(names, features)
    except InvalidTerms as error:
        faults = " ".join(f"{names[fault.term_index]!r}: {fault.message}" for fault in error.faults)
        raise InvalidOption("terms", f"{error.message} {faults}") from None
    return names
