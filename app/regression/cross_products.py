"""Sums over a segment of rows, chunk by chunk in the cache of one core. Segments are independent of each other."""

import contextlib
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


class Workspace:
    """Memory for the columns of one chunk at a time, (d, m), and for their products.

    Views of them are made once, because a thread that makes them keeps the others from running.
    """

    def __init__(self, features: int, targets: int, rows: int) -> None:
        width = 1 + features + targets
        self.columns = np.empty((width, rows))
        self.has_ones = False  # False if the first column has to be filled
        self.inputs, self.targets = self.columns[1 : features + 1], self.columns[features + 1 :]
        self.deviations, self.transposed = self.columns[1:], self.columns.T
        self.minimum, self.maximum = np.empty(features), np.empty(features)
        self._products = np.zeros((width, width))
        # Each column, the ones from it on, and the place of their products.
        self._each = [
            (self.columns[place:], column, self._products[place, place:])
            for place, column in enumerate(self.columns[: width if width < MIN_SYMMETRIC else 0])
        ]

    @property
    def rows(self) -> int:
        return self.columns.shape[1]

    def fill(self, chunk: TrainingBatch, shift: Array) -> None:
        """Write the rows [1, z - shift], multiplied by the roots of their weights, and note their ranges."""
        if not self.has_ones:
            self.columns[0] = 1.0
        self.inputs[:] = chunk.x.T
        self.targets[:] = chunk.y.T
        np.minimum.reduce(self.inputs, axis=1, out=self.minimum)
        np.maximum.reduce(self.inputs, axis=1, out=self.maximum)
        np.subtract(self.deviations, shift[:, np.newaxis], out=self.deviations)
        self.has_ones = chunk.sample_weight is None
        if chunk.sample_weight is not None:
            np.multiply(self.columns, np.sqrt(chunk.sample_weight), out=self.columns)

    def products(self) -> Array:
        """Return the upper triangle of the products of the columns, in memory that is used again.

        `np.dot` lets other threads run, and `np.matmul` does not if its result is small.
        """
        if not self._each:
            return np.dot(self.columns, self.transposed, out=self._products)
        for others, column, place in self._each:
            np.dot(others, column, out=place)
        return self._products


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

    def workspace(self, rows: TrainingBatch) -> Workspace:
        return Workspace(self.features, rows.y.shape[1], len(rows.x))

    def columns(self, rows: TrainingBatch) -> Workspace:
        """Return the rows [1, z - shift], multiplied by the roots of their weights, as columns."""
        workspace = self.workspace(rows)
        workspace.fill(rows, self.shift)
        return workspace

    def products(self, workspace: Workspace) -> Array | None:
        """Return the upper triangle of the products of columns, which may be overwritten.

        Returns None if a column varies for the first time. Only its squares might underflow unnoticed.
        """
        columns = workspace.columns
        if self.flat is not None and columns[self.flat].any():
            return None
        if self.exponents is not None:
            np.ldexp(columns, -self.exponents[:, np.newaxis], out=columns)
            workspace.has_ones = False
        if self.preconditioner is not None:
            whiten(columns, self.preconditioner)
            workspace.has_ones = False
        return workspace.products()


class SegmentSums(NamedTuple):
    """What is known of the rows of a segment."""

    minimum: Array  # (p,), of each feature
    maximum: Array  # (p,)
    weight: float
    log_weights: float
    products: CompensatedSum | None = (
        None  # upper triangle of the cross products in the coordinates; None if they are not known
    )
    factor: Array | None = None  # factor of the shifted columns; None if it is not known


def sum_segment(coordinates: Coordinates, rows: TrainingBatch, workspaces: list[Workspace]) -> SegmentSums:
    """Return the sums of a segment. `workspaces` are those of a chunk, which threads share."""
    with np.errstate(over="ignore", invalid="ignore"):
        if not coordinates.has_products:
            workspace = coordinates.columns(rows)
            factor = r_factor(workspace.transposed) if is_ordinary(workspace.columns) else None
            return SegmentSums(workspace.minimum, workspace.maximum, *weight_sums(rows), factor=factor)
        ranges, width = [], len(coordinates.shift) + 1
        total: CompensatedSum | None = CompensatedSum(np.zeros((width, width)))
        for chunk in coordinates.chunks(rows):
            workspace = _workspace(coordinates, chunk, workspaces)
            workspace.fill(chunk, coordinates.shift)
            ranges.append((workspace.minimum.copy(), workspace.maximum.copy()))
            products = None if total is None else coordinates.products(workspace)
            if total is None or products is None:
                total = None  # only the ranges are needed
            else:
                total.add(products)
            if workspace.rows == coordinates.chunk_rows:
                workspaces.append(workspace)
        minima, maxima = zip(*ranges, strict=True)
    return SegmentSums(np.min(minima, axis=0), np.max(maxima, axis=0), *weight_sums(rows), products=total)


def _workspace(coordinates: Coordinates, chunk: TrainingBatch, workspaces: list[Workspace]) -> Workspace:
    with contextlib.suppress(IndexError):  # all are in use
        if len(chunk.x) == coordinates.chunk_rows:
            return workspaces.pop()
    return coordinates.workspace(chunk)


def weight_sums(rows: TrainingBatch) -> tuple[float, float]:
    """Return the sum of the weights, and that of their logarithms."""
    weights = rows.sample_weight
    return (float(len(rows.x)), 0.0) if weights is None else (float(weights.sum()), float(np.log(weights).sum()))


def is_ordinary(columns: Array) -> bool:
    """Return True if no square of the columns, (d, m), overflows or underflows."""
    sizes = np.abs(columns).max(axis=1)
    return bool(((sizes == 0) | ((sizes > ORDINARY[0]) & (sizes < ORDINARY[1]))).all())
