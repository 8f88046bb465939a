"""A second reading of the rows, against rational arithmetic: all digits of each number are right."""

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import pytest
from exact import exact_fit, worst
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from app.regression import extended_precision
from app.regression.extended_precision import refine, should_refine
from app.regression.least_squares import Fit, fit
from app.regression.solvers import Exact
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array: TypeAlias = NDArray[np.float64]

LAST_DIGIT = 4e-16  # two units in the last place

# Both ways to sum the cross products: all rows in fixed point, or all in double-double.
FIXED_POINT, DOUBLE_DOUBLE = np.inf, 0.0


@pytest.fixture(params=[FIXED_POINT, DOUBLE_DOUBLE], ids=["fixed point", "double-double"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extended_precision, "LITTLE_WORK", request.param)


def some_rows(seed: int, rows: int = 30, features: int = 2, targets: int = 2) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, features)) + random.uniform(-3, 3, features)
    y = x @ random.uniform(1, 2, (features, targets)) + 5 + random.normal(size=(rows, targets))
    return x, y


def refined(x: Array, y: Array, weights: Array | None = None, *, intercept: bool = True) -> Fit:
    rows = [TrainingBatch(x, y, weights)]
    return refine(rows, summarise(rows), fit_intercept=intercept)


def assert_last_digits(
    found: Fit,
    x: Array,
    y: Array,
    weights: Array | None = None,
    *,
    intercept: bool = True,
    shift: Array | None = None,
    tolerance: float = LAST_DIGIT,
) -> None:
    expected = exact_fit(x, y, weights, intercept=intercept)
    shift = summarise([TrainingBatch(x, y, weights)]).shift if shift is None else shift
    assert worst(found.coef, expected.coefficients[1:].T) <= tolerance
    assert worst(found.intercept, expected.coefficients[0]) <= tolerance
    assert worst(found.centre_prediction, expected.predict(shift[np.newaxis, : x.shape[1]])[0]) <= tolerance
    assert worst(found.residual_norms, expected.residual_norms) <= tolerance
    assert worst(found.unscaled_errors, expected.unscaled_errors) <= tolerance


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_number_of_a_fit_has_all_its_digits(either_way: None, intercept: bool, weighted: bool) -> None:
    x, y = some_rows(1, features=4, targets=3)
    weights = np.random.default_rng(1).uniform(0.1, 10, len(x)) if weighted else None

    assert_last_digits(refined(x, y, weights, intercept=intercept), x, y, weights, intercept=intercept)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    units=st.tuples(st.integers(-160, 160), st.integers(-160, 160), st.integers(-140, 140)),
    offset=st.none() | st.integers(-3, 12),
    weight=st.none() | st.integers(-300, 298),
    way=st.sampled_from([FIXED_POINT, DOUBLE_DOUBLE]),
)
def test_neither_units_nor_offsets_nor_weights_cost_digits(
    seed: int, units: tuple[int, int, int], offset: int | None, weight: int | None, way: float
) -> None:
    intercept = offset is not None
    x, y = some_rows(seed, rows=12, targets=1)
    x += 0.0 if offset is None else 10.0**offset
    x, y = x * 10.0 ** np.array(units[:2]), y * 10.0 ** units[2]
    # Coefficients, standard errors and residual norms have to be ordinary numbers.
    assume(all(abs(units[2] - unit) < 290 for unit in units[:2]))
    weights = None if weight is None else np.random.default_rng(seed).uniform(0.5, 2, 12) * 10.0**weight
    assume(weight is None or all(abs(weight / 2 + unit) < 290 for unit in units))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extended_precision, "LITTLE_WORK", way)
        found = refined(x, y, weights, intercept=intercept)

    assert_last_digits(found, x, y, weights, intercept=intercept)


@pytest.mark.parametrize("heavy", [1e-300, 1e-60, 1e30, 1e55, 1e60, 1e100, 1e300])
def test_a_row_heavier_than_all_others_costs_them_no_digits(either_way: None, heavy: float) -> None:
    x, y = some_rows(2)
    weights = np.random.default_rng(2).uniform(0.5, 2, len(x))
    weights[3] = heavy  # the plane goes through this row, and the others turn it

    assert_last_digits(refined(x, y, weights), x, y, weights)


def test_weights_of_many_sizes_count_as_they_are(either_way: None) -> None:
    x, y = some_rows(3)
    weights = 10.0 ** np.random.default_rng(3).uniform(-6, 6, len(x))
    weights[::7] = 10.0 ** -np.arange(300.0, 50, -50)[: len(weights[::7])]

    assert_last_digits(refined(x, y, weights), x, y, weights)


def test_rows_of_weight_zero_change_nothing(either_way: None) -> None:
    x, y = some_rows(4)
    weights = np.tile([1.0, 0.0, 2.0], 10)
    x[1::3] = 1e9
    kept = weights > 0

    assert_last_digits(refined(x, y, weights), x[kept], y[kept], weights[kept])


def test_a_block_of_weights_of_zero_changes_nothing(either_way: None) -> None:
    x, y = some_rows(4)
    rows = [TrainingBatch(x, y, np.ones(len(x))), TrainingBatch(x + 1, y - 1, np.zeros(len(x)))]

    assert_last_digits(refine(rows, summarise(rows), fit_intercept=True), x, y)


@pytest.mark.parametrize("blocks", [1, 2, 5, 30])
def test_the_blocks_that_rows_come_in_change_nothing(either_way: None, blocks: int) -> None:
    x, y = some_rows(5)
    weights = np.random.default_rng(5).uniform(0.1, 10, len(x))
    rng = np.random.default_rng(blocks)
    inner = np.sort(rng.choice(np.arange(1, len(x)), blocks - 1, replace=False))
    cuts = [0, *inner.tolist(), len(x)]
    parts = [TrainingBatch(x[a:b], y[a:b], weights[a:b]) for a, b in pairwise(cuts)]
    parts.insert(1, TrainingBatch(x[:0], y[:0], weights[:0]))

    statistics = summarise(parts)

    assert_last_digits(refine(parts, statistics, fit_intercept=True), x, y, weights, shift=statistics.shift)


def test_rows_beyond_those_that_are_summed_at_once_count_too(either_way: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extended_precision, "ROWS", 7)
    x, y = some_rows(6, rows=50)
    weights = np.random.default_rng(6).uniform(0.1, 10, len(x))

    assert_last_digits(refined(x, y, weights), x, y, weights)
    assert_last_digits(refined(x, y), x, y)


def test_more_rows_than_are_summed_at_once_keep_their_digits() -> None:
    x, y = some_rows(7, rows=2 * extended_precision.ROWS + 1, features=1, targets=1)
    x += 1e6
    statistics = summarise([TrainingBatch(x, y)])

    found = refine([TrainingBatch(x, y)], statistics, fit_intercept=True)

    # Normal equations of two unknowns, in integers, which are faster than fractions.
    a, b = ([round(value) for value in np.ldexp(column[:, 0], 60).tolist()] for column in (x, y))
    n, products = len(a), sum(u * v for u, v in zip(a, b, strict=True))
    slope = Fraction(n * products - sum(a) * sum(b), n * sum(u * u for u in a) - sum(a) ** 2)
    intercept = (sum(b) - slope * sum(a)) / n / 2**60
    assert worst(found.coef, [slope]) <= LAST_DIGIT
    assert worst(found.intercept, [intercept]) <= LAST_DIGIT


@pytest.mark.parametrize("offset", [0.0, 1e8, 2.0**51])
def test_the_prediction_at_the_shift_keeps_the_digits_that_the_intercept_loses(either_way: None, offset: float) -> None:
    random = np.random.default_rng(8)
    x = random.integers(-50, 50, (40, 1)).astype(float) + offset
    y = 1e-3 * (x - offset) + random.normal(size=(40, 1)) * 1e-6

    assert_last_digits(refined(x, y), x, y)


@pytest.mark.parametrize("intercept", [True, False])
def test_a_perfect_fit_has_no_residuals(either_way: None, intercept: bool) -> None:
    random = np.random.default_rng(9)
    x = random.integers(-1000, 1000, (200, 3)).astype(float)
    y = x @ np.array([[1.0, 0.125], [-3.0, 5.0], [0.5, 7.0]]) + 4.0 * intercept

    found = refined(x, y, intercept=intercept)

    assert_array_equal(found.residual_norms, [0, 0])
    assert_array_equal(found.coef, [[1, -3, 0.5], [0.125, 5, 7]])
    assert_array_equal(found.intercept, [4 * intercept, 4 * intercept])


def test_one_perfect_target_leaves_the_residuals_of_another(either_way: None) -> None:
    x, y = some_rows(10)
    y[:, 0] = 1 + x[:, 0] * 2  # two units in the last place from a plane

    found = refined(x, y)

    # In double-double they are not known, or else rounding errors.
    assert not found.residual_norms[0] > 1e-14 * np.abs(y[:, 0]).max()
    assert worst(found.residual_norms[1:], exact_fit(x, y).residual_norms[1:]) <= LAST_DIGIT


def test_a_target_that_does_not_vary_has_no_slope(either_way: None) -> None:
    x, y = some_rows(11)
    y[:, 1] = 0.1

    found = refined(x, y)

    assert_array_equal(found.coef[1], [0, 0])
    assert_array_equal(found.residual_norms[1], 0)
    assert found.intercept[1] == found.centre_prediction[1] == 0.1


def _condition(x: Array) -> float:
    return float(fit(summarise([TrainingBatch(x, x[:, :1])]), Exact()).design.condition_number)


@pytest.mark.parametrize(("gap", "intercept"), [(1e-6, True), (1e-6, False), (1e-11, True)])
def test_nearly_collinear_columns_keep_the_digits_that_double_double_has(
    either_way: None, gap: float, intercept: bool
) -> None:
    random = np.random.default_rng(12)
    x = random.normal(size=(30, 2))
    x[:, 1] = x[:, 0] + gap * x[:, 1]
    y = x @ np.array([[1.0], [2.0]]) + random.normal(size=(30, 1))
    assert _condition(x) > 0.5 / gap

    # Cross products of 32 digits lose those of the squared condition number.
    tolerance = max(LAST_DIGIT, 1e-31 / gap**2)
    assert_last_digits(refined(x, y, intercept=intercept), x, y, intercept=intercept, tolerance=tolerance)


def test_few_rows_keep_all_digits_however_collinear_they_are() -> None:
    random = np.random.default_rng(13)
    x = random.normal(size=(30, 2))
    x[:, 1] = x[:, 0] + 2e-13 * x[:, 1]
    y = x @ np.array([[1.0], [2.0]]) + random.normal(size=(30, 1))
    assert _condition(x) > 1e12

    assert_last_digits(refined(x, y), x, y)


def test_only_a_fit_of_full_rank_and_few_features_is_refined() -> None:
    random = np.random.default_rng(14)

    def worthwhile(x: Array) -> bool:
        statistics = summarise([TrainingBatch(x, x[:, :1] + random.normal(size=(len(x), 1)))])
        return should_refine(statistics, fit(statistics, Exact()))

    x = random.normal(size=(200, 61))
    assert worthwhile(x[:10, :3])
    assert not worthwhile(np.hstack([x[:, :3], x[:, :1]]))
    correlated = x + 20 * x[:, :1]
    assert worthwhile(correlated[:, :60])
    assert not worthwhile(correlated)


def test_the_rows_are_read_once() -> None:
    x, y = some_rows(15)
    rows: Iterable[TrainingBatch] = iter([TrainingBatch(x, y)])

    assert_last_digits(refine(rows, summarise([TrainingBatch(x, y)]), fit_intercept=True), x, y)


def test_columns_that_the_statistics_call_constant_zeros_are_no_obstacle(either_way: None) -> None:
    """A target of zeros has a scale of its own, and no size."""
    x, y = some_rows(16)
    y[:, 0] = 0.0

    found = refined(x, y)

    assert_array_equal(found.coef[0], [0, 0])
    assert worst(found.coef[1:], exact_fit(x, y).coefficients[1:, 1:].T) <= LAST_DIGIT


def test_statistics_of_another_shift_and_scale_give_the_same(either_way: None) -> None:
    x, y = some_rows(17)
    statistics = summarise([TrainingBatch(x, y)])
    shift, scale = statistics.shift + 3, statistics.scale * 1024
    moved = replace(statistics, shift=shift, scale=scale, factor=statistics.rescaled_factor(shift, scale))

    found, expected = refine([TrainingBatch(x, y)], moved, fit_intercept=True), exact_fit(x, y)

    assert worst(found.coef, expected.coefficients[1:].T) <= LAST_DIGIT
    assert worst(found.centre_prediction, expected.predict(shift[np.newaxis, :2])[0]) <= LAST_DIGIT
    assert worst(found.residual_norms, expected.residual_norms) <= LAST_DIGIT


def test_few_rows_of_large_frequency_weights_are_summed_in_fixed_point() -> None:
    # Near collinearity of 1e-10 erases a residual of 1e-2 in double-double.
    random = np.random.default_rng(23)
    first = random.normal(size=8)
    x = np.column_stack([first, first + 1e-10 * random.normal(size=8)])
    y = x @ [[1.0], [1.0]] + 1e-2 * random.normal(size=(8, 1))
    weights = random.integers(1, 10**6, 8).astype(float)
    rows = [TrainingBatch(x, y, weights)]
    statistics = summarise(rows, weight_kind="frequency")

    found = refine(rows, statistics, fit_intercept=True)

    assert statistics.rows * 16 > extended_precision.LITTLE_WORK
    assert_last_digits(found, x, y, weights)
