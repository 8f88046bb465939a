"""Units of columns and weights near the ends of the range of 64-bit numbers."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from regression.sequences import Published, publish

from app.regression.downdate import downdate
from app.regression.errors import ColumnOutOfRange, ValuesTooLarge, ValuesTooSmall
from app.regression.least_squares import fit
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

UNITS = (0.0, 1e-300, 1e-160, 1.0, 1e160, 1e300)


def some_rows(rows: int = 30, unit: float = 1.0, seed: int = 3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    x = random.normal((0, 2), size=(rows, 2))
    y = x @ [[1.5], [0.3]] + 1 + random.normal(size=(rows, 1))
    return x * [unit, 1.0], y


def published(
    x: NDArray[np.float64], y: NDArray[np.float64], *, intercept: bool = True, refined: bool = True
) -> Published:
    rows = TrainingBatch(x, y)
    return publish(summarise([rows]), Exact(fit_intercept=intercept), rows if refined else None)


def assert_same_fit(found: Published, expected: Published, units: NDArray[np.float64], target: float) -> None:
    """Compare a fit in these units of the features and of the target with one in ordinary units."""
    assert found.inference is not None
    assert expected.inference is not None
    for name in ("t_values", "p_values", "f_values", "f_p_values"):
        assert_allclose(getattr(found.inference, name), getattr(expected.inference, name), rtol=1e-9)
    for name in ("standard_errors", "lower", "upper"):
        brought_back = getattr(found.inference, name) / target * [1.0, *units]
        assert_allclose(brought_back, getattr(expected.inference, name), rtol=1e-9)
    assert_allclose(found.model.coef / target * units, expected.model.coef, rtol=1e-9)
    assert_allclose(found.model.intercept / target, expected.model.intercept, rtol=1e-9)
    assert_allclose(found.metrics.r2, expected.metrics.r2, rtol=1e-9)
    assert_allclose(found.metrics.rmse / target, expected.metrics.rmse, rtol=1e-9)


def assert_same_optimum(found: SufficientStatistics, expected: SufficientStatistics) -> None:
    assert_allclose(fit(found, Exact()).coef, fit(expected, Exact()).coef, rtol=1e-9)
    assert_allclose(fit(found, Exact()).residual_norms, fit(expected, Exact()).residual_norms, rtol=1e-9)


@pytest.mark.parametrize("refined", [True, False])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(
    ("unit", "target"),
    [
        (1e-155, 1.0),
        (1e-162, 1.0),
        (1e-170, 1.0),
        (1.0, 1e-165),
        (1e-170, 1e-165),
        (1e-250, 1.0),
        (1e250, 1.0),
        (1.0, 1e250),
        (1e200, 1e250),
        (1e-100, 1e150),
    ],
)
def test_a_fit_in_extreme_units_is_the_fit_in_ordinary_ones(
    unit: float, target: float, *, intercept: bool, refined: bool
) -> None:
    x, y = some_rows()

    expected = published(x, y, intercept=intercept, refined=refined)
    found = published(x * [unit, 1], y * target, intercept=intercept, refined=refined)

    assert_same_fit(found, expected, np.array([unit, 1.0]), target)


@pytest.mark.parametrize(
    ("unit", "target", "error", "column"),
    [
        (1e-310, 1.0, ValuesTooSmall, 0),
        (1e300, 1.0, ValuesTooLarge, 0),
        (1.0, 1e-310, ValuesTooSmall, 2),
        (1.0, 1e300, ValuesTooLarge, 2),
        (1e-162, 1e150, ValuesTooSmall, 0),  # a coefficient of 1e312
        (1e-100, 1e200, ValuesTooLarge, 2),
        (1e200, 1e-150, ValuesTooLarge, 0),  # a coefficient of 1e-350
    ],
)
def test_units_that_cannot_be_held_are_refused_with_their_column(
    unit: float, target: float, error: type[ColumnOutOfRange], column: int
) -> None:
    x, y = some_rows()

    with pytest.raises(error, match=f"Column {column + 1} has values too") as refused:
        published(x * [unit, 1], y * target)

    assert refused.value.column == column


def test_values_whose_differences_overflow_are_refused_with_their_column() -> None:
    x, y = some_rows()
    x[:, 1] = 1.7e308
    x[0, 1] = -1.7e308

    with pytest.raises(ValuesTooLarge, match="Column 2 has values too large"):
        summarise([TrainingBatch(x, y)])


def test_versions_whose_shifts_are_too_far_apart_are_not_merged() -> None:
    x, y = some_rows()
    distance = np.array([1.7e308, 0.0])
    far = SufficientStatistics.from_rows(x + distance, y)

    with pytest.raises(ValuesTooLarge, match="Column 1 has values too large"):
        far.merge(SufficientStatistics.from_rows(x - distance, y))


@pytest.mark.parametrize(("first", "second"), [*itertools.product(UNITS, UNITS)])
def test_rows_of_any_units_after_each_other_are_fitted_or_refused(first: float, second: float) -> None:
    (x1, y1), (x2, y2) = some_rows(20, first), some_rows(20, second, seed=4)
    one, other = summarise([TrainingBatch(x1, y1)]), summarise([TrainingBatch(x2, y2)])
    together = SufficientStatistics.from_rows(np.vstack([x1, x2]), np.vstack([y1, y2]))
    too_far = max(first, second) == 1e300 or 0 < max(first, second) < 1e-200

    merged = one.merge(other)

    if too_far:
        with pytest.raises(ColumnOutOfRange):
            fit(merged, Exact())
    else:
        assert_same_optimum(merged, together)
    if too_far:
        with pytest.raises(ColumnOutOfRange):
            fit(summarise([TrainingBatch(x1, y1), TrainingBatch(x2, y2)]), Exact())
    else:
        assert_same_optimum(summarise([TrainingBatch(x1, y1), TrainingBatch(x2, y2)]), together)
    if first == second and not too_far:
        assert_same_optimum(downdate(merged, other), one)


def test_rows_of_another_unit_in_a_later_chunk_are_fitted() -> None:
    x, y = some_rows(40_000)
    first = x.copy()
    first[:, 0] = 0.1 * 1e-160  # constant in the first chunk
    blocks = [TrainingBatch(first, y), TrainingBatch(x * [1e160, 1], y)]

    found = fit(summarise(blocks), Exact())

    stacked = np.vstack([blocks[0].x, blocks[1].x]) * [1e-160, 1]
    expected = fit(SufficientStatistics.from_rows(stacked, np.vstack([y, y])), Exact())
    assert_allclose(found.coef * [1e160, 1], expected.coef, rtol=1e-9)
    assert_allclose(found.residual_norms, expected.residual_norms, rtol=1e-9)


def test_integers_near_2_to_the_53_are_not_constant() -> None:
    random = np.random.default_rng(5)
    steps = random.integers(0, 10, (40, 1)).astype(float)
    y = 2 * steps + random.normal(size=(40, 1))

    found, expected = published(2.0**53 - 100 + steps, y), published(steps, y)

    assert found.optimum.design.rank == 2
    assert found.inference is not None
    assert expected.inference is not None
    assert_allclose(found.model.coef, expected.model.coef, rtol=1e-12)
    assert_allclose(found.inference.p_values[:, 1], expected.inference.p_values[:, 1], rtol=1e-9)


def test_a_distant_row_of_little_weight_makes_no_column_constant() -> None:
    x, y = some_rows()
    far, weights = np.full((1, 2), 1e25), np.array([*np.ones(30), 1e-60])
    rows = TrainingBatch(np.vstack([x, far]), np.vstack([y, [[0.0]]]), weights)

    for found in (publish(summarise([rows]), Exact(), rows), publish(summarise([rows]), Exact(), None)):
        assert_array_equal(found.optimum.design.norms > 0, [True, True])
        assert found.optimum.design.rank == 3
        # Its weight is 1e-60 and its deviation 1e25: it moves nothing by more than one part in 1e9.
        assert_allclose(found.model.coef, published(x, y).model.coef, rtol=1e-8)


@pytest.mark.parametrize("weight", [1e-300, 1e-60, 1e60, 1e300])
def test_weights_of_any_size_give_the_same_fit(weight: float) -> None:
    x, y = some_rows()
    rows = TrainingBatch(x, y, np.full(len(x), weight))

    for read_again in (rows, None):
        assert_same_fit(publish(summarise([rows]), Exact(), read_again), published(x, y), np.ones(2), 1.0)


@pytest.mark.parametrize(
    ("feature", "target", "held"),
    [
        (950, 950, True),
        (970, 970, False),
        (-950, -950, True),
        (-970, -970, False),
        (890, 0, True),
        (910, 0, False),
        (-890, 0, True),
        (-910, 0, False),
    ],
)
def test_columns_are_held_up_to_the_limits_of_their_norms_and_ratios(feature: int, target: int, held: bool) -> None:
    x, y = some_rows()
    statistics = summarise([TrainingBatch(x * 2.0**feature, y * 2.0**target)])
    if held:
        found, expected = fit(statistics, Exact()), fit(summarise([TrainingBatch(x, y)]), Exact())
        assert_allclose(found.coef * 2.0 ** (feature - target), expected.coef, rtol=1e-12)
    else:
        with pytest.raises(ColumnOutOfRange):
            fit(statistics, Exact())
