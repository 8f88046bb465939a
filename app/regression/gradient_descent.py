"""Gradient descent in torch, the notebook's way: nn.Linear, F.mse_loss, torch.optim.SGD."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from app.errors import DeviceUnavailable, Diverged
from app.regression.accumulator import summarise
from app.regression.block import Block
from app.regression.learning_rate import feature_scale, largest_learning_rate
from app.regression.solvers import GradientDescent, Start
from app.regression.sufficient_statistics import Array, SufficientStatistics

TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True, eq=False)
class Descent:
    """Where a run stands after a whole number of epochs: all that is needed to go on from there.

    Weights and their velocity are (k, p), intercepts and theirs (k,), of the features in their own units unless the run
    standardises them. Losses are mean squared errors over rows and targets; `watched` is the one that patience watches.
    """

    epoch: int
    weights: Array
    intercept: Array
    weight_velocity: Array
    intercept_velocity: Array
    loss: float
    first_loss: float
    watched: float
    best_epoch: int
    best_watched: float
    best_loss: float
    best_weights: Array
    best_intercept: Array


def choose_device(wanted: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda". Raises DeviceUnavailable for "cuda" where there is none."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise DeviceUnavailable('There is no CUDA device on the training machine; "auto" or "cpu" will do.')
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def gradient_descent(
    rows: Block | None,
    statistics: SufficientStatistics,
    options: GradientDescent,
    *,
    resume: Descent | None = None,
    on_step: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Descent], None] = lambda _: None,
) -> Descent:
    """Descend from `options.start`, or from where an interrupted run stood, for up to `options.epochs` epochs.

    `statistics` are those of the rows, which themselves are wanted only where `options.needs_rows`: an epoch of the
    full batch costs the same for any number of them. A start from a version comes in as its weights. `on_step` is
    called after every step and may raise to stop; `on_epoch` gets every epoch, epoch 0 included, and the same epoch
    again on resuming. The rows' order in an epoch depends on the seed and the epoch alone, so that a resumed run takes
    the same steps as one that was never interrupted. Arithmetic is in float64.

    Raises Diverged, with the bound of the learning rate, when the loss is no number or far above the start's;
    DeviceUnavailable.
    """
    device = choose_device(options.device)
    p = statistics.features
    mean = statistics.mean[:p] if options.standardize else np.zeros(p)
    scale = feature_scale(statistics) if options.standardize else np.ones(p)
    sgd = _Sgd(options, resume, _initial(options, resume, mean, scale, targets=statistics.targets), device)
    few_rows = options.batch_size is not None and options.batch_size >= statistics.rows and not options.held_out
    if rows is not None and options.needs_rows and not few_rows:
        batches: _Batches = _RowBatches(rows, statistics, options, mean, scale, device)
    else:
        batches = _FullBatch(statistics, mean, scale, device)
    # Every prediction of a constant beats this; a run that loses to it tenfold is not on its way down.
    ceiling = 10 * float((statistics.total_norms() ** 2).mean() / statistics.weight)

    def check(state: Descent) -> Descent:
        if not math.isfinite(state.loss) or state.loss > max(10 * state.first_loss, ceiling):
            raise _diverged(state, statistics, options)
        on_epoch(state)
        return state

    state = check(resume or _state(sgd, batches, None))
    while state.epoch < options.epochs and not _out_of_patience(state, options):
        for batch in batches.of_epoch(state.epoch):
            sgd.step(batch)
            on_step()
        state = check(_state(sgd, batches, state))
    if options.batch_size is None and not options.momentum and state.loss > state.first_loss * (1 + 1e-9) + TINY:
        raise _diverged(state, statistics, options)
    if options.patience is not None:
        state = replace(state, weights=state.best_weights, intercept=state.best_intercept, loss=state.best_loss)
    weights = state.weights / scale
    return replace(state, weights=weights, intercept=state.intercept - weights @ mean)


class _Batch(NamedTuple):
    """Rows [w, w x] and [w y] with w the square root of their weight; the columns of a factor R stand for its rows."""

    inputs: Tensor  # (m, 1 + p)
    targets: Tensor  # (m, k)
    weight: float  # of all rows together, by which the mean is taken

    @classmethod
    def of(cls, rows: Tensor, features: int, weight: float) -> "_Batch":
        return cls(rows[:, : features + 1], rows[:, features + 1 :], weight)

    def loss(self, coefficients: Tensor) -> float:
        """Mean squared error over rows and targets, F.mse_loss."""
        error = torch.addmm(self.targets, self.inputs, coefficients.T, beta=-1)
        return float((error * error).sum()) / (self.weight * error.shape[1])


class _Sgd:
    """The steps of torch.optim.SGD, to the last rounding, with the gradient of F.mse_loss written out.

    Two products are all that a plain step needs; the optimizer and automatic differentiation take five times as long.
    """

    def __init__(
        self, options: GradientDescent, resume: Descent | None, coefficients: Tensor, device: torch.device
    ) -> None:
        self.coefficients = coefficients.to(device)  # (k, 1 + p), the intercept first
        self.velocity = torch.zeros_like(self.coefficients)
        if resume is not None:
            velocity = np.column_stack([resume.intercept_velocity, resume.weight_velocity])
            self.velocity = torch.from_numpy(velocity).to(device)
        self._rate, self._momentum, self._decay = options.learning_rate, options.momentum, options.weight_decay

    def step(self, batch: _Batch) -> None:
        error = torch.addmm(batch.targets, batch.inputs, self.coefficients.T, beta=-1)
        scale = 2 / (batch.weight * error.shape[1])
        if not self._momentum and not self._decay:
            self.coefficients.addmm_(error.T, batch.inputs, alpha=-self._rate * scale)
            return
        gradient = (error.T @ batch.inputs).mul_(scale).add_(self.coefficients, alpha=self._decay)
        if self._momentum:
            gradient = self.velocity.mul_(self._momentum).add_(gradient)
        self.coefficients.add_(gradient, alpha=-self._rate)


class _Batches(Protocol):
    """What is descended: all rows together, their losses, and the batches an epoch takes them in."""

    whole: _Batch
    watched: _Batch  # whose loss patience watches

    def of_epoch(self, epoch: int) -> Iterable[_Batch]: ...


class _FullBatch:
    """All rows at once, by their factor R: |[1, X] w - Y|^2 is |R_x w - R_y|^2, whatever the number of rows."""

    def __init__(self, statistics: SufficientStatistics, mean: Array, scale: Array, device: torch.device) -> None:
        self.whole = self.watched = _factor_of(statistics, mean, scale, device)

    def of_epoch(self, epoch: int) -> Iterable[_Batch]:  # noqa: ARG002 - each is the same
        return [self.whole]


class _RowBatches:
    """The rows themselves on the device, in batches; some of them held out."""

    def __init__(  # noqa: PLR0917 - as all of them are wanted
        self,
        rows: Block,
        statistics: SufficientStatistics,
        options: GradientDescent,
        mean: Array,
        scale: Array,
        device: torch.device,
    ) -> None:
        self._options = options
        # The losses of many rows are those of their factors.
        kept, watched = rows, statistics
        if held_out := round(options.held_out * len(rows.x)):
            order = torch.randperm(len(rows.x), generator=torch.Generator().manual_seed(options.seed))
            kept = _part(rows, order[held_out:])
            statistics, watched = summarise([kept]), summarise([_part(rows, order[:held_out])])
        self.whole = self.watched = _factor_of(statistics, mean, scale, device)
        if held_out:
            self.watched = _factor_of(watched, mean, scale, device)
        self._mean_weight = self.whole.weight / len(kept.x)
        columns = np.empty((len(kept.x), 1 + kept.x.shape[1] + kept.y.shape[1]))
        columns[:, 0] = 1.0
        columns[:, 1 : len(scale) + 1] = (kept.x - mean) / scale if options.standardize else kept.x
        columns[:, len(scale) + 1 :] = kept.y
        if kept.weights is not None:
            columns *= np.sqrt(kept.weights)[:, np.newaxis]
        self._rows = torch.from_numpy(columns).to(device)
        self._features = len(scale)

    def of_epoch(self, epoch: int) -> Iterable[_Batch]:
        count, size = len(self._rows), self._options.batch_size
        if size is None or size >= count:
            return [self.whole]
        rows = self._rows
        if self._options.shuffle:
            generator = torch.Generator().manual_seed(self._options.seed * 1_000_003 + epoch)
            # Gathered once an epoch, the batches are views: a gather for each would cost as much as its step.
            rows = rows.index_select(0, torch.randperm(count, generator=generator).to(rows.device))
        parts = zip(*(torch.split(part, size) for part in _Batch.of(rows, self._features, 0)[:2]), strict=True)
        return (_Batch(inputs, targets, len(inputs) * self._mean_weight) for inputs, targets in parts)


def _part(rows: Block, order: Tensor) -> Block:
    chosen = order.numpy()
    return Block(rows.x[chosen], rows.y[chosen], None if rows.weights is None else rows.weights[chosen])


def _factor_of(statistics: SufficientStatistics, mean: Array, scale: Array, device: torch.device) -> _Batch:
    k = statistics.targets
    factor = statistics.factor_in(np.concatenate([mean, np.zeros(k)]), np.concatenate([scale, np.ones(k)]))
    rows = torch.from_numpy(np.ascontiguousarray(factor)).to(device)
    return _Batch.of(rows, statistics.features, statistics.weight)


def _initial(options: GradientDescent, resume: Descent | None, mean: Array, scale: Array, *, targets: int) -> Tensor:
    """The coefficients to start from, (k, 1 + p); given weights are for features in their own units."""
    if resume is not None:
        weights, intercept = resume.weights, resume.intercept
    elif isinstance(options.start, Start):
        raw = np.array(options.start.weights, dtype=np.float64)
        weights, intercept = raw * scale, np.array(options.start.intercept, dtype=np.float64) + raw @ mean
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model = nn.Linear(len(scale), targets, dtype=torch.float64)
        weights, intercept = _array(model.weight), _array(model.bias)
    return torch.from_numpy(np.column_stack([intercept, weights]))


def _state(sgd: _Sgd, batches: _Batches, before: Descent | None) -> Descent:
    """Where the run stands now, an epoch after `before`."""
    loss = batches.whole.loss(sgd.coefficients)
    watched = loss if batches.watched is batches.whole else batches.watched.loss(sgd.coefficients)
    weights, intercept = _array(sgd.coefficients[:, 1:]), _array(sgd.coefficients[:, 0])
    weight_velocity, intercept_velocity = _array(sgd.velocity[:, 1:]), _array(sgd.velocity[:, 0])
    epoch = 0 if before is None else before.epoch + 1
    is_best = before is None or watched < before.best_watched
    return Descent(
        epoch=epoch,
        weights=weights,
        intercept=intercept,
        weight_velocity=weight_velocity,
        intercept_velocity=intercept_velocity,
        loss=loss,
        first_loss=loss if before is None else before.first_loss,
        watched=watched,
        best_epoch=epoch if before is None or is_best else before.best_epoch,
        best_watched=watched if before is None or is_best else before.best_watched,
        best_loss=loss if before is None or is_best else before.best_loss,
        best_weights=weights if before is None or is_best else before.best_weights,
        best_intercept=intercept if before is None or is_best else before.best_intercept,
    )


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy().copy()


def _out_of_patience(state: Descent, options: GradientDescent) -> bool:
    return options.patience is not None and state.epoch - state.best_epoch >= options.patience


def _diverged(state: Descent, statistics: SufficientStatistics, options: GradientDescent) -> Diverged:
    bound = largest_learning_rate(statistics, options)
    grown = f"to {state.loss:.6g}" if math.isfinite(state.loss) else "beyond all numbers"
    return Diverged(
        f"Gradient descent diverged: the loss grew from {state.first_loss:.6g} {grown} by epoch {state.epoch} "
        f"with a learning rate of {options.learning_rate:g}. Full batches do not diverge with a learning rate "
        f"below {bound:.4g}."
    )
