"""The Durbin-Watson statistic: whether the residuals of successive rows are alike.

d = sum (e_i - e_{i-1})^2 / sum e_i^2, from 0 to 4, and about 2 without correlation (Durbin and Watson, Biometrika 37,
1950). Rows are in the order of the file. With precision weights, residuals are multiplied by their roots.
"""

import numpy as np

from app.regression.diagnostics.chunk import RowChunk
from app.regression.sufficient_statistics import Array


class DurbinWatson:
    """Adds up squares of differences between successive rows, for all targets."""

    def __init__(self, targets: int) -> None:
        self._last: Array | None = None
        self._differences, self._squares = np.zeros(targets), np.zeros(targets)

    def add(self, rows: RowChunk) -> None:
        scaled = rows.scaled
        steps = np.diff(scaled, axis=0) if self._last is None else np.diff(scaled, axis=0, prepend=self._last)
        self._differences += np.einsum("ij,ij->j", steps, steps)
        self._squares += np.einsum("ij,ij->j", scaled, scaled)
        self._last = scaled[-1:].copy()

    def result(self, target: int) -> float:
        return float(self._differences[target] / self._squares[target])
