"""Rows to sufficient statistics, in one pass, as fast as memory gives them."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dtrsm
from threadpoolctl import ThreadpoolController

from app.regression.errors import InvalidData, ValuesTooLarge
from app.regression.folds import divide
from app.regression.sufficient_statistics import (
    MAX_REACH,
    Array,
    SufficientStatistics,
    WeightKind,
    column_norms,
    r_factor,
    shift_and_scale,
)
from app.regression.training_batch import TrainingBatch

NO_ROWS = "There are no rows to train on. Send at least one."
CHUNK_BYTES = 1 << 19  # a chunk of columns that stays in the cache of one core while it is worked on
# Condition numbers below which the plain Gram matrix is accurate enough: of the features, on which the coefficients
# depend, and of all columns, on which the sum of squared residuals depends. It loses 2 log10(condition) digits. Lower
# values would cost time without a gain in digits.
MAX_PLAIN_GRAM_CONDITION, PLAIN_CONDITION_WITH_TARGETS = 10.0, 100.0
# Growth of the Gram matrix up to which rows are added to it. Its error grows as much, that of QR as the square root,
# so that up to about 1,000 there is no difference.
MAX_GROWTH = 100.0
# Condition number of a factor up to which it whitens. Beyond, rows go through Householder QR. In theory the error of
# whitened rows is bounded up to the root of 1 / EPSILON, about 1e8; in measurements it equals that of QR up to 1e13.
MAX_CONDITION = 1e8
MAX_OBSERVATIONS = 2**53  # sum of frequency weights; larger integers are not exact in 64-bit numbers
# Sizes of deviations that are not scaled. Their squares overflow from 2^512 on. At 2^300, millions of rows that are
# 2^200 times as large may follow before they do; no digit depends on this value.
ORDINARY = (2.0**-300, 2.0**300)

# A chunk is too small to share: the threads of the BLAS of numpy and of that of scipy would but wait for each other.
_BLAS = ThreadpoolController().select(user_api="blas")


def summarise(
    blocks: Iterable[TrainingBatch], begin: "QRFactory | None" = None, weight_kind: WeightKind = "precision"
) -> SufficientStatistics:
    """Return the statistics of a stream of blocks; `begin` makes the accumulator that takes them in.

    Raises InvalidData if no row has a positive weight, ValuesTooLarge if a column's deviations exceed 64-bit numbers.
    """
    accumulator: StreamingQR | None = None
    with _BLAS.limit(limits=1), np.errstate(over="ignore", invalid="ignore"):
        for block in blocks:
            weighted = _weighted_rows(block)
            if len(weighted.x):
                accumulator = accumulator or (begin or StreamingQR)(weighted)
                accumulator.add(weighted)
        if accumulator is None:
            raise InvalidData(NO_ROWS)
        return accumulator.statistics(weight_kind)


def summarise_folds(
    blocks: Iterable[TrainingBatch],
    folds: int,
    begin: "QRFactory | None" = None,
    weight_kind: WeightKind = "precision",
    *,
    seed: int = 0,
    first: int = 0,
) -> dict[int, SufficientStatistics]:
    """Return the statistics of each fold that has rows, by the fold's number, in one pass.

    A row's fold is its group's, if the blocks have groups. Otherwise each `folds` consecutive rows of positive weight
    are a random permutation of the folds. The first row has the number `first`.

    Raises InvalidData as `summarise` does.
    """
    accumulators: dict[int, StreamingQR] = {}
    with _BLAS.limit(limits=1), np.errstate(over="ignore", invalid="ignore"):
        for block in blocks:
            weighted = _weighted_rows(block)
            for fold, mine in divide(weighted, folds, seed, first):
                if fold not in accumulators:
                    accumulators[fold] = (begin or StreamingQR)(mine)
                accumulators[fold].add(mine)
            first += len(weighted.x)
        if not accumulators:
            raise InvalidData(NO_ROWS)
        return {fold: accumulators[fold].statistics(weight_kind) for fold in sorted(accumulators)}


def _weighted_rows(block: TrainingBatch) -> TrainingBatch:
    """The block without the rows of weight 0, which count for nothing, not even for the ranges."""
    if block.sample_weight is None or block.sample_weight.all():
        return block
    kept = block.sample_weight > 0
    fold = None if block.fold is None else block.fold[kept]
    return TrainingBatch(block.x[kept], block.y[kept], block.sample_weight[kept], fold)


class StreamingQR:
    """Adds up the Gram matrix of the rows, whitened where they need it: preconditioned CholeskyQR.

    A factor R0 of the rows so far whitens those that follow: W = Z R0^-1 has a condition near 1, so that its Gram
    matrix loses nothing, and R = chol(I + W'W) R0 is the factor of all of them, as accurate as Householder QR for
    about twice the work of a Gram matrix (Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, 2020, use the same
    remedy). Where the columns are nearly orthogonal as they are, R = chol(R0'R0 + Z'Z) will do; where R0 is too near
    to singular to whiten with, rows go through Householder QR. Which way is taken is decided by the condition of the
    rows themselves.
    """

    def __init__(self, first: TrainingBatch, chunk_bytes: int | None = None) -> None:
        self._features = first.x.shape[1]
        width = self._features + first.y.shape[1] + 1
        self._chunk = max(2 * width, (CHUNK_BYTES if chunk_bytes is None else chunk_bytes) // (8 * width))
        beginning = np.hstack([first.x[: self._chunk], first.y[: self._chunk]])
        weights = None if first.sample_weight is None else first.sample_weight[: self._chunk]
        self._shift, self._scale = shift_and_scale(beginning, weights)
        self._rows, self._weight, self._log_weights = 0, 0.0, 0.0
        self._columns = np.empty((width, self._chunk))  # feature-major: each column of the data lies together
        # Columns are multiplied by 2^-exponent; the exponents are 0 unless squares would leave the range of numbers.
        self._exponents = np.zeros(width, dtype=int)
        self._is_scaled = False
        self._flat = np.ones(width, dtype=bool)  # columns whose deviations are all zero so far
        self._has_flat = True
        # Of the rows [1, z - shift] before those in the Gram matrix.
        self._factor = np.zeros((width, width))
        self._whiten = False
        self._gram: Array | None = None  # of the rows, those before among them; whitened by the factor where they are
        self._carried = np.zeros((width, width))  # what rounding took from the Gram matrix
        self._sum = np.empty((width, width))  # the next Gram matrix
        self._factorisations = 0  # QR decompositions, each of which rounds
        self._minimum = np.full(self._features, np.inf)
        self._maximum = np.full(self._features, -np.inf)
        self._next_check = 0  # at so many rows,
        self._most: Array | float = np.inf  # and before the diagonal of the Gram matrix is more than this

    def add(self, block: TrainingBatch) -> None:
        """Take in a block of at least one row, all of whose weights are positive."""
        if block.sample_weight is not None:
            self._weight += float(block.sample_weight.sum())
            self._log_weights += float(np.log(block.sample_weight).sum())
        else:
            self._weight += len(block.x)
        for start in range(0, len(block.x), self._chunk):
            part = slice(start, start + self._chunk)
            self._rows += len(block.x[part])
            self._take(
                TrainingBatch(
                    block.x[part], block.y[part], None if block.sample_weight is None else block.sample_weight[part]
                )
            )
            if self._gram is not None and self._rows >= self._next_check:
                self._check()

    def statistics(self, weight_kind: WeightKind = "precision") -> SufficientStatistics:
        """Return the statistics of all rows so far, whose weights are of this kind."""
        # Powers of two of the scale. If later rows have another size than the first ones, those of the factor.
        powers = np.concatenate([[0], np.frexp(self._scale)[1] - 1])
        far = ~self._flat & (np.abs(self._exponents - powers) > MAX_REACH)
        if far[1:].any():
            far[0] = False
            powers = np.where(far, np.clip(self._exponents, -1000, 1000), powers)
        factor = np.ldexp(self._whole_factor(), self._exponents - powers)
        rows = self._rows if weight_kind == "precision" else self._observations()
        return SufficientStatistics(
            features=self._features,
            rows=rows,
            effective_rows=float(rows),
            shift=self._shift,
            scale=np.ldexp(1.0, powers[1:]),
            factor=factor,
            minimum=self._minimum,
            maximum=self._maximum,
            weight_kind=weight_kind,
            log_weights=self._log_weights if weight_kind == "precision" else 0.0,
            operations=max(self._factorisations - 1, 0),
        )

    def _observations(self) -> int:
        if self._weight > MAX_OBSERVATIONS:
            raise InvalidData(f"The frequency weights add up to more than {MAX_OBSERVATIONS} observations.")
        return round(self._weight)

    def _take(self, chunk: TrainingBatch) -> None:
        """Take in rows that are no more than a chunk."""
        if self._gram is not None:
            columns = self._shifted(chunk)
            # Rows that outweigh all before them, if but in one direction, would leave nothing of their digits.
            if not self._has_new_scale(columns) and self._gain(self._products(columns)):
                return
        self._factorise(self._shifted(chunk, scaled=False))

    def _gain(self, products: Array) -> bool:
        """Add cross products of rows to the Gram matrix. Return False, and add nothing, if they are too large for it.

        What rounding takes from a sum is added to the next one (Kahan, 1965): the errors of many equal chunks would
        otherwise grow with their number.
        """
        assert self._gram is not None
        if not (self._gram.diagonal() + products.diagonal() <= self._most).all():
            return False
        products += self._carried
        np.add(self._gram, products, out=self._sum)
        np.subtract(self._sum, self._gram, out=self._gram)
        np.subtract(products, self._gram, out=self._carried)
        self._gram, self._sum = self._sum, self._gram
        return True

    def _has_new_scale(self, columns: Array) -> bool:
        """Return whether a column varies for the first time: only then may its squares underflow unseen."""
        return self._has_flat and bool(columns[self._flat].any())

    def _factorise(self, columns: Array) -> None:
        """Take in shifted columns, (d, m), that are not scaled yet, by Householder QR."""
        self._factorisations += 1
        factor = self._whole_factor()
        of_columns, of_factor = np.abs(columns).max(axis=1), np.abs(factor).max(axis=0)
        beyond = ~(np.isfinite(of_columns) & np.isfinite(of_factor))
        if beyond.any():
            raise ValuesTooLarge(int(np.flatnonzero(beyond)[0]) - 1)
        self._flat = (of_columns == 0) & (of_factor == 0)
        self._has_flat = bool(self._flat.any())
        before = self._exponents
        powers = np.maximum(_powers(of_columns), _powers(of_factor) + before)
        low, high = np.frexp(ORDINARY)[1]
        extreme = ~self._flat & ((powers - before < low) | (powers - before > high))
        self._exponents = np.where(extreme, powers, before)
        self._is_scaled = bool(self._exponents.any())
        if self._is_scaled or extreme.any():
            columns = np.ldexp(columns, -self._exponents[:, np.newaxis])
            factor = np.ldexp(factor, before - self._exponents)
        self._restart(r_factor(np.vstack([factor, columns.T])))

    def _shifted(self, chunk: TrainingBatch, *, scaled: bool = True) -> Array:
        """[1, z - shift] of the rows, feature-major: (d, m)."""
        rows, p = len(chunk.x), self._features
        columns = self._columns if rows == self._chunk else np.empty((len(self._factor), rows))
        columns[0] = 1.0
        columns[1 : p + 1] = chunk.x.T
        columns[p + 1 :] = chunk.y.T
        self._observe(columns[1 : p + 1].min(axis=1), columns[1 : p + 1].max(axis=1))
        columns[1:] -= self._shift[:, np.newaxis]
        if chunk.sample_weight is not None:
            columns *= np.sqrt(chunk.sample_weight)
        if scaled and self._is_scaled:
            columns = np.ldexp(columns, -self._exponents[:, np.newaxis])
        return columns

    def _products(self, columns: Array) -> Array:
        """The Gram matrix of columns, whitened where they are to be. The columns may be gone afterwards."""
        if self._whiten:
            # (m, d) in Fortran's order is what (d, m) is in C's: solved in place, without a copy.
            columns = dtrsm(1.0, self._factor, columns.T, side=1, overwrite_b=1).T
        return np.asarray(columns @ columns.T)

    def _observe(self, minimum: Array, maximum: Array) -> None:
        np.minimum(self._minimum, minimum, out=self._minimum)
        np.maximum(self._maximum, maximum, out=self._maximum)

    def _check(self) -> None:
        """Whiten anew where the rows since came to lie otherwise than those that whiten."""
        if self._is_plain(self._gained_factor()):
            self._look_again_later()
        else:
            self._restart(self._whole_factor())

    def _is_plain(self, factor: Array) -> bool:
        """Whether a Gram matrix with this factor is as good as the factor."""
        whole = _condition(factor)
        if whole < MAX_PLAIN_GRAM_CONDITION:
            return True
        inputs = self._features + 1
        return whole < PLAIN_CONDITION_WITH_TARGETS and _condition(factor[:inputs, :inputs]) < MAX_PLAIN_GRAM_CONDITION

    def _restart(self, factor: Array) -> None:
        self._factor = factor
        self._carried.fill(0.0)
        self._whiten = not self._is_plain(factor)
        if self._whiten:
            self._gram = np.eye(len(factor)) if _condition(factor) < MAX_CONDITION else None
        else:
            self._gram = factor.T @ factor
        self._look_again_later()

    def _look_again_later(self) -> None:
        self._next_check = 2 * self._rows
        self._most = np.inf if self._gram is None else MAX_GROWTH * self._gram.diagonal()

    def _whole_factor(self) -> Array:
        if self._gram is None:
            return self._factor
        return self._gained_factor() @ self._factor if self._whiten else self._gained_factor()

    def _gained_factor(self) -> Array:
        assert self._gram is not None
        try:
            return np.asarray(np.linalg.cholesky(self._gram, upper=True))
        except np.linalg.LinAlgError:  # values beyond all squares; the caller sees them in the factor
            return np.full_like(self._factor, np.inf)


def _powers(sizes: Array) -> NDArray[np.int_]:
    """Return the exponents of the powers of two above sizes; one below all others for a size of 0."""
    return np.where(sizes > 0, np.frexp(sizes)[1], -100_000)


QRFactory: TypeAlias = Callable[[TrainingBatch], StreamingQR]


def _condition(factor: Array) -> float:
    """Condition of a factor whose columns are brought to unit norm; infinite where one is zero or not finite."""
    norms = column_norms(factor)
    if not (np.isfinite(norms).all() and norms.all()):
        return np.inf
    singular: NDArray[np.floating] = np.linalg.svd(factor / norms, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf
