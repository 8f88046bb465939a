"""An accumulator of sufficient statistics, which adds up the rows of batches at memory speed."""

from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.regression.cross_products import ORDINARY, CompensatedSum, Coordinates, SegmentSums, sum_segment
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
from app.regression.threads import Threads
from app.regression.training_batch import TrainingBatch

# Bytes of the columns processed at once, so that they stay in the cache. Threads wait for each other between two steps
# of a chunk, so that small chunks take longer.
CHUNK_BYTES = 3 << 19
# The first factor is that of an eighth of a chunk, but of 128 rows at least: QR takes five times as long as products.
FIRST_PART, MIN_FIRST_ROWS = 8, 128
MAX_SEGMENT = 16  # Chunks that one thread adds up at most before their sums are merged.
MIN_SEGMENTS = 32  # Segments of a batch of many chunks, so that threads end at about the same time.
# Chunks added up by the calling thread before others are started, because their start takes 0.2 ms.
MIN_CHUNKS = 10
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


class StreamingQR:
    """The R factor of rows [1, z - shift] that arrive in batches, by preconditioned CholeskyQR.

    A factor R0 of the rows so far whitens those that follow. W = Z R0^-1 has a condition number near 1, so that its
    Gram matrix loses no digits, and R = chol(I + W'W) R0 is the factor of all rows. It is as accurate as Householder QR
    for about twice the work of a Gram matrix (Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, SIAM J. Sci.
    Comput. 42, 2020). If the columns are nearly orthogonal, R = chol(R0'R0 + Z'Z) is accurate enough. If R0 is nearly
    singular, rows go through Householder QR.

    Segments of rows are added up at the same time if there are several threads, and their sums are merged in order. The
    result has the same bits for any number of threads.
    """

    def __init__(self, first: TrainingBatch, chunk_bytes: int | None = None, threads: Threads | None = None) -> None:
        """Choose the shift and the scale from the first batch. It is not added yet."""
        self._features = first.x.shape[1]
        width = self._features + first.y.shape[1] + 1
        chunk_rows = max(2 * width, (CHUNK_BYTES if chunk_bytes is None else chunk_bytes) // (8 * width))
        self._first_rows = max(2 * width, chunk_rows // FIRST_PART, min(chunk_rows, MIN_FIRST_ROWS))
        chunk = first.select(slice(self._first_rows))
        shift, self._scale = shift_and_scale(np.hstack([chunk.x, chunk.y]), chunk.sample_weight)
        self._rows, self._weight, self._log_weights = 0, 0.0, 0.0
        self._coordinates = Coordinates(self._features, chunk_rows, shift)
        # Columns are multiplied by 2^-exponent. Exponents are 0 unless squares would overflow or underflow.
        self._exponents = np.zeros(width, dtype=int)
        self._flat = np.ones(width, dtype=bool)  # columns whose deviations are all zero so far
        self._preconditioner = np.zeros((width, width))  # R0, the factor at the last restart
        self._whiten = False
        # Gram matrix of all rows: whitened, R0^-1' Z'Z R0^-1, or plain, Z'Z. None if rows go through Householder QR.
        self._gram: CompensatedSum | None = None
        self._factorisations = 0  # QR decompositions, each of which rounds
        self._minimum = np.full(self._features, np.inf)
        self._maximum = np.full(self._features, -np.inf)
        self._next_check = 0  # number of rows at which the preconditioner is checked
        self._max_diagonal: Array | float = np.inf  # largest diagonal of the Gram matrix before a restart
        self._threads = threads or Threads()
        self._workspaces = self._threads.workspaces
        self._pending: deque[_Segment] = deque()  # segments that are not added yet, in order

    def add(self, batch: TrainingBatch) -> None:
        """Add a batch of at least one row. All weights are positive. The rows may not change until `flush`."""
        first = 0
        if self._rows == 0 and not self._pending:  # its factor whitens the segments that follow
            first = self._first_rows
            chunk = batch.select(slice(first))
            self._add_segment(chunk, self._sums(chunk))
        chunk_rows = self._coordinates.chunk_rows
        step = chunk_rows * min(max(len(batch.x) // (chunk_rows * MIN_SEGMENTS), 1), MAX_SEGMENT)
        for start in range(first, len(batch.x), step):
            rows = batch.select(slice(start, start + step))
            if self._threads.count == 1 or not (self._pending or self._is_long(batch)):
                self._add_segment(rows, self._sums(rows))
                continue
            self._pending.append(self._start(rows))
            while len(self._pending) > 2 * self._threads.count:
                self._add_oldest()

    def flush(self) -> None:
        """Wait until all rows are added."""
        while self._pending:
            self._add_oldest()

    def statistics(self, weight_kind: WeightKind = "precision") -> SufficientStatistics:
        """Return the statistics of all rows so far, whose weights are of this kind.

        Raises ValuesTooLarge, and InvalidData if the sum of frequency weights exceeds MAX_OBSERVATIONS.
        """
        self.flush()
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
            shift=self._coordinates.shift,
            scale=np.ldexp(1.0, powers[1:]),
            factor=np.ldexp(self._factor(), self._exponents - powers),
            minimum=self._minimum,
            maximum=self._maximum,
            weight_kind=weight_kind,
            log_weights=self._log_weights if weight_kind == "precision" else 0.0,
            operations=max(self._factorisations - 1, 0),
        )

    def _is_long(self, batch: TrainingBatch) -> bool:
        """Return True if the rows so far and those of the batch are worth starting threads."""
        return self._rows + len(batch.x) > MIN_CHUNKS * self._coordinates.chunk_rows

    def _sums(self, rows: TrainingBatch) -> SegmentSums:
        return sum_segment(self._coordinates, rows, self._workspaces)

    def _start(self, rows: TrainingBatch) -> "_Segment":
        call = partial(sum_segment, self._coordinates, rows, self._workspaces)
        return _Segment(rows, self._threads.submit(call))

    def _add_oldest(self) -> None:
        rows, sums = self._pending.popleft()
        coordinates = self._coordinates
        self._add_segment(rows, sums.result())
        if self._coordinates is not coordinates:  # the sums of the others are in the coordinates before
            for segment in self._pending:
                segment.sums.cancel()
            self._pending = deque(self._start(segment.rows) for segment in self._pending)

    def _add_segment(self, rows: TrainingBatch, sums: SegmentSums) -> None:
        self._observe(len(rows.x), sums)
        if sums.factor is not None:
            self._factorise(sums.factor.T)
        elif sums.products is None or not self._add_products(sums.products.total, sums.products.error):
            for chunk in self._coordinates.chunks(rows):
                self._add_chunk(chunk)
        self._check()

    def _observe(self, rows: int, sums: SegmentSums) -> None:
        self._rows += rows
        self._weight += sums.weight
        self._log_weights += sums.log_weights
        self._minimum = np.minimum(self._minimum, sums.minimum)
        self._maximum = np.maximum(self._maximum, sums.maximum)

    def _check(self) -> None:
        """Take the factor of all rows so far for the rows that follow, if the covariance of the rows has drifted."""
        if self._gram is None or self._rows < self._next_check:
            return
        if self._is_plain(self._gram_factor()):
            self._schedule_check()
        else:
            self._restart(self._factor())

    def _add_chunk(self, chunk: TrainingBatch) -> None:
        if self._gram is not None:
            products = self._coordinates.products(self._coordinates.columns(chunk))
            if products is not None and self._add_products(products):
                return
        self._factorise(self._coordinates.columns(chunk).columns)

    def _add_products(self, products: Array, error: Array | float = 0.0) -> bool:
        """Add cross products of rows to the Gram matrix, unless they are too large. Return True if they were added.

        Rows that outweigh all earlier ones, even in one direction, would erase the digits of these.
        """
        assert self._gram is not None
        if not (self._gram.total.diagonal() + products.diagonal() <= self._max_diagonal).all():
            return False
        self._gram.error += error
        self._gram.add(products)
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
        before = self._exponents
        powers = np.maximum(_powers(column_sizes), _powers(factor_sizes) + before)
        low, high = np.frexp(ORDINARY)[1]
        extreme = ~self._flat & ((powers - before < low) | (powers - before > high))
        self._exponents = np.where(extreme, powers, before)
        if self._exponents.any() or extreme.any():
            columns = np.ldexp(columns, -self._exponents[:, np.newaxis])
            factor = np.ldexp(factor, before - self._exponents)
        self._restart(r_factor(np.vstack([factor, columns.T])))

    def _is_plain(self, factor: Array) -> bool:
        """Return True if the plain Gram matrix of rows with this factor is as accurate as the factor."""
        condition = condition_number(factor)
        if condition < MAX_PLAIN_GRAM_CONDITION:
            return True
        inputs = factor[: self._features + 1, : self._features + 1]
        return condition < MAX_PLAIN_GRAM_CONDITION_WITH_TARGETS and condition_number(inputs) < MAX_PLAIN_GRAM_CONDITION

    def _restart(self, factor: Array) -> None:
        self._preconditioner = factor
        self._whiten = not self._is_plain(factor)
        if self._whiten:
            self._gram = CompensatedSum(np.eye(len(factor))) if condition_number(factor) < MAX_CONDITION else None
        else:
            self._gram = CompensatedSum(factor.T @ factor)
        if self._gram is not None or self._coordinates.has_products:
            self._coordinates = replace(
                self._coordinates,
                exponents=self._exponents if self._exponents.any() else None,
                flat=self._flat if self._flat.any() else None,
                preconditioner=np.ascontiguousarray(factor) if self._whiten else None,
                has_products=self._gram is not None,
            )
        self._schedule_check()

    def _schedule_check(self) -> None:
        self._next_check = 2 * self._rows
        self._max_diagonal = np.inf if self._gram is None else MAX_GROWTH * self._gram.total.diagonal()

    def _factor(self) -> Array:
        """Return the factor of all rows so far."""
        if self._gram is None:
            return self._preconditioner
        return self._gram_factor() @ self._preconditioner if self._whiten else self._gram_factor()

    def _gram_factor(self) -> Array:
        assert self._gram is not None
        try:
            return np.asarray(np.linalg.cholesky(self._gram.total, upper=True))
        except np.linalg.LinAlgError:  # a square overflowed; the caller checks for infinite values
            return np.full_like(self._preconditioner, np.inf)


class _Segment(NamedTuple):
    rows: TrainingBatch
    sums: "Future[SegmentSums]"


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
