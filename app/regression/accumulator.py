"""Rows to sufficient statistics, in one pass, as fast as memory gives them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dtrsm
from threadpoolctl import ThreadpoolController

from app.errors import InvalidInput
from app.regression.block import Block
from app.regression.sufficient_statistics import Array, SufficientStatistics, centre, triangle

CHUNK_BYTES = 1 << 18  # a chunk of columns that stays in the cache of one core while it is worked on
MOST_CONDITION = 1e8  # of a factor that whitens; beyond it rows go through Householder QR
MOST_DRIFT = 100.0  # condition of the whitened rows at which they are whitened anew

# A chunk is too small to share: the threads of the BLAS of numpy and of that of scipy would but wait for each other.
_BLAS = ThreadpoolController().select(user_api="blas")


def summarise(blocks: Iterable[Block]) -> SufficientStatistics:
    """The statistics of a stream of blocks.

    Raises InvalidInput where no row has a weight, or where values are too large to be squared.
    """
    accumulator: Accumulator | None = None
    with _BLAS.limit(limits=1), np.errstate(over="ignore", invalid="ignore"):
        for block in blocks:
            weighted = _weighted_rows(block)
            if len(weighted.x):
                accumulator = accumulator or Accumulator(weighted)
                accumulator.add(weighted)
        if accumulator is None:
            raise InvalidInput("There are no rows to train on.")
        statistics = accumulator.statistics()
        _check_size(statistics)
    return statistics


def summarise_folds(blocks: Iterable[Block], folds: int) -> list[SufficientStatistics]:
    """The statistics of each fold that has rows, row i being in fold i modulo `folds`; in one pass.

    Raises InvalidInput as `summarise` does.
    """
    accumulators: list[Accumulator | None] = [None] * folds
    rows = 0
    with _BLAS.limit(limits=1), np.errstate(over="ignore", invalid="ignore"):
        for block in blocks:
            for fold in range(folds):
                part = slice((fold - rows) % folds, None, folds)
                weights = None if block.weights is None else block.weights[part]
                mine = _weighted_rows(Block(block.x[part], block.y[part], weights))
                if len(mine.x):
                    accumulators[fold] = accumulator = accumulators[fold] or Accumulator(mine)
                    accumulator.add(mine)
            rows += len(block.x)
        found = [accumulator.statistics() for accumulator in accumulators if accumulator]
        if not found:
            raise InvalidInput("There are no rows to train on.")
        for statistics in found:
            _check_size(statistics)
    return found


def _check_size(statistics: SufficientStatistics) -> None:
    if not np.isfinite(statistics.raw_factor**2).all():
        raise InvalidInput("The values are too large: their squares leave the range of 64-bit numbers.")


def _weighted_rows(block: Block) -> Block:
    """The block without the rows of weight 0, which count for nothing, not even for the ranges."""
    if block.weights is None or block.weights.all():
        return block
    kept = block.weights > 0
    return Block(block.x[kept], block.y[kept], block.weights[kept])


class Accumulator:
    """Adds up the Gram matrix of whitened rows: preconditioned CholeskyQR.

    A factor R0 of the rows so far whitens those that follow: W = Z R0^-1 has a condition near 1, so that its Gram
    matrix loses nothing, and R = chol(I + W'W) R0 is the factor of all of them, as accurate as Householder QR for
    about twice the work of a Gram matrix (Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, 2020, use the same
    remedy). Where R0 is too near to singular to whiten with, rows go through Householder QR. Which way is taken is
    decided by the condition of the rows themselves.
    """

    def __init__(self, first: Block) -> None:
        self._features = first.x.shape[1]
        width = self._features + first.y.shape[1] + 1
        self._chunk = max(2 * width, CHUNK_BYTES // (8 * width))
        beginning = np.hstack([first.x[: self._chunk], first.y[: self._chunk]])
        self._shift, self._scale = centre(beginning)
        self._rows = 0
        self._columns = np.empty((width, self._chunk))  # feature-major: each column of the data lies together
        # Of the rows [1, z - shift] before those in the Gram matrix. Their scales do not matter to either way.
        self._factor = np.zeros((width, width))
        self._gram: Array | None = None  # of rows whitened by the factor, whose own rows count in it as the identity
        self._minimum = np.full(self._features, np.inf)
        self._maximum = np.full(self._features, -np.inf)
        self._next_check = 0

    def add(self, block: Block) -> None:
        """Take in a block of at least one row, all of whose weights are positive."""
        for start in range(0, len(block.x), self._chunk):
            columns = self._shifted(block, slice(start, start + self._chunk))
            self._rows += columns.shape[1]
            if self._gram is None:
                self._restart(triangle(np.vstack([self._factor, columns.T])))
            else:
                # (m, d) in Fortran's order is what (d, m) is in C's: solved in place, without a copy.
                whitened = dtrsm(1.0, self._factor, columns.T, side=1, overwrite_b=1).T
                self._gram += whitened @ whitened.T
                if self._rows >= self._next_check:
                    self._check()

    def statistics(self) -> SufficientStatistics:
        return SufficientStatistics(
            features=self._features,
            rows=self._rows,
            count=float(self._rows),
            shift=self._shift,
            scale=self._scale,
            factor=self._whole_factor() / np.concatenate([[1.0], self._scale]),
            minimum=self._minimum,
            maximum=self._maximum,
        )

    def _shifted(self, block: Block, part: slice) -> Array:
        x, y = block.x[part].T, block.y[part].T
        rows = x.shape[1]
        columns = self._columns if rows == self._chunk else np.empty((len(self._columns), rows))
        p = self._features
        columns[0] = 1.0
        columns[1 : p + 1] = x
        columns[p + 1 :] = y
        np.minimum(self._minimum, columns[1 : p + 1].min(axis=1), out=self._minimum)
        np.maximum(self._maximum, columns[1 : p + 1].max(axis=1), out=self._maximum)
        columns[1:] -= self._shift[:, np.newaxis]
        if block.weights is not None:
            columns *= np.sqrt(block.weights[part])
        return columns

    def _check(self) -> None:
        """Whiten anew where the rows since came to lie otherwise than those that whiten."""
        assert self._gram is not None
        eigenvalues = np.linalg.eigvalsh(self._gram)
        if eigenvalues[-1] < MOST_DRIFT * eigenvalues[0]:
            self._next_check = 2 * self._rows
        else:
            self._restart(self._whole_factor())

    def _restart(self, factor: Array) -> None:
        self._factor = factor
        self._gram = np.eye(len(factor)) if _condition(factor) < MOST_CONDITION else None
        self._next_check = 2 * self._rows

    def _whole_factor(self) -> Array:
        if self._gram is None:
            return self._factor
        try:
            return np.asarray(np.linalg.cholesky(self._gram, upper=True) @ self._factor)
        except np.linalg.LinAlgError:  # values beyond all squares; the caller sees them in the factor
            return np.full_like(self._factor, np.inf)


def _condition(factor: Array) -> float:
    """Condition of a factor whose columns are brought to unit norm; infinite where one is zero or not finite."""
    norms = np.sqrt((factor**2).sum(axis=0))
    if not (np.isfinite(norms).all() and norms.all()):
        return np.inf
    singular: NDArray[np.floating] = np.linalg.svd(factor / norms, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf
