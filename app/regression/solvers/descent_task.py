"""The rows of a gradient descent: its columns, its batches, and the rows that it validates on."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.regression.errors import DeviceUnavailable, InvalidOption
from app.regression.solvers.gradient_descent import GradientDescent
from app.regression.solvers.scaler import Scaler, largest_learning_rate
from app.regression.sufficient_statistics import Array, SufficientStatistics
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch


class Batch(NamedTuple):
    """Rows [w, w x] and [w y] with w the square root of their weight, or the rows of a factor R in their place."""

    inputs: Tensor  # (m, 1 + p)
    targets: Tensor  # (m, k)
    weight: float  # total weight of the rows, which the mean is taken over

    def loss(self, coefficients: Tensor) -> float:
        """Return the mean squared error over rows and targets, F.mse_loss."""
        error = torch.addmm(self.targets, self.inputs, coefficients.T, beta=-1)
        return float((error * error).sum()) / (self.weight * error.shape[1])


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
    rows: Batch | None  # the rows themselves; None if every step takes all of them
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
        validation, on_device = None, None
        warnings: tuple[str, ...] = ()
        if rows is not None and options.needs_rows:
            rows = rows.without_zero_weights()
            count, warnings = _validation_rows(len(rows.x), options)
            if count:
                order = torch.randperm(len(rows.x), generator=torch.Generator().manual_seed(options.seed)).numpy()
                validation = summarise([rows.select(order[:count])])
                rows = rows.select(order[count:])
                statistics = summarise([rows])
            if options.batch_size is not None and options.batch_size < len(rows.x):
                on_device = _batch(_weighted_rows(rows, scaler, options), statistics, device)
        factor = scaler.factor(statistics)
        all_rows = monitored = _batch(factor, statistics, device)
        if validation is not None:
            monitored = _batch(scaler.factor(validation), validation, device)
        return cls(options, scaler, statistics, factor, all_rows, monitored, on_device, warnings)

    def of_epoch(self, epoch: int) -> Iterable[Batch]:
        """Return the batches of an epoch, whose order depends on the seed and the epoch alone."""
        size = self.options.batch_size
        if self.rows is None or size is None:
            return [self.all_rows]
        inputs, targets, weight = self.rows
        count = len(inputs)
        if self.options.shuffle:
            generator = torch.Generator().manual_seed(self.options.seed * 1_000_003 + epoch)
            order = torch.randperm(count, generator=generator).to(inputs.device)
            # One gather per epoch makes the batches views. A gather per batch would double the time of a step.
            inputs, targets = inputs.index_select(0, order), targets.index_select(0, order)
        parts = zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
        return (Batch(x, y, len(x) * (weight / count)) for x, y in parts)

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
        return largest_learning_rate(self.statistics, self.options, self.scaler)

    @property
    def is_stable(self) -> bool:
        """Return True if every step takes all rows, and the learning rate is within the bound."""
        return self.rows is None and self.options.learning_rate <= self.bound


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
            "At least one row must remain to train on: choose a smaller fraction, or send more rows.",
        )
    if count or not options.validation_fraction:
        return count, ()
    instead = "all rows are trained on" if options.patience is None else "patience watches the training rows"
    return 0, (f"validation_fraction={options.validation_fraction:g} of {rows} rows holds out no row; {instead}.",)


def _weighted_rows(rows: TrainingBatch, scaler: Scaler, options: GradientDescent) -> Array:
    """Return the rows [1, scaled columns, y] times the roots of their weights."""
    columns = scaler.columns(rows.x) if options.standardize else rows.x
    values = np.column_stack([np.ones(len(columns)), columns, rows.y])
    if rows.sample_weight is not None:
        values *= np.sqrt(rows.sample_weight)[:, np.newaxis]
    return values


def _batch(rows: Array, statistics: SufficientStatistics, device: torch.device) -> Batch:
    """Return weighted rows, or their factor, as a batch on the device."""
    on_device = torch.from_numpy(rows).to(device)
    inputs = statistics.features + 1
    return Batch(on_device[:, :inputs], on_device[:, inputs:], statistics.total_weight)
