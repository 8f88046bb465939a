"""A batch of rows, the unit in which training data is read."""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]


class TrainingBatch(NamedTuple):
    """n rows with p features and k targets."""

    x: Array  # (n, p)
    y: Array  # (n, k)
    sample_weight: Array | None = None  # (n,), not negative; None if each row has weight 1
    fold: NDArray[np.intp] | None = None  # (n,), fold of a cross-validation; None if folds are drawn by row number
