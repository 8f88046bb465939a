"""A batch of rows, the unit in which training data is read."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.regression.sufficient_statistics import Array


class TrainingBatch(NamedTuple):
    """n rows with p features and k targets."""

    x: Array  # (n, p)
    y: Array  # (n, k)
    sample_weight: Array | None = None  # (n,), not negative; None if each row has weight 1
    fold: NDArray[np.intp] | None = None  # (n,), fold of a cross-validation; None if folds are drawn by row number

    def select(self, rows: slice | NDArray[Any]) -> "TrainingBatch":
        """Return the rows of a slice, an array of indices or a mask."""
        sample_weight = None if self.sample_weight is None else self.sample_weight[rows]
        return TrainingBatch(self.x[rows], self.y[rows], sample_weight, None if self.fold is None else self.fold[rows])

    def without_zero_weights(self) -> "TrainingBatch":
        """Return the batch without its rows of weight 0, which do not even count for the ranges."""
        if self.sample_weight is None or self.sample_weight.all():
            return self
        return self.select(self.sample_weight > 0)
