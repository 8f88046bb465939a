"""Gradient descent in torch, the notebook's way: nn.Linear, F.mse_loss, torch.optim.SGD."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from app.errors import DeviceUnavailable, Diverged
from app.regression.learning_rate import feature_scale, largest_learning_rate
from app.regression.solvers import GradientDescent, Start
from app.regression.sufficient_statistics import Array, SufficientStatistics


@dataclass(frozen=True, eq=False)
class Descent:
    """Where a run stands after a whole number of epochs: all that is needed to go on from there.

    Weights are (k, p) and intercepts (k,), of the features in their own units unless the run standardises them.
    Losses are the mean squared error over all rows and targets.
    """

    epoch: int
    weights: Array
    intercept: Array
    loss: float
    first_loss: float
    best_epoch: int
    best_loss: float
    best_weights: Array
    best_intercept: Array


def cuda_available() -> bool:
    return torch.cuda.is_available()


def choose_device(wanted: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda". Raises DeviceUnavailable for "cuda" where there is none."""
    available = cuda_available()
    if wanted == "cuda" and not available:
        raise DeviceUnavailable('There is no CUDA device on the training machine; "auto" or "cpu" will do.')
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def gradient_descent(
    x: Array,
    y: Array,
    statistics: SufficientStatistics,
    options: GradientDescent,
    *,
    resume: Descent | None = None,
    on_step: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Descent], None] = lambda _: None,
) -> Descent:
    """Descend from `options.start`, or from where an interrupted run stood, for up to `options.epochs` epochs.

    x is (n, p), y is (n, k), float64, and statistics are theirs; a start from a version comes in as its weights.
    `on_step` is called after every step and may raise to stop; `on_epoch` gets every epoch, epoch 0 included,
    and the same epoch again on resuming. The rows' order in an epoch depends on the seed and the epoch alone, so that
    a resumed run takes the same steps as one that was never interrupted.

    Raises Diverged, with the bound of the learning rate, when the loss is no number or far above the start's;
    DeviceUnavailable.
    """
    device = choose_device(options.device)
    mean = statistics.mean[: x.shape[1]] if options.standardize else np.zeros(x.shape[1])
    scale = feature_scale(statistics) if options.standardize else np.ones(x.shape[1])
    inputs = torch.from_numpy((x - mean) / scale if options.standardize else x).to(device)
    targets = torch.from_numpy(y).to(device)
    model = _initial(options, resume, mean, scale, targets=y.shape[1]).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.learning_rate)
    # Every prediction of a constant beats this; a run that loses to it tenfold is not on its way down.
    ceiling = 10 * float(((y - y.mean(axis=0)) ** 2).mean())

    def check(state: Descent) -> Descent:
        if not math.isfinite(state.loss) or state.loss > max(10 * state.first_loss, ceiling):
            raise _diverged(state, statistics, options)
        on_epoch(state)
        return state

    loss = F.mse_loss(model(inputs), targets)
    state = check(resume or _first_state(model, loss.item()))
    while state.epoch < options.epochs and not _out_of_patience(state, options):
        if options.batch_size is None or options.batch_size >= len(x):
            _step(optimizer, loss)
            on_step()
        else:
            for batch in _batches(len(x), options, state.epoch, device):
                _step(optimizer, F.mse_loss(model(inputs[batch]), targets[batch]))
                on_step()
        loss = F.mse_loss(model(inputs), targets)
        state = check(_next_state(state, model, loss.item()))
    if options.batch_size is None and state.loss > state.first_loss * (1 + 1e-9) + np.finfo(float).tiny:
        raise _diverged(state, statistics, options)
    if options.patience is not None:
        state = replace(state, weights=state.best_weights, intercept=state.best_intercept, loss=state.best_loss)
    weights = state.weights / scale
    return replace(state, weights=weights, intercept=state.intercept - weights @ mean)


def _initial(options: GradientDescent, resume: Descent | None, mean: Array, scale: Array, *, targets: int) -> nn.Linear:
    """The model to start from; given weights are for features in their own units."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = nn.Linear(len(scale), targets, dtype=torch.float64)
    if resume is not None:
        weights, intercept = resume.weights, resume.intercept
    elif isinstance(options.start, Start):
        raw = np.array(options.start.weights, dtype=np.float64)
        weights, intercept = raw * scale, np.array(options.start.intercept, dtype=np.float64) + raw @ mean
    else:
        return model
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(weights))
        model.bias.copy_(torch.from_numpy(intercept))
    return model


def _step(optimizer: torch.optim.SGD, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _batches(rows: int, options: GradientDescent, epoch: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + epoch)
    order = torch.randperm(rows, generator=generator) if options.shuffle else torch.arange(rows)
    return torch.split(order.to(device), options.batch_size or rows)


def _first_state(model: nn.Linear, loss: float) -> Descent:
    weights, intercept = _arrays(model)
    return Descent(0, weights, intercept, loss, loss, 0, loss, weights, intercept)


def _next_state(before: Descent, model: nn.Linear, loss: float) -> Descent:
    weights, intercept = _arrays(model)
    state = replace(before, epoch=before.epoch + 1, weights=weights, intercept=intercept, loss=loss)
    if loss < before.best_loss:
        state = replace(state, best_epoch=state.epoch, best_loss=loss, best_weights=weights, best_intercept=intercept)
    return state


def _arrays(model: nn.Linear) -> tuple[Array, Array]:
    return model.weight.detach().cpu().numpy().copy(), model.bias.detach().cpu().numpy().copy()


def _out_of_patience(state: Descent, options: GradientDescent) -> bool:
    return options.patience is not None and state.epoch - state.best_epoch >= options.patience


def _diverged(state: Descent, statistics: SufficientStatistics, options: GradientDescent) -> Diverged:
    bound = largest_learning_rate(statistics, standardize=options.standardize)
    grown = f"to {state.loss:.6g}" if math.isfinite(state.loss) else "beyond all numbers"
    return Diverged(
        f"Gradient descent diverged: the loss grew from {state.first_loss:.6g} {grown} by epoch {state.epoch} "
        f"with a learning rate of {options.learning_rate:g}. Full batches do not diverge with a learning rate "
        f"below {bound:.4g}."
    )
