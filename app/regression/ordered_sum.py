"""Weighted sums of columns whose result for a row does not depend on the other rows.

Floating-point addition is not associative, and BLAS chooses its order by the shape of the matrix. Here the products of
a row are added in a fixed order, so that a row gets the same prediction alone and among others.
"""

from collections.abc import Sequence
from operator import sub

import numpy as np

from app.regression.sufficient_statistics import Array

MAX_ORDERED = 32  # Largest number of weights for the fixed order. With more of them, BLAS is much faster.
SMALL = 128  # Sums per column up to which one numpy call for all products is faster than one per column.
CACHED = 1 << 14  # Sums computed at once, so that they stay in the processor's cache.


class OrderedSum:
    """start + weights[:, 0] (x[:, 0] - centre[0]) + weights[:, 1] (x[:, 1] - centre[1]) + ..., from left to right."""

    def __init__(self, weights: Array, start: Array, centre: Array | None) -> None:
        """Prepare sums with weights (k, p), start (k,) and centre (p,), by default zero."""
        self._start = start[:, np.newaxis]
        self._weights = np.ascontiguousarray(weights.T)[:, :, np.newaxis]
        self._centre = None if centre is None else centre[:, np.newaxis]
        self._lines = list(zip(weights.tolist(), start.tolist(), strict=True))
        self._centre_list: list[float] = [] if centre is None else centre.tolist()
        self._rows = max(1024, CACHED // len(weights))

    def sum_lists(self, rows: Sequence[Sequence[float]]) -> list[list[float]]:
        """Return the sums, k for each row, in plain Python, which is faster than numpy for a few rows.

        The builtin `sum` is not used: from Python 3.12 on it compensates for rounding, so the result would depend on
        the version of Python.
        """
        sums = []
        for row in rows:
            deviations = list(map(sub, row, self._centre_list)) if self._centre_list else row
            row_sums = []
            for weights, total in self._lines:
                for weight, value in zip(weights, deviations):  # noqa: B905 - equally long; strict=True is slower
                    total += weight * value  # noqa: PLW2901 - the sum begins with the line's start
                row_sums.append(total)
            sums.append(row_sums)
        return sums

    def sum_rows(self, x: Array) -> Array:
        """Return the sums, (m, k), for rows x, (m, p)."""
        sums = np.empty((len(self._start), len(x)))
        for first in range(0, len(x), self._rows):
            rows = slice(first, first + self._rows)
            self._sum_columns(x[rows].T, sums[:, rows])
        return sums.T

    def _sum_columns(self, columns: Array, sums: Array) -> None:
        """Write the sums for columns (p, m) into `sums`, (k, m)."""
        if self._centre is not None:
            columns = columns - self._centre
        if len(columns) > 2 and 1 < sums.size <= SMALL * len(columns):  # noqa: PLR2004 - fewer calls for 3 columns
            products = np.empty((len(columns), *sums.shape))
            np.multiply(self._weights, columns[:, np.newaxis], out=products)
            products[0] += self._start
            # numpy adds pairwise along the axis that is contiguous in memory, and in order along any other.
            np.add.reduce(products, axis=0, out=sums)
            return
        np.multiply(self._weights[0], columns[0], out=sums)
        np.add(sums, self._start, out=sums)
        product = np.empty_like(sums)
        for weights, column in zip(self._weights[1:], columns[1:], strict=True):
            np.multiply(weights, column, out=product)
            np.add(sums, product, out=sums)
