"""Which rows and columns a gradient descent works on, and that it hands back what it descended to."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from app.regression.errors import InaccurateCoefficients, InvalidOption
from app.regression.least_squares import fit
from app.regression.solvers import Exact, GradientDescent, Start
from app.regression.solvers.base import TrainingState
from app.regression.solvers.descent import Descended, gradient_descent
from app.regression.solvers.scaler import largest_learning_rate
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array: TypeAlias = NDArray[np.float64]

ON_CPU = GradientDescent(device="cpu")
STANDARDISED = replace(ON_CPU, standardize=True, learning_rate=0.4, epochs=300)
YIELDS = np.loadtxt(Path(__file__).parents[3] / "models" / "crop-yield" / "yields.csv", delimiter=",", skiprows=1)
ALL_ROWS = TrainingBatch(YIELDS[:, :3], YIELDS[:, 3:])
LINE = np.arange(1.0, 8.0)


def descend(rows: TrainingBatch, options: GradientDescent, resume: TrainingState | None = None) -> Descended:
    return gradient_descent(rows, summarise([rows]), options, resume=resume)


def assert_identical(found: Descended, expected: Descended) -> None:
    assert_array_equal(found.coef, expected.coef)
    assert_array_equal(found.intercept, expected.intercept)
    assert (found.loss, found.epoch, found.warnings) == (expected.loss, expected.epoch, expected.warnings)


def next_to_the_line(constant: float) -> TrainingBatch:
    return TrainingBatch(np.column_stack([LINE, np.full(7, constant)]), 2 * LINE[:, np.newaxis] + 1)


def exact_loss(rows: TrainingBatch, found: Descended, statistics: SufficientStatistics) -> float:
    """The mean squared error in exact arithmetic, from the prediction at the statistics' shift."""
    centre = [Fraction(value) for value in statistics.shift[: statistics.features]]
    weights = [[Fraction(value) for value in row] for row in found.coef]
    total = Fraction(0)
    for x, y in zip(rows.x, rows.y, strict=True):
        deviations = [Fraction(value) - at for value, at in zip(x, centre, strict=True)]
        for row, at_centre, wanted in zip(weights, found.centre_prediction, y, strict=True):
            slope = sum(weight * deviation for weight, deviation in zip(row, deviations, strict=True))
            total += (Fraction(wanted) - Fraction(at_centre) - slope) ** 2
    return float(total / rows.y.size)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_constant_column_next_to_standardised_ones_changes_no_prediction(
    batch_size: int | None,
) -> None:
    options = replace(STANDARDISED, batch_size=batch_size, learning_rate=0.1, epochs=120)
    alone = descend(TrainingBatch(LINE[:, np.newaxis], 2 * LINE[:, np.newaxis] + 1), options)
    expected = LINE * alone.coef[0, 0] + alone.intercept[0]
    random = np.random.default_rng(0)
    constants = [0.1, *np.round(random.uniform(-10, 10, 20), 2), 1e15 + 0.125, 1e-300, 0.0]
    for constant in constants:
        rows = next_to_the_line(constant)
        found = descend(rows, options)
        assert found.coef[0, 1] == 0
        # The random numbers of the start are others for two columns than for one.
        assert_allclose((rows.x @ found.coef.T + found.intercept)[:, 0], expected, atol=1e-9)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_given_weight_of_a_constant_column_stays_and_the_predictions_are_right(batch_size: int | None) -> None:
    start = Start(weights=[[0.5, -3.0]], intercept=[4.0])
    rows = next_to_the_line(0.1)
    found = descend(rows, replace(STANDARDISED, start=start, learning_rate=0.1, batch_size=batch_size))
    assert found.coef[0, 1] == -3
    assert_allclose(rows.x @ found.coef.T + found.intercept, rows.y, atol=1e-9)
    before = descend(rows, replace(STANDARDISED, start=start, epochs=0))
    assert_allclose(before.intercept, [4.0], rtol=1e-14)


def test_a_column_that_varies_only_in_rows_of_weight_zero_is_constant() -> None:
    rows = next_to_the_line(0.1)
    rows.x[2, 1] = 5.0
    weighted = TrainingBatch(rows.x, rows.y, (rows.x[:, 1] == 0.1).astype(float))
    for batch_size in (None, 3):
        found = descend(weighted, replace(STANDARDISED, batch_size=batch_size, learning_rate=0.1))
        assert found.coef[0, 1] == 0
        assert_allclose((rows.x @ found.coef.T + found.intercept)[:2], rows.y[:2], atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e12, 1e15])
@pytest.mark.parametrize("patience", [None, 5])
@pytest.mark.parametrize("batch_size", [None, 16])
def test_the_loss_of_the_returned_coefficients_is_that_of_their_epoch(
    offset: float, patience: int | None, batch_size: int | None
) -> None:
    random = np.random.default_rng(4)
    x = offset + random.integers(-50, 50, size=(64, 2)).astype(float)
    rows = TrainingBatch(x, 0.5 * (x - offset) @ np.ones((2, 1)) + random.normal(size=(64, 1)))
    options = replace(STANDARDISED, learning_rate=0.05, epochs=40, patience=patience, batch_size=batch_size)
    statistics = summarise([rows])
    losses: list[float] = []
    found = gradient_descent(rows, statistics, options, on_epoch=lambda state: losses.append(state.loss))
    assert found.loss == losses[-1 if patience is None else found.best_epoch]
    assert exact_loss(rows, found, statistics) == pytest.approx(found.loss, rel=1e-9)


@pytest.mark.parametrize("standardize", [False, True])
def test_a_perfect_fit_is_returned_although_its_loss_is_rounding(standardize: bool) -> None:
    rows = TrainingBatch(LINE[:, np.newaxis], 3e6 * LINE[:, np.newaxis] - 7e5)
    options = replace(STANDARDISED, standardize=standardize, epochs=3000)
    bound = largest_learning_rate(summarise([rows]), options)
    found = descend(rows, replace(options, learning_rate=0.9 * bound))
    assert found.loss < 1e-15
    assert_allclose(found.coef, [[3e6]], rtol=1e-12)


@pytest.mark.parametrize(("error", "is_told"), [(1e-10, False), (1e-8, True), (1.0, True), (-0.5, True)])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_coefficients_without_the_loss_of_their_epoch_are_not_returned(
    error: float, is_told: bool, standardize: bool, weight_decay: float
) -> None:
    options = replace(ON_CPU, standardize=standardize, weight_decay=weight_decay, epochs=3)
    states: list[TrainingState] = []
    gradient_descent(None, summarise([ALL_ROWS]), options, on_epoch=states.append)
    fields = {**vars(states[-1]), "loss": states[-1].loss * (1 + error)}
    if not is_told:
        descend(ALL_ROWS, options, TrainingState(**fields))
        return
    with pytest.raises(InaccurateCoefficients, match="No version was published"):
        descend(ALL_ROWS, options, TrainingState(**fields))


def test_the_centre_prediction_is_at_the_shift_of_all_rows_validation_rows_included() -> None:
    statistics = summarise([ALL_ROWS])
    for options in (
        ON_CPU,
        STANDARDISED,
        replace(STANDARDISED, validation_fraction=0.4, patience=5, learning_rate=0.1),
    ):
        found = gradient_descent(ALL_ROWS, statistics, options)
        at_shift = found.coef @ statistics.shift[:3] + found.intercept
        assert_allclose(found.centre_prediction, at_shift, rtol=1e-12)


def with_rows_of_weight_zero(rows: TrainingBatch) -> TrainingBatch:
    """The rows of weight 1, and between them others of weight 0."""
    count = len(rows.x)
    x, y = np.full((3 * count, rows.x.shape[1]), 1e6), np.full((3 * count, rows.y.shape[1]), -1e6)
    weights = np.zeros(3 * count)
    at = np.arange(count) * 3 + np.arange(count) % 2
    x[at], y[at], weights[at] = rows.x, rows.y, 1.0
    return TrainingBatch(x, y, weights)


@pytest.mark.parametrize(
    "options",
    [
        replace(ON_CPU, batch_size=4),
        replace(ON_CPU, batch_size=4, shuffle=False, momentum=0.5),
        replace(ON_CPU, batch_size=15),
        replace(ON_CPU, batch_size=4, validation_fraction=0.3, patience=4),
        replace(ON_CPU, validation_fraction=0.3, patience=4, standardize=True, learning_rate=0.1),
        replace(ON_CPU, validation_fraction=0.02, patience=4),
    ],
    ids=["batches", "unshuffled", "all at once", "held out", "held out of the full batch", "none held out"],
)
def test_rows_of_weight_zero_change_nothing(options: GradientDescent) -> None:
    plain = TrainingBatch(ALL_ROWS.x, ALL_ROWS.y, np.ones(15))
    options = replace(options, epochs=30)
    statistics = summarise([plain])
    expected = gradient_descent(plain, statistics, options)
    assert_identical(gradient_descent(with_rows_of_weight_zero(plain), statistics, options), expected)


def test_the_weights_of_held_out_rows_count_in_the_loss_that_patience_watches() -> None:
    weights = np.tile([1.0, 3.0, 0.0], 5)
    options = replace(ON_CPU, validation_fraction=0.3, patience=50, epochs=20)
    states: list[TrainingState] = []
    rows = TrainingBatch(ALL_ROWS.x, ALL_ROWS.y, weights)
    gradient_descent(rows, summarise([rows]), options, on_epoch=states.append)
    held = np.array([state.monitored_loss for state in states])
    assert len(set(held)) == len(held)
    heavier = TrainingBatch(ALL_ROWS.x, ALL_ROWS.y, weights * 7)
    again: list[TrainingState] = []
    gradient_descent(heavier, summarise([heavier]), options, on_epoch=again.append)
    assert_allclose([state.monitored_loss for state in again], held, rtol=1e-9)


def test_patience_watches_the_plain_loss_of_held_out_rows_and_otherwise_the_penalised_one() -> None:
    options = replace(ON_CPU, weight_decay=0.5, epochs=3, patience=9)
    states: list[TrainingState] = []
    gradient_descent(ALL_ROWS, summarise([ALL_ROWS]), options, on_epoch=states.append)
    assert [state.monitored_loss for state in states] == [state.loss for state in states]
    states.clear()
    # All rows are equal, so the loss of the validation rows is that of the other rows.
    doubled = TrainingBatch(np.repeat(ALL_ROWS.x[:1], 4, axis=0), np.repeat(ALL_ROWS.y[:1], 4, axis=0))
    gradient_descent(doubled, summarise([doubled]), replace(options, validation_fraction=0.5), on_epoch=states.append)
    for state in states:
        penalty = 0.25 * ((state.current.coef**2).sum() + (state.current.intercept**2).sum())
        assert state.loss == pytest.approx(state.monitored_loss + penalty, rel=1e-9)


def test_a_fraction_that_holds_out_no_row_is_a_warning() -> None:
    options = replace(ON_CPU, validation_fraction=0.01, patience=5, epochs=30)
    found = descend(ALL_ROWS, options)
    assert found.warnings == (
        "validation_fraction=0.01 of 15 rows holds out no row; patience watches the training rows.",
    )
    assert_array_equal(found.coef, descend(ALL_ROWS, replace(options, validation_fraction=0.0)).coef)
    without = descend(ALL_ROWS, replace(options, patience=None))
    assert without.warnings == ("validation_fraction=0.01 of 15 rows holds out no row; all rows are trained on.",)
    assert descend(ALL_ROWS, replace(options, validation_fraction=0.04)).warnings == ()


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_fraction_that_holds_out_every_row_is_refused(batch_size: int | None) -> None:
    with pytest.raises(
        InvalidOption, match=r"validation_fraction=0\.99 of 15 row\(s\) holds out all of them"
    ) as refused:
        descend(ALL_ROWS, replace(ON_CPU, validation_fraction=0.99, batch_size=batch_size))
    assert refused.value.option == "validation_fraction"
    assert descend(ALL_ROWS, replace(ON_CPU, validation_fraction=0.95, batch_size=batch_size)).epoch == 100


def test_a_standardised_descent_finds_the_optimum_for_features_in_extreme_units() -> None:
    rows = TrainingBatch(ALL_ROWS.x * [1e-150, 1.0, 1e150], ALL_ROWS.y)
    found = descend(rows, replace(STANDARDISED, epochs=3000))
    assert_allclose(found.coef, fit(summarise([rows]), Exact()).coef, rtol=1e-8)
