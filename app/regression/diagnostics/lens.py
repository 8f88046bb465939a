"""Turns batches of rows into the chunks that diagnostics are computed from."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from app.regression.design import Design
from app.regression.diagnostics.chunk import RowChunk
from app.regression.linear_model import MAX_CHUNK_VALUES, LinearModel
from app.regression.sufficient_statistics import EPSILON, Array, column_norms
from app.regression.training_batch import TrainingBatch

# Rounding error of a leverage, relative to it, for each unit of the condition number.
LEVERAGE_ERROR = 64 * EPSILON
# Largest error allowed of a leverage h and of 1 - h, of the sum of all leverages and of a sum of squared residuals.
ALLOWED_ERROR = 1e-6


class Lens:
    """Turns rows into chunks for some targets of a model and its design."""

    def __init__(self, model: LinearModel, design: Design, targets: Sequence[int], *, with_leverage: bool) -> None:
        """Prepare for rows of the model's columns. Without leverage, it is 0 and nothing is whitened."""
        statistics, p = model.statistics, len(design.norms)
        self.targets = list(targets)
        self.has_counts = statistics.weight_kind == "frequency"
        self.leverage_error = LEVERAGE_ERROR * design.condition_number  # relative to the leverage
        self.unit = model.residual_norms[self.targets] / np.sqrt(statistics.total_weight)  # of scaled residuals
        self._predictor = _predictor(model, self.targets)
        self._mean_weight, self._with_leverage = statistics.mean_weight, with_leverage
        self._shift, self._offset = statistics.shift[:p], statistics.offset[:p]
        self._least = 1 / statistics.total_weight if design.intercept else 0.0
        self._whiten = _Whitening(design) if with_leverage else None
        # Without an intercept, the deviations from the means are not the columns of the design.
        self.centred = design if design.intercept else Design.of(statistics)
        self._whiten_centred = _Whitening(self.centred) if with_leverage and not design.intercept else None

    @property
    def typical_fits(self) -> list[tuple[float, float]]:
        """The mean and the standard deviation of the fitted values of each target."""
        statistics, p = self._predictor.statistics, len(self._shift)
        columns = statistics.factor[1:, 1 : p + 1] * statistics.scale[:p]
        deviations = column_norms(columns @ self._predictor.coef.T) / np.sqrt(statistics.total_weight)
        return list(zip(self._predictor.mean_prediction.tolist(), deviations.tolist(), strict=True))

    def chunks(self, batch: TrainingBatch, numbers: NDArray[np.int64]) -> Iterator[RowChunk]:
        """Yield the rows, MAX_CHUNK_VALUES values at a time. Raises PredictionTooLarge."""
        size = max(1, MAX_CHUNK_VALUES // batch.x.shape[1])
        for start in range(0, len(batch.x), size):
            part = slice(start, start + size)
            yield self._chunk(batch.select(part), numbers[part])

    def _chunk(self, batch: TrainingBatch, numbers: NDArray[np.int64]) -> RowChunk:
        precision = counts = None
        if batch.sample_weight is not None and self.has_counts:
            counts = batch.sample_weight
        elif batch.sample_weight is not None:
            precision = batch.sample_weight / self._mean_weight
        fitted = self._predictor.predict(batch.x) if self.targets else np.empty((len(batch.x), 0))
        residuals = batch.y[:, self.targets] - fitted
        scaled = residuals / self.unit
        if precision is not None:
            scaled *= np.sqrt(precision)[:, np.newaxis]
        whitened, leverage = self._whitened(batch.x)
        if batch.sample_weight is not None and counts is None:
            leverage *= batch.sample_weight
        certain = ALLOWED_ERROR * (1 - leverage) > self.leverage_error
        return RowChunk(
            batch.x, fitted, residuals, scaled, whitened, leverage, certain, numbers, weights=precision, counts=counts
        )

    def _whitened(self, columns: Array) -> tuple[Array, Array]:
        """Return whitened deviations, (n, r), and the leverages of rows of weight 1, (n,)."""
        if self._whiten is None:
            return np.empty((len(columns), 0)), np.zeros(len(columns))
        deviations = columns - self._shift - self._offset
        whitened = self._whiten(deviations if self._whiten_centred is None else columns)
        leverage = np.einsum("ij,ij->i", whitened, whitened) + self._least
        return whitened if self._whiten_centred is None else self._whiten_centred(deviations), leverage


class _Whitening:
    """Turns the rows of a design into rows whose weighted columns are orthonormal."""

    def __init__(self, design: Design) -> None:
        self._norms, self._root = np.where(design.norms > 0, design.norms, 1.0), design.unit_root()

    def __call__(self, rows: Array) -> Array:
        return np.asarray((rows / self._norms) @ self._root)


def _predictor(model: LinearModel, targets: Sequence[int]) -> LinearModel:
    """Return the model of these targets, which takes the columns in place of the features."""
    centre = model.centre_prediction
    return replace(
        model,
        features=model.columns,
        targets=tuple(model.targets[target] for target in targets),
        coef=model.coef[targets],
        intercept=model.intercept[targets],
        residual_norms=model.residual_norms[targets],
        centre_prediction=None if centre is None else centre[targets],
        terms=(),
    )
