"""An accumulator of sufficient statistics, which adds up the rows of batches at memory speed."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dtrsm

from app.regression.errors import InvalidData, ValuesTooLarge
from app.regression.sufficient_statistics import (
    MAX_REACH,
    Array,
    SufficientStatistics,
    WeightKind,
    condition_number,
    r_factor,
    shift_and_scale,
)
from app.regression.training_batch import TrainingBatch

CHUNK_BYTES = 1 << 19  # Bytes of the columns processed at once, so that they stay in the cache of one core.
# Condition numbers below which the plain Gram matrix is accurate enough: of the features, which determines the error of
# the coefficients, and of all columns, which determines that of the RSS. It loses 2 log10(condition) digits.
MAX_PLAIN_GRAM_CONDITION, MAX_PLAIN_GRAM_CONDITION_WITH_TARGETS = 10.0, 100.0
# Growth of the Gram matrix's diagonal up to which rows are added to it. Its error grows in proportion, that of QR with
# the root, which makes no measurable difference up to a factor of about 1,000.
MAX_GROWTH = 100.0
# Condition number of a factor up to which it is used as a preconditioner. Above, rows go through Householder QR. The
# error of whitened rows is bounded up to 1 / sqrt(EPSILON), about 1e8. Measured errors equal those of QR up to 1e13.
MAX_CONDITION = 1e8
MAX_OBSERVATIONS = 2**53  # Largest sum of frequency weights. Above, integers are not exact in 64-bit numbers.
# Range of deviations that are not scaled. Squares overflow from 2^512 on, so that rows 2^200 times as large may follow.
ORDINARY = (2.0**-300, 2.0**300)


class StreamingQR:
    """The R factor of rows [1, z - shift] that arrive in batches, by preconditioned CholeskyQR.

    A factor R0 of the rows so far whitens those that follow. W = Z R0^-1 has a condition number near 1, so that its
    Gram matrix loses no digits, and R = chol(I + W'W) R0 is the factor of all rows. It is as accurate as Householder QR
    for about twice the work of a Gram matrix (Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, SIAM J. Sci.
    Comput. 42, 2020). If the columns are nearly orthogonal, R = chol(R0'R0 + Z'Z) is accurate enough. If R0 is nearly
    singular, rows go through Householder QR.
    """

    def __init__(self, first: TrainingBatch, chunk_bytes: int | None = None) -> None:
        """Choose the shift and the scale from the first batch. It is not added yet."""
        self._features = first.x.shape[1]
        width = self._features + first.y.shape[1] + 1
        self._chunk_rows = max(2 * width, (CHUNK_BYTES if chunk_bytes is None else chunk_bytes) // (8 * width))
        chunk = first.select(slice(self._chunk_rows))
        self._shift, self._scale = shift_and_scale(np.hstack([chunk.x, chunk.y]), chunk.sample_weight)
        self._rows, self._weight, self._log_weights = 0, 0.0, 0.0
        self._columns = np.empty((width, self._chunk_rows))  # feature-major, for contiguous columns
        # Columns are multiplied by 2^-exponent. Exponents are 0 unless squares would overflow or underflow.
        self._exponents = np.zeros(width, dtype=int)
        self._is_scaled = False  # True if an exponent is not 0
        self._flat = np.ones(width, dtype=bool)  # columns whose deviations are all zero so far
        self._has_flat = True
        self._preconditioner = np.zeros((width, width))  # R0, the factor at the last restart
        self._whiten = False
        # Gram matrix of all rows: whitened, R0^-1' Z'Z R0^-1, or plain, Z'Z. None if rows go through Householder QR.
        self._gram: Array | None = None
        self._compensation = np.zeros((width, width))  # rounding error of the Gram matrix (Kahan)
        self._next_gram = np.empty((width, width))
        self._factorisations = 0  # QR decompositions, each of which rounds
        self._minimum = np.full(self._features, np.inf)
        self._maximum = np.full(self._features, -np.inf)
        self._next_check = 0  # number of rows at which the preconditioner is checked
        self._max_diagonal: Array | float = np.inf  # largest diagonal of the Gram matrix before a restart

    def add(self, batch: TrainingBatch) -> None:
        """Add a batch of at least one row. All weights are positive."""
        if batch.sample_weight is not None:
            self._weight += float(batch.sample_weight.sum())
            self._log_weights += float(np.log(batch.sample_weight).sum())
        else:
            self._weight += len(batch.x)
        for start in range(0, len(batch.x), self._chunk_rows):
            chunk = batch.select(slice(start, start + self._chunk_rows))
            self._rows += len(chunk.x)
            self._add_chunk(chunk)
            if self._gram is None or self._rows < self._next_check:
                continue
            if self._is_plain(self._gram_factor()):
                self._schedule_check()
            else:  # the covariance of the rows has drifted
                self._restart(self._factor())

    def statistics(self, weight_kind: WeightKind = "precision") -> SufficientStatistics:
        """Return the statistics of all rows so far, whose weights are of this kind.

        Raises InvalidData if the sum of frequency weights exceeds MAX_OBSERVATIONS.
        """
        # Powers of two of the scale. If later rows are of another size than the first ones, those of the factor.
        powers = np.concatenate([[0], np.frexp(self._scale)[1] - 1])
        far = ~self._flat & (np.abs(self._exponents - powers) > MAX_REACH)
        if far[1:].any():
            far[0] = False
            powers = np.where(far, np.clip(self._exponents, -1000, 1000), powers)
        rows = checked_rows(self._rows, self._weight, weight_kind)
        return SufficientStatistics(
            features=self._features,
            rows=rows,
            effective_rows=float(rows),
            shift=self._shift,
            scale=np.ldexp(1.0, powers[1:]),
            factor=np.ldexp(self._factor(), self._exponents - powers),
            minimum=self._minimum,
            maximum=self._maximum,
            weight_kind=weight_kind,
            log_weights=self._log_weights if weight_kind == "precision" else 0.0,
            operations=max(self._factorisations - 1, 0),
        )

    def _add_chunk(self, chunk: TrainingBatch) -> None:
        if self._gram is not None:
            columns = self._shifted(chunk)
            # Only the squares of a column that varies for the first time may underflow unnoticed.
            varies_first = self._has_flat and columns[self._flat].any()
            if not varies_first and self._add_products(self._products(columns)):
                return
        self._factorise(self._shifted(chunk, scaled=False))

    def _add_products(self, products: Array) -> bool:
        """Add cross products of rows to the Gram matrix, unless they are too large. Return True if they were added.

        Rows that outweigh all earlier ones, even in one direction, would erase the digits of these. The summation is
        compensated (Kahan, 1965): the errors of many equal chunks would grow with their number.
        """
        assert self._gram is not None
        if not (self._gram.diagonal() + products.diagonal() <= self._max_diagonal).all():
            return False
        products += self._compensation
        np.add(self._gram, products, out=self._next_gram)
        np.subtract(self._next_gram, self._gram, out=self._gram)
        np.subtract(products, self._gram, out=self._compensation)
        self._gram, self._next_gram = self._next_gram, self._gram
        return True

    def _factorise(self, columns: Array) -> None:
        """Add shifted columns, (d, m), that are not scaled yet, by Householder QR. Raises ValuesTooLarge."""
        self._factorisations += 1
        factor = self._factor()
        column_sizes, factor_sizes = np.abs(columns).max(axis=1), np.abs(factor).max(axis=0)
        overflow = ~(np.isfinite(column_sizes) & np.isfinite(factor_sizes))
        if overflow.any():
            raise ValuesTooLarge(int(np.flatnonzero(overflow)[0]) - 1)
        self._flat = (column_sizes == 0) & (factor_sizes == 0)
        self._has_flat = bool(self._flat.any())
        before = self._exponents
        powers = np.maximum(_powers(column_sizes), _powers(factor_sizes) + before)
        low, high = np.frexp(ORDINARY)[1]
        extreme = ~self._flat & ((powers - before < low) | (powers - before > high))
        self._exponents = np.where(extreme, powers, before)
        self._is_scaled = bool(self._exponents.any())
        if self._is_scaled or extreme.any():
            columns = np.ldexp(columns, -self._exponents[:, np.newaxis])
            factor = np.ldexp(factor, before - self._exponents)
        self._restart(r_factor(np.vstack([factor, columns.T])))

    def _shifted(self, chunk: TrainingBatch, *, scaled: bool = True) -> Array:
        """Return the rows [1, z - shift], multiplied by the roots of their weights, feature-major: (d, m)."""
        rows, p = len(chunk.x), self._features
        columns = self._columns if rows == self._chunk_rows else np.empty((len(self._preconditioner), rows))
        columns[0] = 1.0
        columns[1 : p + 1] = chunk.x.T
        columns[p + 1 :] = chunk.y.T
        self._observe_range(columns[1 : p + 1].min(axis=1), columns[1 : p + 1].max(axis=1))
        columns[1:] -= self._shift[:, np.newaxis]
        if chunk.sample_weight is not None:
            columns *= np.sqrt(chunk.sample_weight)
        if scaled and self._is_scaled:
            columns = np.ldexp(columns, -self._exponents[:, np.newaxis])
        return columns

    def _products(self, columns: Array) -> Array:
        """Return the Gram matrix of columns, (d, m), after whitening if it is on. The columns may be overwritten."""
        if self._whiten:
            # The transpose is in Fortran's order, so that dtrsm solves in place.
            columns = dtrsm(1.0, self._preconditioner, columns.T, side=1, overwrite_b=1).T
        return np.asarray(columns @ columns.T)

    def _observe_range(self, minimum: Array, maximum: Array) -> None:
        self._minimum = np.minimum(self._minimum, minimum)
        self._maximum = np.maximum(self._maximum, maximum)

    def _is_plain(self, factor: Array) -> bool:
        """Return True if the plain Gram matrix of rows with this factor is as accurate as the factor."""
        condition = condition_number(factor)
        if condition < MAX_PLAIN_GRAM_CONDITION:
            return True
        inputs = factor[: self._features + 1, : self._features + 1]
        return condition < MAX_PLAIN_GRAM_CONDITION_WITH_TARGETS and condition_number(inputs) < MAX_PLAIN_GRAM_CONDITION

    def _restart(self, factor: Array) -> None:
        self._preconditioner = factor
        self._compensation.fill(0.0)
        self._whiten = not self._is_plain(factor)
        if self._whiten:
            self._gram = np.eye(len(factor)) if condition_number(factor) < MAX_CONDITION else None
        else:
            self._gram = factor.T @ factor
        self._schedule_check()

    def _schedule_check(self) -> None:
        self._next_check = 2 * self._rows
        self._max_diagonal = np.inf if self._gram is None else MAX_GROWTH * self._gram.diagonal()

    def _factor(self) -> Array:
        """Return the factor of all rows so far."""
        if self._gram is None:
            return self._preconditioner
        return self._gram_factor() @ self._preconditioner if self._whiten else self._gram_factor()

    def _gram_factor(self) -> Array:
        assert self._gram is not None
        try:
            return np.asarray(np.linalg.cholesky(self._gram, upper=True))
        except np.linalg.LinAlgError:  # a square overflowed; the caller checks for infinite values
            return np.full_like(self._preconditioner, np.inf)


def _powers(sizes: Array) -> NDArray[np.int_]:
    """Return the exponents of the powers of two above sizes; one below all others for a size of 0."""
    return np.where(sizes > 0, np.frexp(sizes)[1], -100_000)


def checked_rows(rows: int, weight: float, kind: WeightKind) -> int:
    """Return the number of rows, or the sum of their weights if these are frequencies.

    Raises InvalidData if the sum exceeds MAX_OBSERVATIONS.
    """
    if kind == "precision":
        return rows
    if weight > MAX_OBSERVATIONS:
        raise InvalidData(f"The frequency weights add up to more than {MAX_OBSERVATIONS} observations.")
    return round(weight)
