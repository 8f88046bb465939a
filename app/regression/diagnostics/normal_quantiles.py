"""Quantiles of the standardised residuals against those of the normal distribution.

A standardised, or internally studentised, residual is sqrt(w_i) e_i / (s sqrt(1 - h_i)) (Cook and Weisberg, Residuals
and Influence in Regression, 1982, 2.1.1). The i-th smallest of n is compared with the normal quantile at (i - 3/8) /
(n + 1/4) (Blom, Statistical Estimates and Transformed Beta-Variables, 1958). statsmodels' ProbPlot(a=3/8) has the same
points.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from app.regression.diagnostics.chunk import RowChunk
from app.regression.sufficient_statistics import Array

MAX_POINTS = 101
BLOM = 3 / 8
# Sketched residuals: the binary exponents that are told apart, and the bits of the mantissa.
EXPONENTS, MANTISSA_BITS = (-30, 20), 10
SKETCH_ERROR = 2.0 ** -(MANTISSA_BITS + 1)  # Largest relative error of a sketched quantile.
_BIAS, _FRACTION_BITS = 1023, 52  # of a 64-bit float


class Quantiles(Protocol):
    """The order statistics of values that arrive in batches."""

    relative_error: float

    def add(self, rows: RowChunk) -> None: ...

    def smallest(self, target: int, ranks: NDArray[np.int64]) -> Array:
        """Return the values with these ranks, of which 1 is the smallest value's."""

    @property
    def observations(self) -> int: ...


def standardised(rows: RowChunk) -> Array:
    """Return scaled residuals over sqrt(1 - h), (n, k), of the rows whose leverage is known to be below 1."""
    values = rows.scaled / np.sqrt(1 - np.where(rows.certain, rows.leverage, 0.0))[:, np.newaxis]
    return np.asarray(values if rows.certain.all() else values[rows.certain])


def _counts(rows: RowChunk) -> Array | None:
    return None if rows.counts is None else rows.counts[rows.certain]


class AllQuantiles:
    """Keeps all values, 8 bytes for each row and target, and 8 for each row's frequency weight."""

    relative_error = 0.0

    def __init__(self) -> None:
        self._values: list[Array] = []
        self._counts: list[Array] = []
        self._rows = 0

    @property
    def observations(self) -> int:
        return int(sum(counts.sum() for counts in self._counts)) if self._counts else self._rows

    def add(self, rows: RowChunk) -> None:
        values, counts = standardised(rows), _counts(rows)
        self._values.append(values)
        self._rows += len(values)
        if counts is not None:
            self._counts.append(counts)

    def smallest(self, target: int, ranks: NDArray[np.int64]) -> Array:
        values = np.concatenate([part[:, target] for part in self._values])
        if not self._counts:
            values.sort()
            return np.asarray(values[ranks - 1])
        order = np.argsort(values, kind="stable")
        total = np.cumsum(np.concatenate(self._counts)[order])
        return np.asarray(values[order[np.searchsorted(total, ranks)]])


class SketchedQuantiles:
    """Counts the values by sign, exponent and the first bits of the mantissa, in bounded memory.

    Each bin is at most 2^-10 of its values wide, as in DDSketch (Masson, Rim and Lee, PVLDB 12, 2019). The counts do
    not depend on the order of the rows.
    """

    relative_error = SKETCH_ERROR

    def __init__(self, targets: int) -> None:
        self._least = (_BIAS + EXPONENTS[0]) << MANTISSA_BITS
        self._size = (EXPONENTS[1] - EXPONENTS[0]) << MANTISSA_BITS
        self._bins = np.zeros((targets, 2 * self._size))

    @property
    def observations(self) -> int:
        return int(self._bins[0].sum())

    def add(self, rows: RowChunk) -> None:
        counts = _counts(rows)
        for target, values in enumerate(standardised(rows).T):
            bits = np.abs(values).view(np.int64) >> (_FRACTION_BITS - MANTISSA_BITS)
            size = np.clip(bits - self._least, 0, self._size - 1)
            place = np.where(values < 0, self._size - 1 - size, self._size + size)
            self._bins[target] += np.bincount(place, weights=counts, minlength=2 * self._size)

    def smallest(self, target: int, ranks: NDArray[np.int64]) -> Array:
        place = np.searchsorted(np.cumsum(self._bins[target]), ranks)
        size = np.where(place < self._size, self._size - 1 - place, place - self._size)
        edges = (np.stack([size, size + 1]) + self._least) << (_FRACTION_BITS - MANTISSA_BITS)
        middle = edges.view(np.float64).mean(axis=0)
        return np.asarray(np.where(place < self._size, -middle, middle))


def normal_plot(quantiles: Quantiles, target: int, deviation: float) -> dict[str, Any]:
    """Return at most MAX_POINTS points of one target. `deviation` is s in the unit of the scaled residuals.

    With more rows than points, the points are those of the smallest and the largest residual, and of evenly spaced
    normal quantiles between.
    """
    count = quantiles.observations
    if count <= MAX_POINTS:
        ranks = np.arange(1, count + 1)
    else:
        last = ndtri((count - BLOM) / (count + 1 - 2 * BLOM))
        wanted = ndtr(np.linspace(-last, last, MAX_POINTS)) * (count + 1 - 2 * BLOM) + BLOM
        ranks = np.unique(np.clip(np.rint(wanted).astype(np.int64), 1, count))
    return {
        "theoretical": ndtri((ranks - BLOM) / (count + 1 - 2 * BLOM)).tolist(),
        "observed": (quantiles.smallest(target, ranks) / deviation).tolist(),
        "relative_error": quantiles.relative_error,
    }
