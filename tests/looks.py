"""Fits of arrays and their diagnostics, without files."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.regression.diagnostics.diagnosis import Diagnosis, DiagnosisOptions
from app.regression.fit import ArrayData, FitResult, fit_model
from app.regression.solvers import Exact, Solver
from app.regression.sufficient_statistics import WeightKind
from app.regression.summary_plan import SummaryPlan
from app.regression.training_batch import TrainingBatch

Array = NDArray[np.float64]


def fit_of(
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    solver: Solver | None = None,
    kind: WeightKind = "precision",
    terms: tuple[str, ...] = (),
) -> FitResult:
    """Return the fit of features x0, x1 and so on, and targets y0, y1 and so on."""
    features = tuple(f"x{place}" for place in range(x.shape[1]))
    targets = tuple(f"y{place}" for place in range(y.shape[1]))
    return fit_model(ArrayData(x, y, features, targets, weights, terms, kind), solver or Exact(), threads=1)


def look(
    result: FitResult,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    cuts: Sequence[int] = (),
    penalised: bool = False,
    keeps_residuals: bool = True,
) -> dict[str, Any]:
    """Return the diagnostics of a fit. The rows, which are numbered from 0, come in batches that end at the cuts."""
    columns = range(len(result.model.columns))
    options = DiagnosisOptions(
        columns, is_weighted=weights is not None, is_penalised=penalised, keeps_residuals=keeps_residuals
    )
    diagnosis = Diagnosis(result, options)
    plan = SummaryPlan(result.model.features, result.model.terms)
    edges = [0, *sorted(cuts), len(x)]
    for start, end in itertools.pairwise(edges):
        part = slice(start, end)
        batch = TrainingBatch(x[part], y[part], None if weights is None else weights[part])
        for expanded in plan.columns([batch]):
            diagnosis.add(expanded, np.arange(start, end))
    return diagnosis.result()


def diagnosed(x: Array, y: Array, weights: Array | None = None, **options: Any) -> dict[str, Any]:
    """Return the diagnostics of an exact fit with an intercept."""
    return look(fit_of(x, y, weights), x, y, weights, **options)
