"""The rows of a gradient descent: its columns, its batches, and the rows that it validates on."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.regression.errors import DeviceUnavailable, InvalidOption
from app.regression.learning_rate_bound import exceeds_bound, largest_learning_rate
from app.regression.solvers.gradient_descent import GradientDescent
from app.regression.solvers.scaler import Scaler
from app.regression.streaming_qr import summarise
from app.regression.sufficient_statistics import Array, SufficientStatistics
from app.regression.training_batch import TrainingBatch


class Batch(NamedTuple):
    """Rows [w, w x] and [w y] with w the square root of their weight, or the rows of a factor R in their place."""

    inputs: Tensor  # (m, 1 + p)
    targets: Tensor  # (m, k)
    weight: float  # total weight of the rows, which the mean is taken over

    @classmethod
    def of(cls, rows: Tensor, features: int, weight: float) -> "Batch":
        return cls(rows[:, : features + 1], rows[:, features + 1 :], weight)

    def loss(self, coefficients: Tensor) -> float:
        """Return the mean squared error over rows and targets, F.mse_loss."""
        error = torch.addmm(self.targets, self.inputs, coefficients.T, beta=-1)
        return float((error * error).sum()) / (self.weight * error.shape[1])


class RowBatches:
    """The rows themselves on the device, in batches of fewer than all."""

    def __init__(
        self, rows: TrainingBatch, options: GradientDescent, scaler: Scaler, weight: float, device: torch.device
    ) -> None:
        """Put the rows, of this total weight, on the device."""
        self._options = options
        self._mean_weight = weight / len(rows.x)
        p = self._features = rows.x.shape[1]
        values = np.empty((len(rows.x), 1 + p + rows.y.shape[1]))
        values[:, 0] = 1.0
        values[:, 1 : p + 1] = scaler.columns(rows.x) if options.standardize else rows.x
        values[:, p + 1 :] = rows.y
        if rows.sample_weight is not None:
            values *= np.sqrt(rows.sample_weight)[:, np.newaxis]
        self._rows = torch.from_numpy(values).to(device)

    def of_epoch(self, epoch: int) -> Iterable[Batch]:
        """Return the batches of an epoch, whose order depends on the seed and the epoch alone."""
        size = self._options.batch_size
        assert size is not None
        rows = self._rows
        if self._options.shuffle:
            generator = torch.Generator().manual_seed(self._options.seed * 1_000_003 + epoch)
            # One gather per epoch makes the batches views. A gather per batch would double the time of a step.
            rows = rows.index_select(0, torch.randperm(len(rows), generator=generator).to(rows.device))
        parts = zip(*(torch.split(part, size) for part in Batch.of(rows, self._features, 0)[:2]), strict=True)
        return (Batch(inputs, targets, len(inputs) * self._mean_weight) for inputs, targets in parts)


@dataclass(frozen=True, eq=False)
class Task:
    """The objective of a run, and the batches of an epoch.

    The losses of many rows are those of their factor R: |[1, X] w - Y|^2 is |R_x w - R_y|^2.
    """

    options: GradientDescent
    scaler: Scaler
    statistics: SufficientStatistics  # statistics of the rows that are trained on
    factor: Array  # R factor of the same rows, in the scaled columns
    all_rows: Batch
    monitored_rows: Batch  # the rows whose loss patience watches
    rows: RowBatches | None  # None if every step takes all rows
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        rows: TrainingBatch | None,
        statistics: SufficientStatistics,
        options: GradientDescent,
        device: torch.device,
    ) -> "Task":
        """Return the task of a run over the rows of `statistics`; `rows` are needed only if `options.needs_rows`.

        Raises InvalidOption if no row would remain to train on.
        """
        scaler = Scaler.of(statistics, options)
        validation, batches = None, None
        warnings: tuple[str, ...] = ()
        if rows is not None and options.needs_rows:
            rows = _of_positive_weight(rows)
            count, warnings = _validation_rows(len(rows.x), options)
            if count:
                order = torch.randperm(len(rows.x), generator=torch.Generator().manual_seed(options.seed)).numpy()
                validation = summarise([_part(rows, order[:count])])
                rows = _part(rows, order[count:])
                statistics = summarise([rows])
            if options.batch_size is not None and options.batch_size < len(rows.x):
                batches = RowBatches(rows, options, scaler, statistics.total_weight, device)
        factor = scaler.factor(statistics)
        all_rows = monitored = _batch_of(factor, statistics, device)
        if validation is not None:
            monitored = _batch_of(scaler.factor(validation), validation, device)
        return cls(options, scaler, statistics, factor, all_rows, monitored, batches, warnings)

    def of_epoch(self, epoch: int) -> Iterable[Batch]:
        return [self.all_rows] if self.rows is None else self.rows.of_epoch(epoch)

    def penalty(self, coefficients: Array) -> float:
        """Return the part of the objective that weight_decay adds for coefficients (k, 1 + p)."""
        return self.options.weight_decay / 2 * float(np.vdot(coefficients, coefficients))

    def loss_of_constant(self) -> float:
        """Return the objective of the best constant prediction, the mean of each target."""
        # The factor is triangular: its first row has the means, the others have the deviations from them.
        targets = self.factor[:, self.statistics.features + 1 :]
        mean = targets[0] / math.sqrt(self.all_rows.weight)
        deviation = float(np.linalg.norm(targets[1:])) / math.sqrt(self.all_rows.weight * len(mean))
        return deviation * deviation + self.penalty(mean)

    @property
    def bound(self) -> float:
        """The learning rate below which steps that take all rows cannot diverge."""
        return largest_learning_rate(self.statistics, self.options, self.factor)

    @property
    def is_stable(self) -> bool:
        """Return True if every step takes all rows, and the learning rate is within the bound."""
        return self.rows is None and not exceeds_bound(self.statistics, self.options, self.factor)


def choose_device(wanted: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda". Raises DeviceUnavailable for "cuda" if there is none."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise DeviceUnavailable('There is no CUDA device on the training machine. Send "auto" or "cpu".')
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def _validation_rows(rows: int, options: GradientDescent) -> tuple[int, tuple[str, ...]]:
    """Return the number of validation rows, and a warning if `validation_fraction` rounds it to 0."""
    count = round(options.validation_fraction * rows)
    if count == rows:
        raise InvalidOption(
            "validation_fraction",
            f"validation_fraction={options.validation_fraction:g} of {rows} row(s) holds out all of them. "
            "At least one row must remain to "
            "train on: choose a smaller fraction, or send more rows.",
        )
    if count or not options.validation_fraction:
        return count, ()
    instead = "all rows are trained on" if options.patience is None else "patience watches the training rows"
    return 0, (f"validation_fraction={options.validation_fraction:g} of {rows} rows holds out no row; {instead}.",)


def _of_positive_weight(rows: TrainingBatch) -> TrainingBatch:
    return (
        rows
        if rows.sample_weight is None or rows.sample_weight.all()
        else _part(rows, np.flatnonzero(rows.sample_weight))
    )


def _part(rows: TrainingBatch, chosen: NDArray[np.int64]) -> TrainingBatch:
    return TrainingBatch(
        rows.x[chosen], rows.y[chosen], None if rows.sample_weight is None else rows.sample_weight[chosen]
    )


def _batch_of(factor: Array, statistics: SufficientStatistics, device: torch.device) -> Batch:
    return Batch.of(torch.from_numpy(factor).to(device), statistics.features, statistics.total_weight)
