"""Rows on their way into the statistics."""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]


class TrainingBatch(NamedTuple):
    """Rows that came together."""

    x: Array  # (n, p)
    y: Array  # (n, k)
    sample_weight: Array | None = None  # (n,), none negative; None where each row counts once
    fold: NDArray[np.intp] | None = None  # (n,), the fold of a cross-validation, if the row's group decides it
