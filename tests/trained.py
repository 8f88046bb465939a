"""Models and versions trained in memory, without files or jobs."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.registry.fit_card import metrics_of
from app.registry.model_card import ModelCard
from app.registry.version_file import Version
from app.regression.least_squares import fit, why_no_inference
from app.regression.linear_model import LinearModel
from app.regression.solvers import Exact, Solver
from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array = NDArray[np.float64]


def model_of(
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    solver: Exact | None = None,
    weight_kind: WeightKind = "precision",
) -> LinearModel:
    """Return the model of these rows, with features x0, x1 and so on, and targets y0, y1 and so on."""
    return model_from(summarise([TrainingBatch(x, y, weights)], weight_kind=weight_kind), solver or Exact())


def model_from(statistics: SufficientStatistics, solver: Exact) -> LinearModel:
    found = fit(statistics, solver)
    reason = why_no_inference(statistics, found, solver)
    return LinearModel(
        tuple(f"x{index}" for index in range(statistics.features)),
        tuple(f"y{index}" for index in range(statistics.targets)),
        found.coef,
        found.intercept,
        statistics,
        found.residual_norms,
        found.unscaled_errors if reason is None else None,
        found.centre_prediction,
        has_intercept=solver.fit_intercept,
        inference_unavailable=reason,
    )


def version_of(model: LinearModel, solver: Solver | None = None, **card: Any) -> Version:
    """Return a published version of the model, with the card that a job would make."""
    made = ModelCard(
        model="model",
        version=1,
        features=model.features,
        targets=model.targets,
        created_at="2026-07-01T12:00:00.000Z",
        job="job",
        parent=None,
        solver=solver or Exact(fit_intercept=model.has_intercept),
        rows=model.statistics.rows,
        rank=model.rank,
        condition_number=model.design.condition_number,
        metrics=metrics_of(model, model.design, None),
        inference_unavailable=model.inference_unavailable,
    )
    return Version(replace(made, **card), model)
