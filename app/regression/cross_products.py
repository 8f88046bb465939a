"""Sums over a segment of rows, chunk by chunk in the cache of one core. Segments are independent of each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.regression.sufficient_statistics import Array, r_factor
from app.regression.training_batch import TrainingBatch
from app.regression.triangular import whiten

# Range of deviations that are not scaled. Squares overflow from 2^512 on, so that rows 2^200 times as large may follow.
ORDINARY = (2.0**-300, 2.0**300)
# Number of columns from which BLAS multiplies all of them at once faster than one by one.
MIN_SYMMETRIC = 13


class CompensatedSum:
    """A sum of matrices, (d, d). The errors of many equal terms would grow with their number (Kahan, 1965)."""

    def __init__(self, start: Array) -> None:
        self.total = start
        self.error = np.zeros_like(start)  # to be added to the total
        self._next = np.empty_like(start)

    def add(self, term: Array) -> None:
        """Add a term, which is overwritten."""
        term += self.error
        np.add(self.total, term, out=self._next)
        np.subtract(self._next, self.total, out=self.total)
        np.subtract(term, self.total, out=self.error)
        self.total, self._next = self._next, self.total


@dataclass(frozen=True, eq=False)
class Coordinates:
    """How rows become the columns [1, z - shift], whose cross products are computed."""

    features: int
    chunk_rows: int
    shift: Array
    exponents: NDArray[np.int_] | None = None  # columns are multiplied by 2^-exponent; None if all exponents are 0
    flat: NDArray[np.bool_] | None = None  # columns whose deviations are all zero so far; None if there are none
    preconditioner: Array | None = None  # factor that whitens the columns; None if they are not whitened
    has_products: bool = False  # False if the rows' factor is needed, because their products would lose digits

    def chunks(self, rows: TrainingBatch) -> Iterator[TrainingBatch]:
        for start in range(0, len(rows.x), self.chunk_rows):
            yield rows.select(slice(start, start + self.chunk_rows))

    def columns(self, chunk: TrainingBatch, buffer: Array | None = None, ranges: Array | None = None) -> Array:
        """Return the rows [1, z - shift], multiplied by the roots of their weights, feature-major: (d, m).

        They are written to the buffer if it has that shape. `ranges`, (2, p), is extended by the minima and maxima.
        """
        rows, p = len(chunk.x), self.features
        shape = (1 + p + chunk.y.shape[1], rows)
        columns = np.empty(shape) if buffer is None or buffer.shape != shape else buffer
        columns[0] = 1.0
        columns[1 : p + 1] = chunk.x.T
        columns[p + 1 :] = chunk.y.T
        if ranges is not None:
            np.minimum(ranges[0], columns[1 : p + 1].min(axis=1), out=ranges[0])
            np.maximum(ranges[1], columns[1 : p + 1].max(axis=1), out=ranges[1])
        columns[1:] -= self.shift[:, np.newaxis]
        if chunk.sample_weight is not None:
            columns *= np.sqrt(chunk.sample_weight)
        return columns

    def products(self, columns: Array) -> Array | None:
        """Return the cross products of columns, (d, m), which may be overwritten.

        Returns None if a column varies for the first time. Only its squares might underflow unnoticed.
        """
        if self.flat is not None and columns[self.flat].any():
            return None
        if self.exponents is not None:
            columns = np.ldexp(columns, -self.exponents[:, np.newaxis])
        if self.preconditioner is not None:
            whiten(columns, self.preconditioner)
        return gram(columns)


class SegmentSums(NamedTuple):
    """What is known of the rows of a segment."""

    ranges: Array  # (2, p), minimum and maximum of each feature
    weight: float
    log_weights: float
    products: CompensatedSum | None = None  # cross products in the coordinates; None if they are not known
    factor: Array | None = None  # factor of the shifted columns; None if it is not known


def sum_segment(coordinates: Coordinates, rows: TrainingBatch, buffers: list[Array]) -> SegmentSums:
    """Return the sums of a segment. `buffers` is a list of arrays for the columns of a chunk, which threads share."""
    ranges = np.array([np.full(coordinates.features, np.inf), np.full(coordinates.features, -np.inf)])
    with np.errstate(over="ignore", invalid="ignore"):
        if not coordinates.has_products:
            columns = coordinates.columns(rows, ranges=ranges)
            factor = r_factor(columns.T) if is_ordinary(columns) else None
            return SegmentSums(ranges, *weight_sums(rows), factor=factor)
        shape = (1 + rows.x.shape[1] + rows.y.shape[1], coordinates.chunk_rows)
        try:
            buffer = buffers.pop()
        except IndexError:  # all are in use
            buffer = np.empty(shape)
        total: CompensatedSum | None = CompensatedSum(np.zeros((shape[0], shape[0])))
        for chunk in coordinates.chunks(rows):
            columns = coordinates.columns(chunk, buffer, ranges)
            products = None if total is None else coordinates.products(columns)
            if total is None or products is None:
                total = None  # only the ranges are needed
            else:
                total.add(products)
        buffers.append(buffer)
    return SegmentSums(ranges, *weight_sums(rows), products=total)


def weight_sums(rows: TrainingBatch) -> tuple[float, float]:
    """Return the sum of the weights, and that of their logarithms."""
    weights = rows.sample_weight
    return (float(len(rows.x)), 0.0) if weights is None else (float(weights.sum()), float(np.log(weights).sum()))


def is_ordinary(columns: Array) -> bool:
    """Return True if no square of the columns, (d, m), overflows or underflows."""
    sizes = np.abs(columns).max(axis=1)
    return bool(((sizes == 0) | ((sizes > ORDINARY[0]) & (sizes < ORDINARY[1]))).all())


def gram(columns: Array) -> Array:
    """Return the cross products of columns, (d, m)."""
    width = len(columns)
    if width >= MIN_SYMMETRIC:
        return np.asarray(columns @ columns.T)
    products = np.empty((width, width))
    for place, column in enumerate(columns):
        np.dot(columns[place:], column, out=products[place, place:])
        products[place:, place] = products[place, place:]
    return products
