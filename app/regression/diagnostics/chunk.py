"""Some rows of the second look, with what several diagnostics need of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.regression.sufficient_statistics import Array


@dataclass(frozen=True, eq=False)
class RowChunk:
    """n rows with p columns, k diagnosed targets, and r independent columns.

    A residual that is `scaled` is multiplied by the root of its precision weight over the mean weight, and divided by
    the root mean square of all of the target's residuals. The errors behind them all have the same variance, and units
    do not matter.
    """

    columns: Array  # (n, p)
    fitted: Array  # (n, k)
    residuals: Array  # (n, k), observed minus fitted
    scaled: Array  # (n, k)
    # (n, r), deviations from the means in a basis whose columns are orthonormal over all rows, with their weights.
    whitened: Array
    leverage: Array  # (n,)
    certain: NDArray[np.bool_]  # (n,), whether the leverage is known to be below 1
    numbers: NDArray[np.int64]  # (n,), number of each row in its file
    weights: Array | None = None  # (n,), weights with a mean of 1; None if all are 1
    counts: Array | None = None  # (n,), number of observations of each row, a frequency weight; None if all are 1
