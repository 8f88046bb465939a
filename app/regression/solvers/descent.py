"""Gradient descent in torch: the steps of a run, and its result in the features' own units."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context

import numpy as np
import torch
from torch import Tensor, nn

from app.regression.errors import Diverged, InaccurateCoefficients, InvalidData
from app.regression.solvers.base import BestEpoch, Coefficients, TrainingState
from app.regression.solvers.descent_task import Batch, Task, choose_device
from app.regression.solvers.gradient_descent import GradientDescent, Start
from app.regression.solvers.scaler import Scaler
from app.regression.sufficient_statistics import EPSILON, Array, SufficientStatistics, column_norms
from app.regression.training_batch import TrainingBatch

SAME_LOSS = 1e-9  # Relative difference of two losses that counts as rounding.
MAX_GROWTH = 10.0  # Loss at which mini-batches have diverged, relative to the start or to the best constant.
TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True, eq=False)
class Descended:
    """The result of a run: its coefficients, for features in their own units."""

    coef: Array  # (k, p)
    intercept: Array  # (k,)
    centre_prediction: Array  # (k,), the prediction at the shift of the statistics, free of the intercept's rounding
    epoch: int  # the last one
    best_epoch: int  # the one with the lowest monitored loss
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
    """Descend from `options.start`, or from the last state of an interrupted run, for up to `options.epochs` epochs.

    Parameters:
        rows: needed only if `options.needs_rows`. A row of weight 0 is ignored.
        statistics: those of all rows.
        options: its start is random or has coefficients; a caller replaces versions by theirs.
        on_step: called after every step; may raise to stop.
        on_epoch: gets the state after every epoch, epoch 0 included, and the same state again on resuming.

    A resumed run takes the same steps as one that was never interrupted. With `patience`, the last epoch decides
    whether the run has diverged, not the one whose coefficients are returned.

    Raises Diverged, with the bound; DeviceUnavailable; InvalidOption if `validation_fraction` leaves no row to train
    on; InvalidData if a loss below the bound exceeds the range of 64-bit numbers; InaccurateCoefficients if the
    coefficients for the features' own units do not have the loss of their epoch.
    """
    device = choose_device(options.device)
    task = Task.of(rows, statistics, options, device)
    start = resume.current if resume else _initial(options, task.scaler, targets=statistics.targets)
    sgd = _Sgd(options, start, resume.velocity if resume else None, device)

    state = resume or _state(sgd, task, None)
    while True:
        _check_finite(state, task)
        on_epoch(state)
        if state.epoch >= options.epochs or _out_of_patience(state, options):
            break
        for batch in task.of_epoch(state.epoch):
            sgd.step(batch)
            on_step()
        state = _state(sgd, task, state)
    warnings = (*task.warnings, *_check_end(state, task))
    return _in_own_units(state, task, statistics.shift[: statistics.features], warnings)


class _Sgd:
    """The steps of torch.optim.SGD, to the last rounding, with the gradient of F.mse_loss written out.

    A plain step needs only two products; the optimizer and automatic differentiation take five times as long.
    """

    def __init__(
        self, options: GradientDescent, start: Coefficients, velocity: Coefficients | None, device: torch.device
    ) -> None:
        self.coefficients = torch.from_numpy(start.matrix).to(device)  # (k, 1 + p), the intercept first
        self.velocity = torch.zeros_like(self.coefficients)
        if velocity is not None:
            self.velocity = torch.from_numpy(velocity.matrix).to(device)
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


def _initial(options: GradientDescent, scaler: Scaler, *, targets: int) -> Coefficients:
    """Return the coefficients to start from; given ones are for features in their own units.

    In a random start of a standardised run, the weight of a constant column is 0: it changes no prediction of the
    training rows and would stay random.
    """
    if isinstance(options.start, Start):
        weights = np.array(options.start.weights, dtype=np.float64)
        return scaler.apply(Coefficients(weights, np.array(options.start.intercept, dtype=np.float64)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = nn.Linear(len(scaler.scale), targets, dtype=torch.float64)
    weights = _array(model.weight)
    weights[:, scaler.zero] = 0.0
    return Coefficients(weights, _array(model.bias))


def _state(sgd: _Sgd, task: Task, before: TrainingState | None) -> TrainingState:
    """Return the state of the run, an epoch after `before`."""
    current = Coefficients.from_matrix(_array(sgd.coefficients))
    loss = task.all_rows.loss(sgd.coefficients)
    if task.options.weight_decay:  # a penalty of 0 * infinity would be NaN
        loss += task.penalty(current.matrix)
    monitored = loss if task.monitored_rows is task.all_rows else task.monitored_rows.loss(sgd.coefficients)
    epoch = 0 if before is None else before.epoch + 1
    best = BestEpoch(epoch, current, loss, monitored)
    if before is not None and not monitored < before.best.monitored_loss:
        best = before.best
    return TrainingState(
        epoch=epoch,
        current=current,
        velocity=Coefficients.from_matrix(_array(sgd.velocity)),
        loss=loss,
        monitored_loss=monitored,
        initial_loss=loss if before is None else before.initial_loss,
        best=best,
    )


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy().copy()


def _out_of_patience(state: TrainingState, options: GradientDescent) -> bool:
    return options.patience is not None and state.epoch - state.best.epoch >= options.patience


def _check_finite(state: TrainingState, task: Task) -> None:
    """Raise Diverged if the loss is not finite, or InvalidData if it is not although the run cannot diverge."""
    if math.isfinite(state.loss):
        return
    if state.epoch and not task.is_stable:
        raise _diverged(state, task)
    raise InvalidData(
        f"The loss of epoch {state.epoch} exceeds the range of 64-bit numbers, although the descent has not "
        "diverged. Start from smaller weights, or scale the features and targets down."
    )


def _check_end(state: TrainingState, task: Task) -> tuple[str, ...]:
    """Return the warnings that the last epoch deserves. Raises Diverged by the rules that `GradientDescent` states."""
    if task.is_stable:
        return ()
    limit = state.initial_loss * (1 + SAME_LOSS) + TINY
    if task.rows is not None:
        limit = MAX_GROWTH * max(state.initial_loss, task.loss_of_constant())
    if state.loss > limit:
        raise _diverged(state, task)
    if task.rows is not None:
        return ()
    warning = (
        f"The learning rate of {task.options.learning_rate:g} is above {_rounded_down(task.bound)}, the bound "
        "below which full batches cannot diverge. This run did not end with a larger loss than it began with, but "
        "a longer one may."
    )
    return (warning,)


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

    `shift` is that of the statistics of all rows. Raises InaccurateCoefficients if the loss of these coefficients is
    not that of the epoch. The two are computed in different coordinates, so that their roots may differ by
    SAME_LOSS / 2, relative, and by the rounding of the terms that a residual is the sum of.
    """
    scaled, loss = state.current, state.loss
    if task.options.patience is not None:
        scaled, loss = state.best.coefficients, state.best.loss
    own = task.scaler.undo(scaled)
    # In the shifted and scaled columns of the statistics no large numbers cancel.
    statistics, p = task.statistics, task.statistics.features
    offset = scaled.intercept + own.coef @ (statistics.shift[:p] - task.scaler.centre) - statistics.shift[p:]
    weight = statistics.total_weight
    norms = statistics.residual_norms_at_shift(own.coef, offset)
    error = float(np.linalg.norm(norms)) / math.sqrt(weight * len(norms))
    sizes = column_norms(statistics.factor) * np.concatenate([[1.0], statistics.scale]) / math.sqrt(weight)
    rounding = _rounding(sizes, np.column_stack([offset, own.coef]))
    rounding += _rounding(column_norms(task.factor) / math.sqrt(weight), scaled.matrix)
    penalty = task.penalty(scaled.matrix)
    expected = math.sqrt(loss)
    same = abs(math.hypot(error, math.sqrt(penalty)) - expected) <= SAME_LOSS / 2 * expected + rounding
    if not same or not np.isfinite(own.intercept).all():
        raise InaccurateCoefficients(
            f"The coefficients for the features' own units have a loss of {error * error + penalty:.6g}, but the "
            f"descent had a loss of {loss:.6g} in the same epoch. No version was published. Shift the features "
            "towards zero, or scale them to similar sizes."
        )
    return Descended(
        coef=own.coef,
        intercept=own.intercept,
        centre_prediction=scaled.intercept + own.coef @ (shift - task.scaler.centre),
        epoch=state.epoch,
        best_epoch=state.best.epoch,
        loss=loss,
        initial_loss=state.initial_loss,
        warnings=warnings,
    )


def _rounding(sizes: Array, coefficients: Array) -> float:
    """Return a bound of the rounding error of the root mean square error of coefficients, (k, 1 + p).

    `sizes`, (1 + p + k,), are the root mean squares of the columns. A residual is the sum of p + 2 terms, and off by a
    few units in the last place of the sum of their sizes.
    """
    inputs = coefficients.shape[1]
    terms = np.abs(coefficients) @ sizes[:inputs] + sizes[inputs:]
    return float(4 * (inputs + 1) * EPSILON * np.linalg.norm(terms) / math.sqrt(len(terms)))
