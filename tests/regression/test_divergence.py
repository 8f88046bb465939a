"""When a gradient descent counts as diverged, against plain loops over the rows."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.regression.errors import Diverged, InvalidData
from app.regression.least_squares import fit
from app.regression.solvers import Exact, GradientDescent, Start
from app.regression.solvers.base import TrainingState
from app.regression.solvers.descent import Descended, gradient_descent
from app.regression.solvers.scaler import largest_learning_rate
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array: TypeAlias = NDArray[np.float64]

ON_CPU = GradientDescent(device="cpu")
YIELDS = np.loadtxt(Path(__file__).parents[2] / "models" / "crop-yield" / "yields.csv", delimiter=",", skiprows=1)
ALL_ROWS = TrainingBatch(YIELDS[:, :3], YIELDS[:, 3:])
ZERO = Start(weights=[[0.0] * 3] * 2, intercept=[0.0] * 2)
NEAR = Start(weights=[[0.7, 0.0, 0.0], [0.0, 0.7, 0.0]], intercept=[0.0, 0.0])  # little in the unstable direction
PROBLEMS, STEPS = 200, 20_000
MAX_ROWS, MAX_INPUTS, MAX_TARGETS = 12, 4, 2
NEAR_ONE = 1e-3  # Spectral radii nearer to 1 than this are not among the problems.


def descend(rows: TrainingBatch, options: GradientDescent, resume: TrainingState | None = None) -> Descended:
    return gradient_descent(rows, summarise([rows]), options, resume=resume)


def states_of(rows: TrainingBatch, options: GradientDescent) -> list[TrainingState]:
    states: list[TrainingState] = []
    gradient_descent(rows, summarise([rows]), options, on_epoch=states.append)
    return states


@dataclass
class Problem:
    """Rows and options, and the iteration that they mean, written down without the code under test."""

    rows: TrainingBatch
    options: GradientDescent

    @cached_property
    def weights(self) -> Array:
        return np.ones(len(self.rows.x)) if self.rows.sample_weight is None else self.rows.sample_weight

    @cached_property
    def columns(self) -> tuple[Array, Array]:
        """Centre and scale of the features."""
        x = self.rows.x
        if not self.options.standardize:
            return np.zeros(x.shape[1]), np.ones(x.shape[1])
        varies = np.ptp(x[self.weights > 0], axis=0) > 0
        mean = np.where(varies, np.average(x, axis=0, weights=self.weights), x[0])
        deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=self.weights))
        return mean, np.where(varies, deviation, 1)

    @cached_property
    def inputs(self) -> Array:
        centre, scale = self.columns
        return np.column_stack([np.ones(len(self.rows.x)), (self.rows.x - centre) / scale])

    @cached_property
    def start(self) -> Array:
        """The coefficients (1 + p, k) of the first step, for the inputs."""
        assert isinstance(self.options.start, Start)
        weights, intercept = np.array(self.options.start.weights).T, np.array(self.options.start.intercept)
        centre, scale = self.columns
        return np.vstack([intercept + centre @ weights, scale[:, np.newaxis] * weights])

    @property
    def step(self) -> float:
        """The factor of the sum of weighted products in the gradient."""
        return float(2 / (self.weights.sum() * self.rows.y.shape[1]))

    @cached_property
    def curvature(self) -> Array:
        """The eigenvalues of the objective's Hessian, ascending."""
        hessian = self.step * (self.inputs.T * self.weights) @ self.inputs
        return np.asarray(np.linalg.eigvalsh(hessian) + self.options.weight_decay, dtype=np.float64)

    @cached_property
    def spectral_radius(self) -> float:
        """The spectral radius of the iteration, over the directions that the objective depends on."""
        radii = [
            np.abs(np.roots([1, self.options.learning_rate * value - 1 - self.options.momentum, self.options.momentum]))
            for value in self.curvature[self.curvature > 1e-9 * self.curvature[-1]]
        ]
        return float(np.max(radii))


def random_problem(random: np.random.Generator) -> Problem:
    n, p, k = int(random.integers(3, MAX_ROWS + 1)), int(random.integers(1, 4)), int(random.integers(1, 3))
    x = (random.normal(size=(n, p)) + random.uniform(-1, 1, p)) * random.uniform(0.5, 2, p)
    if random.random() < 0.2:
        x[:, -1] = x[:, 0]
    if random.random() < 0.1:
        x[:, -1] = 0.1
    y = 3 * x @ random.normal(size=(p, k)) + random.normal(size=(n, k)) + random.uniform(-5, 5, k)
    weights = random.choice([0.0, 1.0, 2.5], n, p=[0.1, 0.5, 0.4]) if random.random() < 0.3 else None
    if weights is not None:
        weights[:2] = 1
    rows = TrainingBatch(x, y, weights)
    if random.random() < 0.4:
        optimum = fit(summarise([rows]), Exact())
        start = (optimum.coef + 1e-3 * random.normal(size=(k, p)), optimum.intercept)
    else:
        start = (random.normal(size=(k, p)), random.normal(size=k))
    options = replace(
        ON_CPU,
        epochs=int(random.choice([10, 50, 200])),
        momentum=float(random.choice([0, 0.5, 0.9, 0.99])),
        weight_decay=float(random.choice([0, 0, 0.01, 0.3])),
        standardize=bool(random.random() < 0.5),
        start=Start(weights=start[0].tolist(), intercept=start[1].tolist()),
    )
    problem = Problem(rows, options)
    bound = 2 * (1 + options.momentum) / problem.curvature[-1]
    above = 1 + 10 ** random.uniform(-3.5, -0.5)
    factor = above if random.random() < 0.4 else np.exp(random.uniform(-1, 0))
    problem.options = replace(options, learning_rate=float(bound * factor))
    return problem


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    random = np.random.default_rng(11)
    found: list[Problem] = []
    while len(found) < PROBLEMS:
        problem = random_problem(random)
        if abs(problem.spectral_radius - 1) >= NEAR_ONE:
            found.append(problem)
    return found


@pytest.fixture(scope="module")
def loops(problems: list[Problem]) -> Array:
    """Losses, (problems, 3), of plain loops over all problems at once: at the start, after `epochs`, at the end."""
    inputs = np.zeros((PROBLEMS, MAX_ROWS, MAX_INPUTS))
    targets = np.zeros((PROBLEMS, MAX_ROWS, MAX_TARGETS))
    coefficients = np.zeros((PROBLEMS, MAX_INPUTS, MAX_TARGETS))
    for index, problem in enumerate(problems):
        root = np.sqrt(problem.weights)[:, np.newaxis]
        n, inputs_used = problem.inputs.shape
        k = problem.rows.y.shape[1]
        inputs[index, :n, :inputs_used] = root * problem.inputs
        targets[index, :n, :k] = root * problem.rows.y
        coefficients[index, :inputs_used, :k] = problem.start

    def column(name: str) -> Array:
        return np.array([getattr(problem.options, name) for problem in problems])[:, np.newaxis, np.newaxis]

    rate, momentum, decay = column("learning_rate"), column("momentum"), column("weight_decay")
    step = np.array([problem.step for problem in problems])[:, np.newaxis, np.newaxis]
    transposed, velocity = np.ascontiguousarray(inputs.transpose(0, 2, 1)), np.zeros_like(coefficients)
    losses: dict[int, Array] = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for number in range(STEPS + 1):
            error = inputs @ coefficients - targets
            if number in (0, 10, 50, 200, STEPS):
                squares = (error**2).sum(axis=(1, 2)) * step[:, 0, 0] / 2
                losses[number] = squares + decay[:, 0, 0] / 2 * (coefficients**2).sum(axis=(1, 2))
            velocity *= momentum
            velocity += step * (transposed @ error) + decay * coefficients
            coefficients -= rate * velocity
    middle = [losses[problem.options.epochs][index] for index, problem in enumerate(problems)]
    return np.column_stack([losses[0], middle, losses[STEPS]])


def has_grown(first: float, last: float) -> bool:
    return not last <= first * (1 + 1e-9)


def test_a_plain_loop_of_20000_steps_ends_above_its_start_exactly_if_the_bound_is_exceeded(
    problems: list[Problem], loops: Array
) -> None:
    grown = [has_grown(first, last) for first, _, last in loops]
    assert PROBLEMS / 5 < sum(grown) < PROBLEMS * 4 / 5
    assert grown == [problem.spectral_radius > 1 for problem in problems]
    bounds = [largest_learning_rate(summarise([problem.rows]), problem.options) for problem in problems]
    assert grown == [problem.options.learning_rate > bound for problem, bound in zip(problems, bounds, strict=True)]


def test_a_full_batch_counts_as_diverged_exactly_if_it_exceeds_the_bound_and_the_plain_loop_ends_above_its_start(
    problems: list[Problem], loops: Array
) -> None:
    warned = 0
    for problem, (first, last, _) in zip(problems, loops, strict=True):
        if problem.spectral_radius > 1 and has_grown(first, last):
            with pytest.raises(Diverged):
                descend(problem.rows, problem.options)
            continue
        end = descend(problem.rows, problem.options)
        assert end.initial_loss == pytest.approx(first, rel=1e-9)
        assert end.loss == pytest.approx(last, rel=1e-6)
        assert [warning for warning in end.warnings if "the bound" in warning] == list(end.warnings)
        assert bool(end.warnings) == (problem.spectral_radius > 1)
        warned += bool(end.warnings)
    assert warned > 2


def test_twenty_of_the_problems_agree_with_the_classes_of_torch(problems: list[Problem]) -> None:
    chosen = [problem for problem in problems if problem.rows.sample_weight is None][:20]
    assert {problem.spectral_radius > 1 for problem in chosen} == {True, False}
    for problem in chosen:
        losses = torch_losses(problem, problem.options.epochs)
        if problem.spectral_radius > 1 and has_grown(losses[0], losses[-1]):
            with pytest.raises(Diverged):
                descend(problem.rows, problem.options)
        else:
            assert [state.loss for state in states_of(problem.rows, problem.options)] == pytest.approx(losses, rel=1e-6)


def torch_losses(problem: Problem, steps: int) -> list[float]:
    """The objective before the first step and after each."""
    x, y = torch.from_numpy(problem.inputs[:, 1:]), torch.from_numpy(problem.rows.y)
    model = torch.nn.Linear(x.shape[1], y.shape[1], dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(problem.start[1:].T))
        model.bias.copy_(torch.from_numpy(problem.start[0]))
    options = problem.options
    optimizer = torch.optim.SGD(
        model.parameters(), lr=options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay
    )
    losses = []
    for _ in range(steps + 1):
        loss = torch.nn.functional.mse_loss(model(x), y)
        squares = sum(parameter.square().sum().item() for parameter in model.parameters())
        losses.append(loss.item() + options.weight_decay / 2 * squares)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return losses


def test_weight_decay_from_the_optimum_raises_the_plain_loss_and_has_not_diverged() -> None:
    statistics = summarise([ALL_ROWS])
    optimum = fit(statistics, Exact())
    start = Start(weights=optimum.coef.tolist(), intercept=optimum.intercept.tolist())
    end = descend(ALL_ROWS, replace(ON_CPU, start=start, weight_decay=0.5, learning_rate=1e-5, epochs=2000))
    error = ALL_ROWS.y - ALL_ROWS.x @ end.coef.T - end.intercept
    penalty = 0.25 * ((end.coef**2).sum() + (end.intercept**2).sum())
    assert (error**2).mean() > 1.0001 * float(optimum.residual_norms @ optimum.residual_norms / ALL_ROWS.y.size)
    assert end.loss == pytest.approx((error**2).mean() + penalty, rel=1e-9)
    assert end.loss < end.initial_loss


def test_momentum_just_below_the_bound_may_raise_the_loss_a_hundredfold_before_it_falls() -> None:
    options = replace(ON_CPU, momentum=0.99, standardize=True, epochs=3000)
    bound = largest_learning_rate(summarise([ALL_ROWS]), options)
    states = states_of(ALL_ROWS, replace(options, learning_rate=0.999 * bound))
    losses = [state.loss for state in states]
    assert max(losses) > 100 * max(losses[0], ALL_ROWS.y.var(axis=0).mean())
    assert losses[-1] < 1


def test_a_run_stopped_while_momentum_still_raises_its_loss_has_not_diverged_below_the_bound() -> None:
    options = replace(ON_CPU, momentum=0.99, standardize=True, epochs=60)
    bound = largest_learning_rate(summarise([ALL_ROWS]), options)
    end = descend(ALL_ROWS, replace(options, learning_rate=0.999 * bound))
    assert end.loss > end.initial_loss
    assert end.warnings == ()


def test_a_full_batch_above_the_bound_that_still_ends_lower_succeeds_with_a_warning_that_names_the_bound() -> None:
    bound = largest_learning_rate(summarise([ALL_ROWS]), ON_CPU)
    options = replace(ON_CPU, learning_rate=1.001 * bound, epochs=50, start=NEAR)
    end = descend(ALL_ROWS, options)
    assert end.loss <= end.initial_loss
    (warning,) = end.warnings
    named = float(warning.partition(" above ")[2].partition(",")[0])
    assert 0.999 * bound < named <= bound
    with pytest.raises(Diverged):
        descend(ALL_ROWS, replace(options, epochs=5000))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("target", ["the bound", "just below it"])
def test_at_the_bound_to_the_last_bit_no_run_has_diverged(momentum: float, standardize: bool, target: str) -> None:
    options = replace(ON_CPU, momentum=momentum, standardize=standardize, epochs=3000)
    bound = largest_learning_rate(summarise([ALL_ROWS]), options)
    rate = bound if target == "the bound" else float(np.nextafter(bound, 0))
    assert descend(ALL_ROWS, replace(options, learning_rate=rate)).warnings == ()


def test_the_bound_is_that_of_the_rows_that_are_trained_on() -> None:
    random = np.random.default_rng(3)
    x = random.normal(size=(20, 1))
    y = x + random.normal(size=(20, 1))
    options = replace(ON_CPU, validation_fraction=0.5, epochs=300)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0)).numpy()
    x[order[:10]] *= 10  # the validation rows
    rows = TrainingBatch(x, y)
    bound = largest_learning_rate(summarise([TrainingBatch(x[order[10:]], y[order[10:]])]), options)
    assert largest_learning_rate(summarise([rows]), options) < bound / 10
    assert descend(rows, replace(options, learning_rate=0.99 * bound)).warnings == ()
    with pytest.raises(Diverged):
        descend(rows, replace(options, learning_rate=1.05 * bound))


def test_a_run_that_patience_ends_above_its_start_has_diverged_although_its_best_epoch_is_lower() -> None:
    bound = largest_learning_rate(summarise([ALL_ROWS]), ON_CPU)
    options = replace(ON_CPU, learning_rate=1.05 * bound, epochs=5000, start=NEAR, patience=400)
    with pytest.raises(Diverged, match="by epoch 40"):
        descend(ALL_ROWS, options)


@pytest.mark.parametrize("epoch", [0, 17, 50])
def test_a_resumed_run_above_the_bound_is_judged_as_an_uninterrupted_one(epoch: int) -> None:
    bound = largest_learning_rate(summarise([ALL_ROWS]), ON_CPU)
    kept = replace(ON_CPU, learning_rate=1.001 * bound, epochs=50, start=NEAR)
    states = states_of(ALL_ROWS, kept)
    assert descend(ALL_ROWS, kept, states[epoch]).warnings == descend(ALL_ROWS, kept).warnings != ()
    lost = replace(kept, learning_rate=1.2 * bound)
    reached: list[TrainingState] = []
    with pytest.raises(Diverged) as straight:
        gradient_descent(None, summarise([ALL_ROWS]), lost, on_epoch=reached.append)
    with pytest.raises(Diverged) as resumed:
        descend(ALL_ROWS, lost, reached[epoch])
    assert resumed.value.message == straight.value.message


def plain_batches(rows: TrainingBatch, options: GradientDescent) -> list[float]:
    """The losses of all rows before the first epoch and after each, in batches without shuffling, from zero."""
    x = np.column_stack([np.ones(len(rows.x)), rows.x])
    coefficients = np.zeros((x.shape[1], rows.y.shape[1]))
    velocity = np.zeros_like(coefficients)
    losses = [float((rows.y**2).mean())]
    assert options.batch_size is not None
    for _ in range(options.epochs):
        for begin in range(0, len(x), options.batch_size):
            batch, wanted = x[begin : begin + options.batch_size], rows.y[begin : begin + options.batch_size]
            velocity = options.momentum * velocity + 2 / wanted.size * batch.T @ (batch @ coefficients - wanted)
            coefficients = coefficients - options.learning_rate * velocity
        losses.append(float(((x @ coefficients - rows.y) ** 2).mean()))
    return losses


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_mini_batches_that_end_above_ten_times_the_start_and_the_best_constant_have_diverged(momentum: float) -> None:
    options = replace(ON_CPU, batch_size=5, shuffle=False, momentum=momentum, epochs=3, start=ZERO)
    verdicts = {False: 0, True: 0}
    for rate in np.geomspace(1e-5, 1e-3, 100):
        tried = replace(options, learning_rate=float(rate))
        first, *_, last = plain_batches(ALL_ROWS, tried)
        diverged = last > 10 * max(first, float(ALL_ROWS.y.var(axis=0).mean()))
        verdicts[diverged] += 1
        if diverged:
            with pytest.raises(Diverged):
                descend(ALL_ROWS, tried)
        else:
            assert descend(ALL_ROWS, tried).loss == pytest.approx(last, rel=1e-6)
    assert min(verdicts.values()) > 10


def test_mini_batches_from_the_optimum_may_end_above_their_first_loss_but_not_far_above_the_best_constant() -> None:
    optimum = fit(summarise([ALL_ROWS]), Exact())
    start = Start(weights=optimum.coef.tolist(), intercept=optimum.intercept.tolist())
    end = descend(ALL_ROWS, replace(ON_CPU, batch_size=1, learning_rate=2e-5, epochs=20, start=start))
    assert end.loss > 1.1 * end.initial_loss
    with pytest.raises(Diverged):
        descend(ALL_ROWS, replace(ON_CPU, batch_size=1, learning_rate=2e-4, epochs=20, start=start))


def test_mini_batches_whose_loss_rises_a_hundredfold_and_then_falls_have_not_diverged() -> None:
    # Every batch has the same rows, so that its steps are those of the full batch.
    rows = TrainingBatch(np.vstack([ALL_ROWS.x] * 2), np.vstack([ALL_ROWS.y] * 2))
    options = replace(ON_CPU, momentum=0.99, standardize=True, batch_size=15, shuffle=False, epochs=1500)
    options = replace(options, learning_rate=0.999 * largest_learning_rate(summarise([rows]), options))
    losses = [state.loss for state in states_of(rows, options)]
    assert max(losses) > 100 * max(losses[0], ALL_ROWS.y.var(axis=0).mean())
    assert losses[-1] < 1


@pytest.mark.parametrize("weight", [1e154, 1e200])
def test_a_start_whose_loss_overflows_is_refused_and_not_reported_as_diverged(weight: float) -> None:
    start = Start(weights=[[weight] * 3] * 2, intercept=[0.0] * 2)
    with pytest.raises(InvalidData, match="epoch 0 exceeds the range"):
        descend(ALL_ROWS, replace(ON_CPU, start=start))


def test_a_loss_that_overflows_below_the_bound_is_refused_and_not_reported_as_diverged() -> None:
    options = replace(ON_CPU, momentum=0.99, standardize=True, epochs=3000)
    bound = largest_learning_rate(summarise([ALL_ROWS]), options)
    start = Start(weights=[[1e152, -1e152, 1e152]] * 2, intercept=[0.0] * 2)
    with pytest.raises(InvalidData, match="has not diverged"):
        descend(ALL_ROWS, replace(options, learning_rate=0.999 * bound, start=start))
