"""Rows with missing values.

They get no results, and must not change the results of the other rows.
"""

from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

from app.regression.sufficient_statistics import Array


@dataclass(frozen=True)
class CompleteRows:
    """The rows of a query that have no missing value."""

    count: int  # Number of all rows, complete or not.
    indices: NDArray[np.intp] | None  # Indices of the complete rows; None if all are complete.

    @classmethod
    def of(cls, values: Array, weights: Array | None = None) -> "CompleteRows":
        """Find the rows without NaN among values (n, d) and weights (n,)."""
        with np.errstate(over="ignore", invalid="ignore"):  # A sum finds NaN in one pass.
            total = float(np.add.reduce(values, axis=None))
            total += 0.0 if weights is None else float(np.add.reduce(weights))
            if not isnan(total):
                return cls(len(values), None)
        missing = np.isnan(values).any(axis=1)
        if weights is not None:
            missing |= np.isnan(weights)
        return cls(len(values), np.flatnonzero(~missing) if missing.any() else None)

    @property
    def missing(self) -> int:
        """The number of rows that are not complete."""
        return 0 if self.indices is None else self.count - len(self.indices)

    @property
    def positions(self) -> NDArray[np.intp]:
        """The index of each row among the complete rows, (n,), or -1 if it is not complete."""
        positions = np.full(self.count, -1)
        positions[slice(None) if self.indices is None else self.indices] = np.arange(self.count - self.missing)
        return positions

    def index(self, row: int) -> int:
        """Return the index among all rows of complete row `row`."""
        return row if self.indices is None else int(self.indices[row])

    def take(self, values: Array) -> Array:
        """Return the complete rows of values (n, ...)."""
        return values if self.indices is None else values[self.indices]

    def spread(self, results: Array) -> Array:
        """Return results for the complete rows, (m, ...), with NaN for the other rows: (n, ...)."""
        if self.indices is None:
            return results
        spread = np.full((self.count, *results.shape[1:]), np.nan)
        spread[self.indices] = results
        return spread
