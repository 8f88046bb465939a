from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from regression.exact import ExactFit
from scipy.special import betainc, betaincinv

from app.regression.hypothesis_tests import infer
from app.regression.least_squares import (
    MAX_EXCESS_RSS_RATIO,
    PERFECT,
    Fit,
    fit,
    is_essentially_perfect,
    is_optimal,
    why_no_inference,
)
from app.regression.linear_model import LinearModel
from app.regression.metrics import training_metrics
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = tuple[Array, Array]

YIELDS = np.loadtxt(Path(__file__).parents[2] / "models" / "crop-yield" / "yields.csv", delimiter=",", skiprows=1)


@st.composite
def noisy_rows(draw: st.DrawFn) -> Rows:
    """Rows in general position with features far from zero and in wildly different units."""
    p, k = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    n = draw(st.integers(p + 3, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    units = 10.0 ** np.array(draw(st.lists(st.integers(-6, 6), min_size=p, max_size=p)))
    x = (rng.normal(size=(n, p)) + rng.uniform(-3, 3, p)) * units
    y = (x / units) @ rng.normal(size=(p, k)) + rng.normal(size=k) + 0.3 * rng.normal(size=(n, k))
    return x, y


@st.composite
def awkward_rows(draw: st.DrawFn) -> Rows:
    """Small integers: constant, collinear and repeated columns, fewer rows than columns."""
    n, p, k = draw(st.integers(1, 7)), draw(st.integers(1, 4)), draw(st.integers(1, 2))
    values = st.integers(-2, 2).map(float)
    return draw(arrays(np.float64, (n, p), elements=values)), draw(arrays(np.float64, (n, k), elements=values))


def statistics_of(rows: Rows) -> SufficientStatistics:
    return SufficientStatistics.from_rows(*rows)


def model_of(statistics: SufficientStatistics, found: Fit) -> LinearModel:
    names = [f"c{index}" for index in range(len(statistics.shift))]
    features, targets = tuple(names[: statistics.features]), tuple(names[statistics.features :])
    return LinearModel(
        features,
        targets,
        found.coef,
        found.intercept,
        statistics,
        found.residual_norms,
        found.unscaled_errors,
        has_intercept=found.design.intercept,
    )


def units_of(x: Array, *, centred: bool) -> Array:
    """Root mean square of each column, of its deviations where it is centred."""
    columns = x - x.mean(axis=0) if centred else x
    return np.asarray(np.sqrt((columns**2).mean(axis=0)))


@settings(max_examples=60)
@given(noisy_rows())
def test_the_fit_is_the_least_squares_solution_of_the_rows(rows: Rows) -> None:
    x, y = rows
    units = units_of(x, centred=True)
    expected, *_ = np.linalg.lstsq(np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / units]), y)
    found = fit(statistics_of(rows), Exact())
    assert_allclose(found.coef * units, expected[1:].T, rtol=1e-8, atol=1e-9)
    assert_allclose(found.coef @ x.mean(axis=0) + found.intercept, expected[0], rtol=1e-8, atol=1e-9)


@settings(max_examples=60)
@given(noisy_rows())
def test_without_an_intercept_the_fit_goes_through_the_origin(rows: Rows) -> None:
    x, y = rows
    units = units_of(x, centred=False)
    expected, *_ = np.linalg.lstsq(x / units, y)
    found = fit(statistics_of(rows), Exact(fit_intercept=False))
    assert_array_equal(found.intercept, np.zeros(y.shape[1]))
    assert_allclose(found.coef * units, expected.T, rtol=1e-7, atol=1e-8)


@settings(max_examples=60)
@given(noisy_rows(), st.floats(1e-3, 1e3))
def test_ridge_is_its_closed_form_on_standardised_columns(rows: Rows, l2: float) -> None:
    x, y = rows
    deviation = units_of(x, centred=True)
    z = (x - x.mean(axis=0)) / deviation
    expected = np.linalg.solve(z.T @ z + l2 * np.eye(x.shape[1]), z.T @ (y - y.mean(axis=0)))
    found = fit(statistics_of(rows), Exact(l2=l2))
    assert_allclose(found.coef * deviation, expected.T, rtol=1e-8, atol=1e-10)
    assert_allclose(found.intercept + found.coef @ x.mean(axis=0), y.mean(axis=0), rtol=1e-8, atol=1e-8)


@settings(max_examples=40)
@given(noisy_rows(), st.floats(1e-3, 1e3))
def test_ridge_without_an_intercept_is_its_closed_form(rows: Rows, l2: float) -> None:
    x, y = rows
    units = units_of(x, centred=False)
    z = x / units
    expected = np.linalg.solve(z.T @ z + l2 * np.eye(x.shape[1]), z.T @ y)
    found = fit(statistics_of(rows), Exact(l2=l2, fit_intercept=False))
    assert_allclose(found.coef * units, expected.T, rtol=1e-8, atol=1e-10)
    assert_array_equal(found.intercept, np.zeros(y.shape[1]))


@settings(max_examples=80)
@given(awkward_rows())
def test_collinear_or_too_few_rows_give_the_minimum_norm_solution_and_its_rank(rows: Rows) -> None:
    x, y = rows
    deviations = x - x.mean(axis=0)
    norms = np.sqrt((deviations**2).sum(axis=0))
    norms[norms < 1e-9] = np.inf
    unit = deviations / norms
    expected = np.linalg.pinv(unit, rcond=1e-9) @ (y - y.mean(axis=0))
    found = fit(statistics_of(rows), Exact())
    assert_allclose(found.coef.T, expected / norms[:, np.newaxis], rtol=1e-8, atol=1e-9)
    assert_allclose(found.coef @ x.mean(axis=0) + found.intercept, y.mean(axis=0), rtol=1e-8, atol=1e-9)
    singular = np.linalg.svd(unit, compute_uv=False)
    singular = singular[singular > 1e-9]
    assert found.design.rank == len(singular) + 1
    assert found.design.full_rank == (len(singular) == x.shape[1])
    condition = singular[0] / singular[-1] if len(singular) else 1.0
    assert_allclose(found.design.condition_number, condition, rtol=1e-8)


@settings(max_examples=80)
@given(awkward_rows())
def test_collinear_rows_without_an_intercept_give_the_minimum_norm_solution(rows: Rows) -> None:
    x, y = rows
    norms = np.sqrt((x**2).sum(axis=0))
    norms[norms == 0] = np.inf
    expected = np.linalg.pinv(x / norms, rcond=1e-9) @ y
    found = fit(statistics_of(rows), Exact(fit_intercept=False))
    assert_allclose(found.coef.T, expected / norms[:, np.newaxis], rtol=1e-8, atol=1e-9)
    assert found.design.rank == np.linalg.matrix_rank(x)


def test_a_constant_feature_gets_no_weight_however_its_mean_is_rounded() -> None:
    x = np.column_stack([np.full(7, 0.1), np.arange(7.0)])
    found = fit(SufficientStatistics.from_rows(x, 2 * np.arange(7.0)[:, np.newaxis] + 5), Exact())
    assert found.coef[0, 0] == 0
    assert_allclose(found.coef[0, 1], 2)
    assert_allclose(found.intercept, [5])
    assert found.design.rank == 2


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_the_unit_of_a_feature_changes_its_weight_and_nothing_else(unit: float) -> None:
    x, y = YIELDS[:, :3], YIELDS[:, 3:]
    units = np.array([1.0, unit, 1.0])
    before, after = fit(statistics_of((x, y)), Exact()), fit(statistics_of((x * units, y)), Exact())
    assert_allclose(after.coef * units, before.coef, rtol=1e-9)
    assert_allclose(after.intercept, before.intercept, rtol=1e-9)
    assert after.design.rank == before.design.rank == 4
    assert_allclose(after.design.condition_number, before.design.condition_number, rtol=1e-9)


def test_the_exact_optimum_of_the_notebook_keeps_its_reference_points() -> None:
    x, y = YIELDS[:, :3], YIELDS[:, 3:]
    statistics = statistics_of((x, y))
    found = fit(statistics, Exact())
    residuals = y - x @ found.coef.T - found.intercept
    assert float((residuals**2).mean()) == pytest.approx(0.9094, abs=5e-5)
    prediction = found.coef @ [75, 63, 44] + found.intercept
    assert prediction.tolist() == pytest.approx([53.80, 66.81], abs=5e-3)


def test_wamplers_quintic_polynomial_is_recovered_although_its_normal_equations_are_hopeless() -> None:
    x = np.arange(21.0)[:, np.newaxis] ** np.arange(1, 6)
    y = 1 + x.sum(axis=1, keepdims=True)
    found = fit(statistics_of((x, y)), Exact())
    assert_allclose([*found.intercept, *found.coef[0]], np.ones(6), rtol=1e-7)


@settings(max_examples=60)
@given(noisy_rows(), st.floats(0.5, 0.999))
def test_errors_t_p_and_confidence_intervals_follow_the_textbook(rows: Rows, level: float) -> None:
    x, y = rows
    # Written with beta functions and the inverse of X'X, neither of which the code uses.
    units = units_of(x, centred=True)
    design = np.column_stack([np.ones(len(x)), x / units])
    freedom = len(x) - design.shape[1]
    inverse = np.linalg.inv(design.T @ design)
    coefficients = (inverse @ design.T @ y).T
    variances = ((y - design @ coefficients.T) ** 2).sum(axis=0) / freedom
    errors = np.sqrt(np.outer(variances, np.diag(inverse)))
    t = coefficients / errors
    p = betainc(freedom / 2, 0.5, freedom / (freedom + t**2))
    reach = np.sqrt(freedom * (1 / betaincinv(freedom / 2, 0.5, 1 - level) - 1))

    statistics = statistics_of(rows)
    optimum = fit(statistics, Exact())
    found = infer(model_of(statistics, optimum), level=level)
    per_unit = np.concatenate([[1.0], units])
    assert found.degrees_of_freedom == freedom
    assert_allclose(found.residual_deviation, np.sqrt(variances), rtol=1e-6)
    assert_allclose(found.standard_errors * per_unit, errors, rtol=1e-6)
    assert_allclose(found.t_values, t, rtol=1e-6, atol=1e-6)
    assert_allclose(found.p_values, p, rtol=1e-5, atol=1e-9)
    assert_allclose(found.lower * per_unit, coefficients - reach * errors, rtol=1e-6, atol=1e-6)
    assert_allclose(found.upper * per_unit, coefficients + reach * errors, rtol=1e-6, atol=1e-6)


def test_a_perfect_fit_has_coefficients_beyond_doubt() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    statistics = statistics_of((x, 2 * x + 1))
    found = fit(statistics, Exact())
    inference = infer(model_of(statistics, found))
    assert_allclose(inference.standard_errors, 0, atol=1e-12)
    assert_allclose(inference.p_values, 0, atol=1e-12)


def test_a_target_of_zeros_gives_no_warning_and_no_number_for_t() -> None:
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    statistics = statistics_of((x, np.zeros((4, 1))))
    inference = infer(model_of(statistics, fit(statistics, Exact())))
    assert np.isnan(inference.t_values).all()
    assert_array_equal(inference.standard_errors, np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("rows", "solver", "reason"),
    [
        (15, Exact(l2=1.0), "ridge"),
        (15, Exact(fit_intercept=False), None),
        (3, Exact(), "3 rows leave nothing"),
        (4, Exact(), "4 rows leave nothing"),
        (5, Exact(), None),
        (15, Exact(), None),
    ],
)
def test_inference_is_withheld_with_the_reason_if_it_is_not_valid(rows: int, solver: Exact, reason: str | None) -> None:
    statistics = statistics_of((YIELDS[:rows, :3], YIELDS[:rows, 3:]))
    found = why_no_inference(statistics, fit(statistics, solver), solver)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("l2", [1e-30, 1e-25, 1e-20, 1e-15])
def test_a_small_ridge_penalty_on_two_equal_columns_gives_its_limit(l2: float, *, intercept: bool) -> None:
    random = np.random.default_rng(16)
    column = random.normal(size=50)
    x, y = np.column_stack([column, column]), 2 * column + 0.3 * random.normal(size=50)
    exact = ExactFit.of(x, y[:, None], [Fraction(1)] * 50, shift=np.zeros(3), intercept=intercept, penalty=l2 / 50)
    best = ExactFit.of(x, y[:, None], [Fraction(1)] * 50, shift=np.zeros(3), intercept=intercept)

    statistics = statistics_of((x, y[:, np.newaxis]))
    found = fit(statistics, Exact(l2=l2, fit_intercept=intercept))
    r2 = training_metrics(statistics, found.residual_norms, rank=found.design.rank, fit_intercept=intercept).r2

    assert_allclose(found.coef, exact.slopes.T.astype(float), rtol=1e-13)
    assert found.coef[0, 0] == pytest.approx(found.coef[0, 1], rel=1e-14)
    assert r2 <= float(1 - best.rss[0] / best.tss[0]) + 1e-14


def test_less_than_one_degree_of_freedom_that_decay_leaves_gives_no_inference() -> None:
    statistics = statistics_of((YIELDS[:, :3], YIELDS[:, 3:]))
    assert why_no_inference(statistics.discounted_by(5 / 15), fit(statistics, Exact()), Exact()) is None

    reason = why_no_inference(statistics.discounted_by(4.9 / 15), fit(statistics, Exact()), Exact())

    assert reason == (
        "Decay has left 4.9 rows. After 4 coefficients, less than one row remains to estimate their error from."
    )


def test_identifiable_coefficients_of_dependent_columns_have_the_errors_of_the_others_alone() -> None:
    random = np.random.default_rng(2)
    x = random.normal(size=(30, 3)) * [1, 10, 0.1]
    x[:, 1] += 5 * x[:, 0]
    y = random.normal(size=(30, 1))
    dependent = np.column_stack([x, 3 * x[:, 2], np.full(30, 7.0)])

    found = fit(SufficientStatistics.from_rows(dependent, y), Exact())
    expected = fit(SufficientStatistics.from_rows(x, y), Exact())

    assert_allclose(found.unscaled_errors[1:3], expected.unscaled_errors[1:3], rtol=1e-9)
    assert_array_equal(np.isnan(found.unscaled_errors[3:]), [True, True, True])
    assert found.design.norms[4] == 0
    assert not found.design.full_rank


@pytest.mark.parametrize("l2", [1e-3, 1.0, 2.0, 1e3])
def test_slightly_different_penalties_give_slightly_different_coefficients(l2: float) -> None:
    statistics = statistics_of((YIELDS[:, :3], YIELDS[:, 3:]))

    found, other = fit(statistics, Exact(l2=l2)).coef, fit(statistics, Exact(l2=l2 * (1 + 1e-9))).coef

    assert_allclose(found, other, rtol=1e-8)
    assert not np.allclose(found, fit(statistics, Exact()).coef, rtol=1e-6, atol=0)


def test_without_an_intercept_its_error_is_zero() -> None:
    found = fit(statistics_of((YIELDS[:, :3], YIELDS[:, 3:])), Exact(fit_intercept=False))

    assert found.unscaled_errors[0] == 0


def test_one_perfect_target_withholds_the_inference_of_all() -> None:
    x, y = YIELDS[:, :3], np.column_stack([YIELDS[:, 3], 1 + YIELDS[:, :3].sum(axis=1)])
    statistics = statistics_of((x, y))
    found = fit(statistics, Exact())

    assert is_essentially_perfect(statistics, found).tolist() == [False, True]
    assert "essentially perfect" in str(why_no_inference(statistics, found, Exact()))


@pytest.mark.parametrize("rows", [100, 10_000])
@pytest.mark.parametrize(("level", "perfect"), [(0.8, True), (1.25, False)])
@pytest.mark.parametrize("slopes", [(3.0, 0.5), (-3.0, -0.5), (0.0, 0.0)])
def test_a_fit_is_perfect_up_to_rounding_errors_of_its_terms(
    rows: int, level: float, perfect: bool, slopes: tuple[float, float]
) -> None:
    random = np.random.default_rng(3)
    x = random.normal(size=(rows, 2)) * [1, 100]
    y = (x @ slopes + 10 + random.normal(size=rows))[:, np.newaxis]
    statistics = summarise([TrainingBatch(x, y, random.uniform(1, 20, rows))])
    found = fit(statistics, Exact())
    root_weight, shift = np.sqrt(statistics.total_weight), statistics.shift[:2]
    sizes = np.hypot(statistics.mean[:2] - shift, np.sqrt(np.diag(found_variances(statistics))))
    terms = np.hypot(statistics.mean[2], statistics.total_norms()[0] / root_weight) + np.abs(found.coef[0]) @ sizes

    norms = level * PERFECT * terms * root_weight * np.ones(1)

    assert is_essentially_perfect(statistics, found, norms).tolist() == [perfect]


def found_variances(statistics: SufficientStatistics) -> Array:
    """Mean squares and products of the deviations of the features from their means."""
    columns = statistics.centred_factor[:, : statistics.features]
    return np.asarray(columns.T @ columns / statistics.total_weight)


def test_a_descent_is_optimal_if_all_its_targets_are() -> None:
    statistics = statistics_of((YIELDS[:, :3], YIELDS[:, 3:]))
    optimum = fit(statistics, Exact())
    near, far = 1 + 1e-6, 1 + 1e-2

    assert is_optimal(optimum.residual_norms * [near, near], statistics, optimum)
    assert not is_optimal(optimum.residual_norms * [near, far], statistics, optimum)
    assert not is_optimal(optimum.residual_norms * [far, near], statistics, optimum)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("rows", [10, 1000])
@pytest.mark.parametrize(("share", "optimal"), [(0.9, True), (1.1, False)])
def test_a_descent_may_exceed_the_optimum_by_a_share_of_the_residual_variance(
    scale: float, rows: int, share: float, optimal: bool
) -> None:
    random = np.random.default_rng(4)
    x = random.normal(size=(rows, 2))
    statistics = statistics_of((x, scale * random.normal(size=(rows, 1))))
    optimum = fit(statistics, Exact())
    variance = optimum.residual_norms**2 / (rows - 3)

    norms = np.sqrt(optimum.residual_norms**2 + share * MAX_EXCESS_RSS_RATIO * variance)

    assert is_optimal(norms, statistics, optimum) is optimal
