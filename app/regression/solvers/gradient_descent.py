"""Gradient descent in torch, the notebook's way: nn.Linear, F.mse_loss, torch.optim.SGD."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context

import numpy as np
import torch
from torch import Tensor, nn

from app.regression.errors import Diverged, InaccurateCoefficients, InvalidData
from app.regression.learning_rate_bound import Columns
from app.regression.solvers import GradientDescent, Start
from app.regression.solvers.descent_task import Batch, Task, choose_device
from app.regression.sufficient_statistics import Array, SufficientStatistics
from app.regression.training_batch import TrainingBatch

EPSILON = float(np.finfo(float).eps)
TINY = float(np.finfo(float).tiny)
SAME_LOSS = 1e-9  # Relative difference of two losses that counts as rounding.
MAX_GROWTH = 10.0  # Loss at which mini-batches count as diverged, relative to the start or to the best constant.


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Where a run stands after a whole number of epochs: all that is needed to go on from there.

    Weights and their velocity are (k, p), intercepts and theirs (k,), of the features in their own units unless the run
    standardises them. A loss is the objective: the mean squared error over rows and targets, plus weight_decay / 2
    times the sum of the squared weights and intercepts. `watched` is the loss that patience watches: the mean squared
    error of the held-out rows, or without such rows the objective.
    """

    epoch: int
    coef: Array
    intercept: Array
    weight_velocity: Array
    intercept_velocity: Array
    loss: float
    initial_loss: float
    monitored_loss: float
    best_epoch: int
    best_watched: float
    best_loss: float
    best_weights: Array
    best_intercept: Array


@dataclass(frozen=True, eq=False)
class Descended:
    """The result of a run: its coefficients, for features in their own units."""

    coef: Array  # (k, p)
    intercept: Array  # (k,)
    centre_prediction: Array  # (k,), the prediction at the shift of the statistics, free of the intercept's rounding
    epoch: int  # the last one
    best_epoch: int  # the one with the lowest watched loss
    loss: float  # the objective of these coefficients
    initial_loss: float  # before the first step
    warnings: tuple[str, ...] = ()


def gradient_descent(
    rows: TrainingBatch | None,
    statistics: SufficientStatistics,
    options: GradientDescent,
    *,
    resume: TrainingState | None = None,
    on_step: Callable[[], None] = lambda: None,
    on_epoch: Callable[[TrainingState], None] = lambda _: None,
) -> Descended:
    """Descend from `options.start`, or from where an interrupted run stood, for up to `options.epochs` epochs.

    `statistics` are those of the rows. The rows themselves are needed only if `options.needs_rows`: an epoch of the
    full batch costs the same for any number of them. A row of weight 0 is ignored. A start from a version comes in as
    its weights. `on_step` is called after every step and may raise to stop; `on_epoch` gets every epoch, epoch 0
    included, and the same epoch again on resuming. The rows' order in an epoch depends on the seed and the epoch alone,
    so that a resumed run takes the same steps as one that was never interrupted. Arithmetic is in float64.

    Full batches below the bound of `largest_learning_rate` never count as diverged. Above it, the run has diverged if
    the loss after its last epoch is larger than before its first step; otherwise the result has a warning. Mini-batches
    have diverged if the loss after the last epoch is above 10 times the larger of the first loss and the loss of the
    best constant. Only a loss that is not finite ends a run early. With `patience` the last epoch decides as well, not
    the one whose weights are returned.

    Raises Diverged, with the bound; DeviceUnavailable; InvalidOption if `validation_fraction` leaves no row to train
    on; InvalidData if a loss below the bound exceeds the range of 64-bit numbers; InaccurateCoefficients if the
    coefficients for the features' own units do not have the loss of their epoch.
    """
    device = choose_device(options.device)
    task = Task.of(rows, statistics, options, device)
    sgd = _Sgd(options, resume, _initial(options, resume, task.columns, targets=statistics.targets), device)

    def check(state: TrainingState) -> TrainingState:
        if not math.isfinite(state.loss):
            raise _not_finite(state, task)
        on_epoch(state)
        return state

    state = check(resume or _state(sgd, task, None))
    while state.epoch < options.epochs and not _out_of_patience(state, options):
        for batch in task.of_epoch(state.epoch):
            sgd.step(batch)
            on_step()
        state = check(_state(sgd, task, state))
    warnings = (*task.warnings, *_verdict(state, task))
    return _in_own_units(state, task, statistics.shift[: statistics.features], warnings)


class _Sgd:
    """The steps of torch.optim.SGD, to the last rounding, with the gradient of F.mse_loss written out.

    Two products are all that a plain step needs; the optimizer and automatic differentiation take five times as long.
    """

    def __init__(
        self, options: GradientDescent, resume: TrainingState | None, coefficients: Tensor, device: torch.device
    ) -> None:
        self.coefficients = coefficients.to(device)  # (k, 1 + p), the intercept first
        self.velocity = torch.zeros_like(self.coefficients)
        if resume is not None:
            velocity = np.column_stack([resume.intercept_velocity, resume.weight_velocity])
            self.velocity = torch.from_numpy(velocity).to(device)
        self._rate, self._momentum, self._decay = options.learning_rate, options.momentum, options.weight_decay

    def step(self, batch: Batch) -> None:
        error = torch.addmm(batch.targets, batch.inputs, self.coefficients.T, beta=-1)
        scale = 2 / (batch.weight * error.shape[1])
        if not self._momentum and not self._decay:
            self.coefficients.addmm_(error.T, batch.inputs, alpha=-self._rate * scale)
            return
        gradient = (error.T @ batch.inputs).mul_(scale).add_(self.coefficients, alpha=self._decay)
        if self._momentum:
            gradient = self.velocity.mul_(self._momentum).add_(gradient)
        self.coefficients.add_(gradient, alpha=-self._rate)


def _initial(options: GradientDescent, resume: TrainingState | None, columns: Columns, *, targets: int) -> Tensor:
    """The coefficients to start from, (k, 1 + p); given weights are for features in their own units.

    At a random start the weight of a constant column is 0 if the run standardises: it changes no prediction of the
    training rows and would stay random.
    """
    if resume is not None:
        weights, intercept = resume.coef, resume.intercept
    elif isinstance(options.start, Start):
        raw = np.array(options.start.weights, dtype=np.float64)
        weights = raw * columns.scale
        intercept = np.array(options.start.intercept, dtype=np.float64) + raw @ columns.centre
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model = nn.Linear(len(columns.scale), targets, dtype=torch.float64)
        weights, intercept = _array(model.weight), _array(model.bias)
        weights[:, columns.zero] = 0.0
    return torch.from_numpy(np.column_stack([intercept, weights]))


def _state(sgd: _Sgd, task: Task, before: TrainingState | None) -> TrainingState:
    """Where the run stands now, an epoch after `before`."""
    coefficients, velocity = _array(sgd.coefficients), _array(sgd.velocity)
    weights, intercept = coefficients[:, 1:], coefficients[:, 0]
    loss = task.whole.loss(sgd.coefficients)
    if task.options.weight_decay:
        loss += _penalty(coefficients, task)
    watched = loss if task.watched is task.whole else task.watched.loss(sgd.coefficients)
    epoch = 0 if before is None else before.epoch + 1
    is_best = before is None or watched < before.best_watched
    return TrainingState(
        epoch=epoch,
        coef=weights,
        intercept=intercept,
        weight_velocity=velocity[:, 1:],
        intercept_velocity=velocity[:, 0],
        loss=loss,
        initial_loss=loss if before is None else before.initial_loss,
        monitored_loss=watched,
        best_epoch=epoch if before is None or is_best else before.best_epoch,
        best_watched=watched if before is None or is_best else before.best_watched,
        best_loss=loss if before is None or is_best else before.best_loss,
        best_weights=weights if before is None or is_best else before.best_weights,
        best_intercept=intercept if before is None or is_best else before.best_intercept,
    )


def _penalty(coefficients: Array, task: Task) -> float:
    return task.options.weight_decay / 2 * float(np.vdot(coefficients, coefficients))


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy().copy()


def _out_of_patience(state: TrainingState, options: GradientDescent) -> bool:
    return options.patience is not None and state.epoch - state.best_epoch >= options.patience


def _verdict(state: TrainingState, task: Task) -> tuple[str, ...]:
    """Return the warnings that the end of a run deserves. Raises Diverged."""
    if task.is_stable:
        return ()
    if task.rows is not None:
        if state.loss > MAX_GROWTH * max(state.initial_loss, _loss_of_constant(task)):
            raise _diverged(state, task)
        return ()
    if state.loss > state.initial_loss * (1 + SAME_LOSS) + TINY:
        raise _diverged(state, task)
    warning = (
        f"The learning rate of {task.options.learning_rate:g} is above {_rounded_down(task.bound)}, the bound below "
        "which full batches cannot diverge. This run did not end with a larger loss than it began with, but a longer "
        "one may."
    )
    return (warning,)


def _loss_of_constant(task: Task) -> float:
    """Return the objective of the best constant prediction, the mean of each target."""
    # The factor is triangular: its first row has the means, the others have the deviations from them.
    targets = task.factor[:, task.statistics.features + 1 :]
    mean = targets[0] / math.sqrt(task.whole.weight)
    deviation = float(np.linalg.norm(targets[1:])) / math.sqrt(task.whole.weight * len(mean))
    return deviation * deviation + _penalty(mean, task)


def _not_finite(state: TrainingState, task: Task) -> Diverged | InvalidData:
    if state.epoch and not task.is_stable:
        return _diverged(state, task)
    return InvalidData(
        f"The loss of epoch {state.epoch} exceeds the range of 64-bit numbers, although the descent has not diverged. "
        "Start from smaller weights, or scale the features and targets down."
    )


def _diverged(state: TrainingState, task: Task) -> Diverged:
    grown = f"to {state.loss:.6g}" if math.isfinite(state.loss) else "beyond the range of 64-bit floats"
    return Diverged(
        f"Gradient descent diverged: the loss grew from {state.initial_loss:.6g} {grown} by epoch {state.epoch} "
        f"with a learning rate of {task.options.learning_rate:g}. Full batches do not diverge with a learning rate "
        f"below {_rounded_down(task.bound)}."
    )


def _rounded_down(bound: float) -> str:
    """Return the bound with 4 digits, never larger than it is."""
    return f"{float(Context(prec=4, rounding=ROUND_FLOOR).create_decimal_from_float(bound)):.4g}"


@np.errstate(over="ignore", invalid="ignore")
def _in_own_units(state: TrainingState, task: Task, shift: Array, warnings: tuple[str, ...]) -> Descended:
    """Return the coefficients of the last epoch, or with patience of the best, for features in their own units.

    `shift` is that of the statistics of all rows, held out or not. Raises InaccurateCoefficients if the loss of these
    coefficients is not the loss of the epoch they come from. The two are computed in different coordinates, so that
    their roots may differ by SAME_LOSS / 2, relative, and by the rounding of the terms that a residual is the sum of.
    """
    found, loss = (state.coef, state.intercept), state.loss
    if task.options.patience is not None:
        found, loss = (state.best_weights, state.best_intercept), state.best_loss
    scaled, at_centre = found
    weights = scaled / task.columns.scale
    intercept = at_centre - weights @ task.columns.centre
    error, rounding = _root_mean_square_error(task, weights, at_centre)
    coefficients = np.column_stack([at_centre, scaled])
    penalty = _penalty(coefficients, task)
    rounding += _rounding(task.factor, coefficients, task)
    expected = math.sqrt(loss)
    same = abs(math.hypot(error, math.sqrt(penalty)) - expected) <= SAME_LOSS / 2 * expected + rounding
    if not same or not np.isfinite(intercept).all():
        raise InaccurateCoefficients(
            f"The coefficients for the features' own units have a loss of {error * error + penalty:.6g}, but the "
            f"descent had a loss of {loss:.6g} in the same epoch. No version was published. Shift the features "
            "towards zero, or scale them to similar sizes."
        )
    return Descended(
        coef=weights,
        intercept=intercept,
        centre_prediction=at_centre + weights @ (shift - task.columns.centre),
        epoch=state.epoch,
        best_epoch=state.best_epoch,
        loss=loss,
        initial_loss=state.initial_loss,
        warnings=warnings,
    )


def _root_mean_square_error(task: Task, weights: Array, at_centre: Array) -> tuple[float, float]:
    """Return the root mean square error of weights, (k, p), and of predictions at the columns' centre, (k,).

    The second value is a bound of its rounding error. It is computed in the shifted and scaled columns of the
    statistics, in which no large numbers cancel.
    """
    statistics, p = task.statistics, task.statistics.features
    at_shift = at_centre + weights @ (statistics.shift[:p] - task.columns.centre)
    coefficients = np.column_stack([at_shift - statistics.shift[p:], weights * statistics.scale[:p]])
    factor = statistics.factor * np.concatenate([np.ones(p + 1), statistics.scale[p:]])
    errors = factor[:, : p + 1] @ coefficients.T - factor[:, p + 1 :]
    error = float(np.linalg.norm(errors)) / math.sqrt(statistics.total_weight * statistics.targets)
    return error, _rounding(factor, coefficients, task)


def _rounding(factor: Array, coefficients: Array, task: Task) -> float:
    """Return a bound of the rounding error of the root mean square error of coefficients, (k, 1 + p).

    A residual is the sum of p + 2 terms, and off by a few units in the last place of the sum of their sizes.
    """
    inputs = coefficients.shape[1]
    sizes = np.linalg.norm(factor, axis=0) / math.sqrt(task.statistics.total_weight)
    terms = np.abs(coefficients) @ sizes[:inputs] + sizes[inputs:]
    return float(4 * (inputs + 1) * EPSILON * np.linalg.norm(terms) / math.sqrt(len(terms)))
