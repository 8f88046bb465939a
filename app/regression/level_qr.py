"""An accumulator for rows in which most columns are the indicators of one category.

The cross products of p indicators are p numbers instead of p squared. For thousands of levels, this takes seconds, not
hours.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from app.regression.double_double import two_sum
from app.regression.errors import ValuesTooLarge
from app.regression.streaming_qr import StreamingQR, checked_rows
from app.regression.sufficient_statistics import (
    MAX_REACH,
    Array,
    SufficientStatistics,
    WeightKind,
    r_factor,
    shift_and_scale,
)
from app.regression.threads import Threads
from app.regression.training_batch import TrainingBatch

MIN_INDICATORS = 33  # Number of a category's indicators from which LevelQR is faster than StreamingQR.
CHUNK_ROWS = 8192  # Rows processed at once.
INDICATOR_SCALE = 2.0  # as `shift_and_scale` gives for a column of zeros and ones


class LevelQR:
    """The R factor of rows [1, z - shift] in which a block of columns indicates one of several levels, or none.

    For each level, the weight and the means of the other columns are kept. The deviations of the other columns from
    these means go through `StreamingQR`. When a batch changes the mean of a level, the change is added as one more row,
    weighted as in the sum of squares of two groups (Chan, Golub and LeVeque, The American Statistician 37, 1983). A QR
    decomposition of the levels' rows and the factor of the deviations gives the factor of all rows, with the columns in
    their order.

    Level 0 is the reference level: no indicator is 1.
    """

    def __init__(self, first: TrainingBatch, block: slice, threads: Threads | None = None) -> None:
        """Choose the shift and the scale from the first batch. It is not added yet.

        `block` has the places of the indicators. In each row, at most one of them is 1, and the others are 0.
        """
        features, targets = first.x.shape[1], first.y.shape[1]
        self._features, self._width = features, features + targets
        is_indicator = np.zeros(self._width, dtype=bool)
        is_indicator[block] = True
        self._block, self._places = block, np.flatnonzero(is_indicator)
        self._others = np.flatnonzero(~is_indicator)
        self._inputs = features - len(self._places)  # features that are not in the block
        sample = first.select(slice(CHUNK_ROWS))
        shift, scale = shift_and_scale(self._columns(sample).T, sample.sample_weight)
        self._shift, self._scale = shift[:, np.newaxis], scale[:, np.newaxis]
        levels = len(self._places) + 1
        # Columns are in units of the scale. Those of a level are deviations from the values of its first row, so that
        # the deviations of a column that is constant in the level are exactly zero.
        self._first_values = np.zeros((len(self._others), levels))
        # Weight of each level, and weighted sums of the columns, with their rounding errors.
        self._sums = np.zeros((1 + len(self._others), levels))
        self._errors = np.zeros_like(self._sums)
        self._threads = threads
        self._deviations: StreamingQR | None = None
        self._rows, self._weight, self._log_weights = 0, 0.0, 0.0
        self._minimum, self._maximum = np.full(self._inputs, np.inf), np.full(self._inputs, -np.inf)

    def add(self, batch: TrainingBatch) -> None:
        """Add a batch of at least one row. All weights are positive. Raises ValuesTooLarge."""
        for start in range(0, len(batch.x), CHUNK_ROWS):
            self._add_chunk(batch.select(slice(start, start + CHUNK_ROWS)))

    def _columns(self, batch: TrainingBatch) -> Array:
        """Return the columns outside the block, (m, n)."""
        columns = np.empty((len(self._others), len(batch.x)))
        for column, place in zip(columns, self._others, strict=True):
            column[:] = batch.x[:, place] if place < self._features else batch.y[:, place - self._features]
        return columns

    def _add_chunk(self, chunk: TrainingBatch) -> None:
        columns = self._columns(chunk)
        weights = np.ones(len(chunk.x)) if chunk.sample_weight is None else chunk.sample_weight
        self._rows += len(weights)
        self._weight += float(weights.sum())
        if chunk.sample_weight is not None:
            self._log_weights += float(np.log(weights).sum())
        inputs = columns[: self._inputs]
        self._minimum = np.minimum(self._minimum, inputs.min(axis=1))
        self._maximum = np.maximum(self._maximum, inputs.max(axis=1))
        numbers = np.arange(1.0, len(self._places) + 1)
        codes = np.rint(chunk.x[:, self._block] @ numbers).astype(np.intp)
        levels, first_rows, groups = np.unique(codes, return_index=True, return_inverse=True)
        self._add_groups(columns, weights, levels, first_rows, groups)

    def _add_groups(
        self,
        columns: Array,
        weights: Array,
        levels: NDArray[np.intp],
        first_rows: NDArray[np.intp],
        groups: NDArray[np.intp],
    ) -> None:
        """Add columns, (m, n), of rows that are in these groups, (n,). Each group has a level and a first row."""
        is_new = self._sums[0, levels] == 0
        self._first_values[:, levels[is_new]] = columns[:, first_rows[is_new]]
        columns -= self._first_values[:, levels][:, groups]
        columns /= self._scale
        group_weights = np.bincount(groups, weights)
        means = np.zeros((len(columns), len(levels)))
        for _ in range(2):  # the second time corrects the rounding of the sums
            changes = np.stack([np.bincount(groups, column * weights) for column in columns]) / group_weights
            columns -= changes[:, groups]
            means += changes
        # A level that had rows before has a row for the distance of the means.
        old = levels[~is_new]
        earlier, added = self._sums[0, old], group_weights[~is_new]
        distances = self._sums[1:, old] / earlier - means[:, ~is_new]
        self._add_deviations(
            np.hstack([columns, distances]), np.concatenate([weights, earlier * (added / (earlier + added))])
        )
        added_sums = np.vstack([group_weights, means * group_weights])
        sums, errors = two_sum(self._sums[:, levels], added_sums + self._errors[:, levels])
        self._sums[:, levels], self._errors[:, levels] = sums, errors

    def _add_deviations(self, columns: Array, weights: Array) -> None:
        """Add deviations from the means of levels, (m, n), in units of the scale. Raises ValuesTooLarge."""
        rows = TrainingBatch(columns[: self._inputs].T, columns[self._inputs :].T, weights)
        if self._deviations is None:
            self._deviations = StreamingQR(rows, threads=self._threads)
        with self._columns_named():
            self._deviations.add(rows)

    @contextmanager
    def _columns_named(self) -> Iterator[None]:
        """Number the column of ValuesTooLarge among all columns."""
        try:
            yield
        except ValuesTooLarge as error:
            raise ValuesTooLarge(int(self._others[error.column])) from None

    def flush(self) -> None:
        """Do nothing: the rows of a batch are not used after `add`."""

    def statistics(self, weight_kind: WeightKind = "precision") -> SufficientStatistics:
        """Return the statistics of all rows so far, whose weights are of this kind.

        Raises ValuesTooLarge and InvalidData as `StreamingQR.statistics` does.
        """
        assert self._deviations is not None
        rows = checked_rows(self._rows, self._weight, weight_kind)
        shift, scale = np.zeros(self._width), np.full(self._width, INDICATOR_SCALE)
        shift[self._others], scale[self._others] = self._shift[:, 0], self._scale[:, 0]
        present = self._sums[0, 1:] > 0
        shift[self._places] = self._sums[0, 1:] > self._weight / 2
        with self._columns_named():
            deviations = self._deviations.statistics()
        factor_rows = np.vstack([self._level_rows(shift), self._deviation_rows(deviations)])
        # Columns whose later rows differ in magnitude from the first ones.
        powers = np.frexp(np.abs(factor_rows[:, 1:]).max(axis=0))[1]
        powers = np.where(np.abs(powers) > MAX_REACH, np.clip(powers, -1000, 1000), 0)
        factor_rows[:, 1:] = np.ldexp(factor_rows[:, 1:], -powers)
        minimum, maximum = np.zeros(self._features), np.ones(self._features)
        inputs = self._others[: self._inputs]
        minimum[inputs], maximum[inputs] = self._minimum, self._maximum
        maximum[self._places] = present
        if present.sum() == 1 and self._sums[0, 0] == 0:
            minimum[self._places] = present
        return SufficientStatistics(
            features=self._features,
            rows=rows,
            effective_rows=float(rows),
            shift=shift,
            scale=np.ldexp(scale, powers),
            factor=r_factor(factor_rows),
            minimum=minimum,
            maximum=maximum,
            weight_kind=weight_kind,
            log_weights=self._log_weights if weight_kind == "precision" else 0.0,
            operations=deviations.operations + 2,
        )

    def _level_rows(self, shift: Array) -> Array:
        """Return the rows [1, (mean - shift) / scale] of the levels that have rows, times the roots of weights."""
        levels = np.flatnonzero(self._sums[0])
        weights = self._sums[0, levels]
        rows = np.empty((len(levels), 1 + self._width))
        rows[:, 0] = 1.0
        indicators = np.eye(len(self._places) + 1)[levels, 1:]
        rows[:, self._places + 1] = (indicators - shift[self._places]) / INDICATOR_SCALE
        means = self._sums[1:, levels] / weights
        rows[:, self._others + 1] = ((self._first_values[:, levels] - self._shift) / self._scale + means).T
        rows *= np.sqrt(weights)[:, np.newaxis]
        return rows

    def _deviation_rows(self, deviations: SufficientStatistics) -> Array:
        """Return rows whose cross products are those of the deviations from the means of the levels."""
        factor = r_factor(deviations.factor_about_zero[:, 1:]) * deviations.scale
        rows = np.zeros((len(factor), 1 + self._width))
        rows[:, self._others + 1] = factor
        return rows
