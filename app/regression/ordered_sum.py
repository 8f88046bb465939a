"""Weighted sums of columns, added up in the same order for any number of rows.

Floating-point addition is not associative, and BLAS chooses its order by the shape of the matrix. A row gets the same
prediction alone and among others only if its products are added in an order that does not depend on the other rows.
"""

from collections.abc import Sequence
from operator import sub

import numpy as np

from app.regression.sufficient_statistics import Array

# Weights up to which the order is fixed. With more of them BLAS is so much faster that requests would take longer.
MAX_ORDERED = 32
SMALL = 128  # Sums per column up to which one call for all products is faster: calls take longer than arithmetic.
CACHED = 1 << 14  # Sums of a block, which stays in the processor's cache.


class OrderedSum:
    """start + weights[:, 0] (x[:, 0] - centre[0]) + weights[:, 1] (x[:, 1] - centre[1]) + ..., from left to right."""

    def __init__(self, weights: Array, start: Array, centre: Array | None) -> None:
        """Prepare sums with weights (k, p), start (k,) and centre (p,); without a centre, x is taken as it is."""
        self._start = start[:, np.newaxis]
        self._weights = np.ascontiguousarray(weights.T)[:, :, np.newaxis]
        self._centre = None if centre is None else centre[:, np.newaxis]
        self._lines = list(zip(weights.tolist(), start.tolist(), strict=True))
        self._few_centre: list[float] = [] if centre is None else centre.tolist()
        self._rows = max(1024, CACHED // len(weights))

    def sum_lists(self, rows: Sequence[Sequence[float]]) -> list[list[float]]:
        """Return the sums for few rows of plain numbers, for which numpy would take longer to begin.

        The builtin `sum` would be faster for many columns, but from Python 3.12 on it compensates for rounding, so its
        result depends on the version of Python.
        """
        found = []
        for row in rows:
            if self._few_centre:
                row = list(map(sub, row, self._few_centre))  # noqa: PLW2901 - deviations stand for the row
            sums = []
            for weights, total in self._lines:
                for weight, value in zip(weights, row):  # noqa: B905 - as long by their making
                    total += weight * value  # noqa: PLW2901 - the sum begins with the line's start
                sums.append(total)
            found.append(sums)
        return found

    def sum_rows(self, x: Array) -> Array:
        """Return the sums, (m, k), for rows x, (m, p)."""
        if len(x) <= self._rows:
            return self._block(x.T, np.empty((len(self._start), len(x)))).T
        sums = np.empty((len(self._start), len(x)))
        for first in range(0, len(x), self._rows):
            rows = slice(first, first + self._rows)
            self._block(x[rows].T, sums[:, rows])
        return sums.T

    def _block(self, columns: Array, sums: Array) -> Array:
        """Write the sums for columns (p, m) into `sums`, (k, m), and return them."""
        if self._centre is not None:
            columns = columns - self._centre
        if len(columns) > 2 and 1 < sums.size <= SMALL * len(columns):  # noqa: PLR2004 - two calls less pay
            products = np.empty((len(columns), *sums.shape))
            np.multiply(self._weights, columns[:, np.newaxis], out=products)
            products[0] += self._start
            # numpy adds pairwise along the axis that is contiguous in memory, and in order along any other.
            return np.asarray(np.add.reduce(products, axis=0, out=sums))
        np.multiply(self._weights[0], columns[0], out=sums)
        np.add(sums, self._start, out=sums)
        product = np.empty_like(sums)
        for weights, column in zip(self._weights[1:], columns[1:], strict=True):
            np.multiply(weights, column, out=product)
            np.add(sums, product, out=sums)
        return sums
