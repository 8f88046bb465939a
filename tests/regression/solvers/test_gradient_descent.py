from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from app.regression.errors import DeviceUnavailable, Diverged
from app.regression.least_squares import fit
from app.regression.solvers import Exact, GradientDescent, Start
from app.regression.solvers.base import TrainingState
from app.regression.solvers.descent import Descended, gradient_descent
from app.regression.solvers.descent_task import choose_device
from app.regression.solvers.scaler import largest_learning_rate
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = tuple[Array, Array]

YIELDS = np.loadtxt(Path(__file__).parents[3] / "models" / "crop-yield" / "yields.csv", delimiter=",", skiprows=1)
ALL_ROWS: Rows = (YIELDS[:, :3], YIELDS[:, 3:])
FIVE_ROWS: Rows = (YIELDS[:5, :3], YIELDS[:5, 3:])
NOTEBOOK_START = Start(weights=[[0.9887, -0.6828, -0.3289], [-0.0954, -0.1854, -0.6360]], intercept=[1.0996, 0.1550])
ON_CPU = GradientDescent(device="cpu")


def descend(
    rows: Rows,
    options: GradientDescent,
    resume: TrainingState | None = None,
    on_epoch: Callable[[TrainingState], None] = lambda _: None,
    on_step: Callable[[], None] = lambda: None,
) -> Descended:
    statistics = SufficientStatistics.from_rows(*rows)
    return gradient_descent(
        TrainingBatch(*rows), statistics, options, resume=resume, on_epoch=on_epoch, on_step=on_step
    )


def mean_squared_error(rows: Rows, found: Descended) -> float:
    x, y = rows
    return float(((y - x @ found.coef.T - found.intercept) ** 2).mean())


def assert_identical(found: Any, expected: Any) -> None:
    """Compare two dataclasses field by field, and the dataclasses in them."""
    for field in fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if is_dataclass(other):
            assert_identical(one, other)
        else:
            assert_array_equal(one, other, strict=True)


@st.composite
def noisy_rows(draw: st.DrawFn) -> Rows:
    n, p, k = draw(st.integers(2, 12)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = (rng.normal(size=(n, p)) + rng.uniform(-3, 3, p)) * rng.uniform(0.1, 10, p)
    return x, rng.normal(size=(n, k)) * 10


def test_the_notebooks_descent_keeps_its_reference_losses() -> None:
    losses: list[float] = []
    options = replace(ON_CPU, start=NOTEBOOK_START, epochs=202, learning_rate=1e-5)
    end = descend(FIVE_ROWS, options, on_epoch=lambda state: losses.append(state.loss))
    found = [losses[epoch] for epoch in (0, 1, 2, 102, 202)]
    assert found == pytest.approx([16740.3, 11840.2, 8531.4, 530.45, 184.35], rel=1e-4)
    assert end.loss == losses[-1]
    assert end.initial_loss == losses[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_hundred_epochs_in_batches_of_five_come_near_the_notebooks_prediction(seed: int) -> None:
    options = replace(ON_CPU, epochs=100, learning_rate=1e-5, batch_size=5, seed=seed)
    end = descend(ALL_ROWS, options)
    prediction = end.coef @ [75, 63, 44] + end.intercept
    assert prediction.tolist() == pytest.approx([55, 69], abs=5)


def test_a_full_batch_step_is_the_gradient_of_the_mean_squared_error() -> None:
    x, y = FIVE_ROWS
    weights, intercept = np.array(NOTEBOOK_START.weights), np.array(NOTEBOOK_START.intercept)
    for _ in range(3):
        error = x @ weights.T + intercept - y
        weights = weights - 1e-5 * 2 / y.size * error.T @ x
        intercept = intercept - 1e-5 * 2 / y.size * error.sum(axis=0)
    end = descend(FIVE_ROWS, replace(ON_CPU, start=NOTEBOOK_START, epochs=3, learning_rate=1e-5))
    assert_allclose(end.coef, weights, rtol=1e-12)
    assert_allclose(end.intercept, intercept, rtol=1e-12)


def test_batches_without_shuffling_are_taken_in_the_rows_order() -> None:
    x, y = ALL_ROWS
    weights, intercept = np.array(NOTEBOOK_START.weights), np.array(NOTEBOOK_START.intercept)
    for batch in np.split(np.arange(15), [4, 8, 12]):  # the last one is smaller
        error = x[batch] @ weights.T + intercept - y[batch]
        weights = weights - 1e-5 * 2 / error.size * error.T @ x[batch]
        intercept = intercept - 1e-5 * 2 / error.size * error.sum(axis=0)
    options = replace(ON_CPU, start=NOTEBOOK_START, epochs=1, learning_rate=1e-5, batch_size=4, shuffle=False)
    end = descend(ALL_ROWS, options)
    assert_allclose(end.coef, weights, rtol=1e-12)
    assert_allclose(end.intercept, intercept, rtol=1e-12)


@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_learning_rate_of_one_diverges_and_the_message_names_the_bound(batch_size: int | None) -> None:
    bound = largest_learning_rate(SufficientStatistics.from_rows(*FIVE_ROWS), GradientDescent(standardize=False))
    options = replace(ON_CPU, start=NOTEBOOK_START, learning_rate=1.0, batch_size=batch_size)
    with pytest.raises(Diverged, match="learning rate of 1") as diverged:
        descend(FIVE_ROWS, options)
    named = float(diverged.value.message.rpartition(" below ")[2].removesuffix("."))
    assert 0.999 * bound < named <= bound


def test_the_bound_is_two_over_the_largest_eigenvalue_of_the_hessian() -> None:
    x, y = ALL_ROWS
    ones = np.column_stack([np.ones(15), x])
    statistics = SufficientStatistics.from_rows(x, y)
    hessian = 2 / y.size * ones.T @ ones
    raw = largest_learning_rate(statistics, GradientDescent())
    assert raw == pytest.approx(2 / np.linalg.eigvalsh(hessian)[-1])
    ones = np.column_stack([np.ones(15), (x - x.mean(axis=0)) / x.std(axis=0)])
    hessian = 2 / y.size * ones.T @ ones
    standardized = largest_learning_rate(statistics, GradientDescent(standardize=True))
    assert standardized == pytest.approx(2 / np.linalg.eigvalsh(hessian)[-1])


@settings(max_examples=25)
@given(noisy_rows(), st.booleans(), st.integers(0, 100))
def test_full_batches_below_the_bound_lower_the_loss_with_every_epoch(rows: Rows, standardize: bool, seed: int) -> None:
    bound = largest_learning_rate(SufficientStatistics.from_rows(*rows), GradientDescent(standardize=standardize))
    losses: list[float] = []
    options = replace(ON_CPU, learning_rate=0.98 * bound, epochs=30, standardize=standardize, seed=seed)
    descend(rows, options, on_epoch=lambda state: losses.append(state.loss))
    assert len(losses) == 31
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(losses))


@settings(max_examples=25)
@given(noisy_rows(), st.booleans(), st.integers(0, 100))
def test_full_batches_above_the_bound_diverge(rows: Rows, standardize: bool, seed: int) -> None:
    bound = largest_learning_rate(SufficientStatistics.from_rows(*rows), GradientDescent(standardize=standardize))
    options = replace(ON_CPU, learning_rate=1.2 * bound, epochs=2000, standardize=standardize, seed=seed)
    with pytest.raises(Diverged):
        descend(rows, options)


@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_loss_that_overflows_is_reported_as_such(batch_size: int | None) -> None:
    with pytest.raises(Diverged, match="beyond the range of 64-bit floats by epoch 1 with a learning rate of 1e"):
        descend(ALL_ROWS, replace(ON_CPU, learning_rate=1e300, batch_size=batch_size))


def test_a_full_batch_that_ends_a_little_above_its_start_has_diverged() -> None:
    optimum = fit(SufficientStatistics.from_rows(*FIVE_ROWS), Exact())
    start = Start(weights=(optimum.coef + 1e-3).tolist(), intercept=optimum.intercept.tolist())
    bound = largest_learning_rate(SufficientStatistics.from_rows(*FIVE_ROWS), GradientDescent(standardize=False))
    with pytest.raises(Diverged, match="by epoch 2 "):
        descend(FIVE_ROWS, replace(ON_CPU, start=start, learning_rate=1.1 * bound, epochs=2))


def test_standardised_descent_comes_to_the_exact_optimum_in_the_features_own_units() -> None:
    statistics = SufficientStatistics.from_rows(*ALL_ROWS)
    options = replace(ON_CPU, standardize=True, learning_rate=0.5, epochs=3000)
    end, optimum = descend(ALL_ROWS, options), fit(statistics, Exact())
    assert_allclose(end.coef, optimum.coef, rtol=1e-8)
    assert_allclose(end.intercept, optimum.intercept, rtol=1e-8)
    assert end.loss == pytest.approx(0.9094, abs=5e-5)


@pytest.mark.parametrize("standardize", [False, True])
def test_given_weights_are_in_the_features_own_units_even_if_the_descent_standardises(
    standardize: bool,
) -> None:
    options = replace(ON_CPU, start=NOTEBOOK_START, epochs=0, standardize=standardize)
    end = descend(FIVE_ROWS, options)
    assert end.epoch == 0
    assert end.loss == pytest.approx(16740.3, rel=1e-4)
    assert_allclose(end.coef, np.array(NOTEBOOK_START.weights), rtol=1e-12)
    assert_allclose(end.intercept, np.array(NOTEBOOK_START.intercept), rtol=1e-11)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("patience", [None, 3])
def test_the_reported_loss_is_that_of_the_returned_weights(standardize: bool, patience: int | None) -> None:
    rate = 0.1 if standardize else 1e-5
    options = replace(ON_CPU, learning_rate=rate, epochs=40, batch_size=4, standardize=standardize, patience=patience)
    end = descend(ALL_ROWS, options)
    assert mean_squared_error(ALL_ROWS, end) == pytest.approx(end.loss, rel=1e-9)


def test_the_same_seed_takes_the_same_steps_and_another_seed_takes_other_steps() -> None:
    options = replace(ON_CPU, epochs=5, batch_size=4)
    assert_identical(descend(ALL_ROWS, options), descend(ALL_ROWS, options))
    other = descend(ALL_ROWS, replace(options, seed=1))
    assert not np.array_equal(descend(ALL_ROWS, options).coef, other.coef)


def test_the_seed_shuffles_the_rows_anew_in_every_epoch() -> None:
    options = replace(ON_CPU, start=NOTEBOOK_START, epochs=2, batch_size=4)
    in_order = descend(ALL_ROWS, replace(options, shuffle=False))
    one, two = descend(ALL_ROWS, options), descend(ALL_ROWS, replace(options, seed=1))
    assert not np.array_equal(one.coef, two.coef)
    assert not np.array_equal(one.coef, in_order.coef)
    # One epoch from where the first ended, in the first epoch's order, is another second epoch.
    first = descend(ALL_ROWS, replace(options, epochs=1))
    again = Start(weights=first.coef.tolist(), intercept=first.intercept.tolist())
    assert not np.array_equal(descend(ALL_ROWS, replace(options, epochs=1, start=again)).coef, one.coef)


def test_a_random_start_depends_only_on_the_seed() -> None:
    options = replace(ON_CPU, epochs=0)
    torch.manual_seed(1)
    start = descend(ALL_ROWS, options)
    torch.manual_seed(2)
    assert_identical(descend(ALL_ROWS, options), start)
    other = descend(ALL_ROWS, replace(options, seed=1))
    assert not np.array_equal(other.coef, start.coef)
    assert not np.array_equal(other.intercept, start.intercept)


def test_the_global_random_generator_is_not_used() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    descend(ALL_ROWS, replace(ON_CPU, epochs=2, batch_size=4))
    assert torch.equal(torch.rand(3), expected)


def test_a_batch_as_large_as_the_rows_is_the_full_batch() -> None:
    options = replace(ON_CPU, epochs=5)
    full = descend(ALL_ROWS, options)
    assert_identical(descend(ALL_ROWS, replace(options, batch_size=15)), full)
    assert_identical(descend(ALL_ROWS, replace(options, batch_size=16)), full)


@pytest.mark.parametrize(("batch_size", "steps"), [(None, 3), (5, 9), (4, 12), (1, 45)])
def test_every_step_and_every_epoch_including_epoch_0_is_reported(batch_size: int | None, steps: int) -> None:
    told: list[str] = []
    epochs: list[int] = []
    descend(
        ALL_ROWS,
        replace(ON_CPU, epochs=3, batch_size=batch_size),
        on_step=lambda: told.append("step"),
        on_epoch=lambda state: epochs.append(state.epoch),
    )
    assert len(told) == steps
    assert epochs == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "options",
    [
        replace(ON_CPU, epochs=30),
        replace(ON_CPU, epochs=30, batch_size=4),
        replace(ON_CPU, epochs=30, batch_size=4, shuffle=False),
        replace(ON_CPU, epochs=30, batch_size=4, standardize=True, learning_rate=0.05),
        replace(ON_CPU, epochs=90, batch_size=3, patience=8, learning_rate=8e-5, start=NOTEBOOK_START),
    ],
    ids=["full batch", "batches", "unshuffled", "standardised", "patience"],
)
@pytest.mark.parametrize("epoch", [0, 1, 4, 7])  # with patience, the fourth is not the best so far
def test_a_resumed_descent_ends_with_the_bits_of_an_uninterrupted_one(options: GradientDescent, epoch: int) -> None:
    states: list[TrainingState] = []
    expected = descend(ALL_ROWS, options, on_epoch=states.append)
    again: list[TrainingState] = []
    found = descend(ALL_ROWS, options, resume=states[epoch], on_epoch=again.append)
    assert_identical(found, expected)
    assert [state.epoch for state in again] == [state.epoch for state in states[epoch:]]
    for after, before in zip(again, states[epoch:], strict=True):
        assert_identical(after, before)


def test_patience_stops_a_descent_that_no_longer_improves_and_keeps_its_best_weights() -> None:
    states: list[TrainingState] = []
    options = replace(ON_CPU, epochs=500, batch_size=3, patience=8, learning_rate=8e-5, start=NOTEBOOK_START)
    end = descend(ALL_ROWS, options, on_epoch=states.append)
    losses = [state.loss for state in states]
    best = int(np.argmin(losses))
    assert end.epoch == states[-1].epoch == best + 8 < 500
    assert end.best_epoch == best
    assert end.loss == losses[best] < losses[-1]
    assert_array_equal(end.coef, states[best].current.coef)
    assert_array_equal(end.intercept, states[best].current.intercept)
    # Until then there never were eight epochs without a new lowest loss.
    for epoch in range(8, best + 1):
        assert min(losses[epoch - 7 : epoch + 1]) < min(losses[: epoch - 7])


def test_an_error_from_on_step_stops_the_descent_at_once() -> None:
    class Stop(Exception):
        pass

    steps: list[int] = []

    def stop_at_the_fifth() -> None:
        steps.append(1)
        if len(steps) == 5:
            raise Stop

    with pytest.raises(Stop):
        descend(ALL_ROWS, replace(ON_CPU, batch_size=5), on_step=stop_at_the_fifth)
    assert len(steps) == 5


def test_the_rows_are_not_changed() -> None:
    x, y = ALL_ROWS[0].copy(), ALL_ROWS[1].copy()
    descend((x, y), replace(ON_CPU, epochs=3, standardize=True, batch_size=4, learning_rate=0.1))
    assert_array_equal(x, ALL_ROWS[0])
    assert_array_equal(y, ALL_ROWS[1])


def test_a_constant_feature_can_be_standardised() -> None:
    x = np.column_stack([np.full(6, 4.0), np.arange(6.0)])
    y = 3 * np.arange(6.0)[:, np.newaxis] + 1
    end = descend((x, y), replace(ON_CPU, standardize=True, learning_rate=0.4, epochs=500))
    assert_allclose(x @ end.coef.T + end.intercept, y, atol=1e-9)


def test_the_cpu_is_always_available() -> None:
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_chooses_cuda_if_available() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_refused_if_unavailable() -> None:
    with pytest.raises(DeviceUnavailable, match="no CUDA device"):
        descend(ALL_ROWS, replace(ON_CPU, device="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("standardize", [False, True])
def test_descent_on_cuda_equals_descent_on_the_cpu(batch_size: int | None, standardize: bool) -> None:
    options = replace(
        ON_CPU, epochs=50, batch_size=batch_size, standardize=standardize, learning_rate=0.05 if standardize else 1e-5
    )
    on_cpu, on_cuda = descend(ALL_ROWS, options), descend(ALL_ROWS, replace(options, device="cuda"))
    assert_allclose(on_cuda.coef, on_cpu.coef, rtol=1e-9, atol=1e-9)
    assert_allclose(on_cuda.intercept, on_cpu.intercept, rtol=1e-9, atol=1e-9)
    assert on_cuda.loss == pytest.approx(on_cpu.loss, rel=1e-9)


def torch_trace(rows: Rows, options: GradientDescent) -> list[float]:
    """The notebook's own loop over the rows, full batch, from zero weights."""
    x, y = (torch.from_numpy(part) for part in rows)
    model = torch.nn.Linear(x.shape[1], y.shape[1], dtype=torch.float64)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay
    )
    losses = []
    for _ in range(options.epochs + 1):
        loss = torch.nn.functional.mse_loss(model(x), y)
        squares = sum(parameter.square().sum().item() for parameter in model.parameters())
        losses.append(loss.item() + options.weight_decay / 2 * squares)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return losses


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.5, 0.01)])
def test_full_batches_from_the_statistics_alone_follow_the_loop_over_the_rows(
    momentum: float, weight_decay: float
) -> None:
    zero = Start(weights=[[0.0] * 3] * 2, intercept=[0.0] * 2)
    options = replace(ON_CPU, epochs=50, momentum=momentum, weight_decay=weight_decay, start=zero)
    losses: list[float] = []

    gradient_descent(
        None, SufficientStatistics.from_rows(*ALL_ROWS), options, on_epoch=lambda state: losses.append(state.loss)
    )

    assert losses == pytest.approx(torch_trace(ALL_ROWS, options), rel=1e-9)


@pytest.mark.parametrize("batch_size", [None, 6])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_row_of_weight_three_steps_like_three_rows(batch_size: int | None, standardize: bool) -> None:
    x, y = ALL_ROWS
    weights = np.tile([1.0, 3.0, 2.0], 5)
    repeated = np.repeat(np.arange(15), weights.astype(int))
    # Batches of as many whole rows hold as many repeated ones: 6 rows of these weights are 12.
    options = replace(
        ON_CPU,
        epochs=20,
        batch_size=batch_size,
        shuffle=False,
        standardize=standardize,
        learning_rate=0.05 if standardize else 1e-5,
    )
    twice = replace(options, batch_size=batch_size and 2 * batch_size)
    weighted = TrainingBatch(x, y, weights)

    found = gradient_descent(weighted, summarise([weighted]), options)
    expected = descend((x[repeated], y[repeated]), twice)

    assert_allclose(found.coef, expected.coef, rtol=1e-9)
    assert_allclose(found.intercept, expected.intercept, rtol=1e-9)
    assert found.loss == pytest.approx(expected.loss, rel=1e-9)


def test_batches_follow_the_notebooks_loop_with_automatic_differentiation() -> None:
    x, y = (torch.from_numpy(part) for part in ALL_ROWS)
    model = torch.nn.Linear(3, 2, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=0.1)
    start = Start(weights=model.weight.tolist(), intercept=model.bias.tolist())
    for _ in range(30):
        for batch in range(0, 15, 4):
            loss = torch.nn.functional.mse_loss(model(x[batch : batch + 4]), y[batch : batch + 4])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    options = replace(
        ON_CPU, epochs=30, batch_size=4, shuffle=False, start=start, learning_rate=1e-5, momentum=0.9, weight_decay=0.1
    )

    end = descend(ALL_ROWS, options)

    assert_allclose(end.coef, model.weight.tolist(), rtol=1e-10)
    assert_allclose(end.intercept, model.bias.tolist(), rtol=1e-10)


def test_momentum_is_resumed_to_the_last_bit() -> None:
    options = replace(ON_CPU, epochs=30, momentum=0.9, batch_size=4)
    states: list[TrainingState] = []
    straight = descend(ALL_ROWS, options, on_epoch=states.append)

    assert_identical(descend(ALL_ROWS, options, resume=states[11]), straight)


def test_momentum_permits_a_larger_learning_rate() -> None:
    statistics = SufficientStatistics.from_rows(*ALL_ROWS)
    plain, heavy = (largest_learning_rate(statistics, GradientDescent(momentum=beta)) for beta in (0.0, 0.9))
    assert heavy == pytest.approx(1.9 * plain)
    options = replace(ON_CPU, epochs=300, momentum=0.9)
    descend(ALL_ROWS, replace(options, learning_rate=0.95 * heavy))
    with pytest.raises(Diverged):
        descend(ALL_ROWS, replace(options, learning_rate=1.05 * heavy))


def test_patience_watches_the_rows_that_are_held_out() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(24, 12))
    y = x[:, :1] + 2 * random.normal(size=(24, 1))  # 12 features for 12 rows are soon fitted to their noise
    options = replace(ON_CPU, epochs=5000, learning_rate=0.1, validation_fraction=0.5, patience=20)
    states: list[TrainingState] = []

    end = descend((x, y), options, on_epoch=states.append)

    assert end.epoch < options.epochs
    assert end.epoch == end.best_epoch + 20
    assert (
        min(state.monitored_loss for state in states)
        == states[-1].best.monitored_loss
        == states[end.best_epoch].monitored_loss
    )
    assert states[-1].loss < states[end.best_epoch].loss  # the training rows' loss went on falling
    assert_array_equal(end.coef, states[end.best_epoch].current.coef)
