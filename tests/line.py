"""The rows of a line through zero, their statistics, and the card of a version that has them."""

import numpy as np

from app.registry.model_card import ModelCard
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics

ROWS = np.array([[1.0], [2.0], [4.0]])
STATISTICS = SufficientStatistics.from_rows(ROWS, ROWS)
CARD = ModelCard(
    model="line",
    version=0,
    features=("x",),
    targets=("y",),
    created_at="2026-07-01T12:00:00.000Z",
    job=None,
    parent=None,
    solver=Exact(),
    rows=3,
    rank=2,
    condition_number=1.0,
    metrics={"mse": 0.0},
    inference_unavailable="no reason",
)
