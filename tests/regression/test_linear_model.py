from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from operator import mul
from pathlib import Path
from typing import TypeAlias

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from app.regression.errors import PredictionTooLarge
from app.regression.least_squares import fit
from app.regression.linear_model import LinearModel
from app.regression.ordered_sum import MAX_ORDERED
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import EPSILON, SufficientStatistics

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = tuple[Array, Array]

YIELDS = np.loadtxt(Path(__file__).parents[2] / "models" / "crop-yield" / "yields.csv", delimiter=",", skiprows=1)


def names(letter: str, count: int) -> tuple[str, ...]:
    return tuple(f"{letter}{index}" for index in range(count))


def trained(x: Array, y: Array) -> LinearModel:
    statistics = SufficientStatistics.from_rows(x, y)
    found = fit(statistics, Exact())
    return LinearModel(
        names("x", x.shape[1]),
        names("y", y.shape[1]),
        found.coef,
        found.intercept,
        statistics,
        found.residual_norms,
        found.unscaled_errors,
        found.centre_prediction,
    )


def with_weights(weights: Array, intercept: Array, x: Array) -> LinearModel:
    statistics = SufficientStatistics.from_rows(x, np.zeros((len(x), len(weights))))
    return LinearModel(
        names("x", x.shape[1]), names("y", len(weights)), weights, intercept, statistics, np.zeros(len(weights))
    )


@st.composite
def noisy_rows(draw: st.DrawFn) -> Rows:
    p, k = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    n = draw(st.integers(p + 3, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    units = 10.0 ** np.array(draw(st.lists(st.integers(-6, 6), min_size=p, max_size=p)))
    x = (rng.normal(size=(n, p)) + rng.uniform(-3, 3, p)) * units
    y = (x / units) @ rng.normal(size=(p, k)) + rng.normal(size=k) + 0.3 * rng.normal(size=(n, k))
    return x, y


@st.composite
def awkward_features(draw: st.DrawFn) -> Array:
    """Small integers: constant, collinear and repeated columns, fewer rows than columns."""
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 3)))
    return draw(arrays(np.float64, shape, elements=st.integers(-2, 2).map(float)))


def test_a_prediction_is_the_weighted_sum_and_the_intercept() -> None:
    x = np.array([[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]])
    model = with_weights(np.array([[2.0, -1.0], [0.5, 4.0]]), np.array([10.0, -1.0]), x)
    assert_array_equal(model.predict(x), [[10.0, 7.5], [11.0, 20.5], [9.0, 3.0]])


def dot(one: Sequence[Fraction], other: Sequence[Fraction]) -> Fraction:
    return sum(map(mul, one, other), Fraction(0))


def exact_coefficients(x: Array, y: Array) -> list[Fraction]:
    """Intercept and weights of the least-squares solution of these very numbers, y (n,), without rounding."""
    rows = [[Fraction(1), *map(Fraction, row)] for row in x.tolist()]
    targets = list(map(Fraction, y.tolist()))
    size = len(rows[0])
    columns = [*zip(*rows, strict=True)]
    system = [[dot(one, other) for other in (*columns, targets)] for one in columns]
    for i in range(size):
        pivot = next(j for j in range(i, size) if system[j][i])
        system[i], system[pivot] = system[pivot], system[i]
        system[i] = [value / system[i][i] for value in system[i]]
        for j in range(size):
            if j != i:
                system[j] = [a - system[j][i] * b for a, b in zip(system[j], system[i], strict=True)]
    return [Fraction(line[-1]) for line in system]


@settings(max_examples=60)
@given(
    st.floats(0, 2**51),
    st.floats(-6, 3),
    st.integers(2, 24),
    st.integers(-30, 20),
    st.integers(0, 2**32 - 1),
)
@example(offset=0.0, noise=-5.9140625, spread=2, unit=0, seed=53)  # its deviation is near the rounding of its terms
def test_predictions_at_any_offset_are_those_of_the_exact_solution(
    offset: float, noise: float, spread: int, unit: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    n, p = 20, 1 + seed % 2
    deviations = random.integers(-(2**spread), 2**spread, (n, p)) / 2
    deviations += np.arange(n)[:, np.newaxis] * np.arange(1, p + 1) / 2
    x = np.ldexp(offset + deviations, unit)
    signal = deviations @ random.normal(size=p) / 2**spread
    y = (signal + 10**noise * random.normal(size=n))[:, np.newaxis]
    model = trained(x, y)
    exact = exact_coefficients(x, y[:, 0])
    deviation = float(model.residual_deviation[0])
    assert model.centre_prediction is not None
    assert model.shift is not None
    for row, (predicted,) in zip(x, model.predict(x).tolist(), strict=True):
        value = exact[0] + sum(w * Fraction(v) for w, v in zip(exact[1:], row.tolist(), strict=True))
        inputs = sum(abs(float(w)) * np.spacing(abs(v)) for w, v in zip(exact[1:], row, strict=True))
        centred = abs(model.centre_prediction[0]) + np.abs(model.coef[0] * (row - model.shift)).sum()
        assert abs(Fraction(predicted) - value) <= max(
            1e-9 * deviation, inputs, (p + 3) * np.finfo(float).eps * centred
        )


def test_a_far_offset_costs_neither_predictions_nor_intervals_nor_contributions_their_digits() -> None:
    random = np.random.default_rng(3)
    steps = random.integers(-1000, 1000, (40, 2)).astype(np.float64)
    y = (steps @ [3.0, -2.0] + random.normal(size=40))[:, np.newaxis]
    near, far = trained(steps, y), trained(2.0**51 + steps, y)
    asked = steps[:7]
    moved = 2.0**51 + asked
    assert_allclose(far.predict(moved), near.predict(asked), rtol=0, atol=1e-9)
    assert_allclose(far.interval(moved, 0.9), near.interval(asked, 0.9), rtol=0, atol=1e-9)
    assert_allclose(far.interval(moved, 0.9, of_mean=True), near.interval(asked, 0.9, of_mean=True), rtol=0, atol=1e-9)
    assert_allclose(far.contributions(moved), near.contributions(asked), rtol=0, atol=1e-9)
    explained = far.mean_prediction + far.contributions(moved).sum(axis=2)
    assert_allclose(explained, far.predict(moved), rtol=0, atol=1e-9)
    # A file from before has no prediction at the shift: only the plain form is possible, and loses them.
    before = replace(far, centre_prediction=None)
    assert np.abs(before.predict(moved) - near.predict(asked)).max() > 0.01


def test_only_a_model_that_needs_it_is_summed_from_deviations() -> None:
    model = trained(YIELDS[:, :3], YIELDS[:, 3:])
    x = np.array([[75.0, 63.0, 44.0]])
    plain = replace(model, centre_prediction=None)
    assert_array_equal(model.predict(x), plain.predict(x))
    # Without noise the digits alone decide. Far away the plain form loses them.
    ramp = np.arange(10.0)[:, np.newaxis]
    assert_array_equal(trained(1e15 + ramp, 3 * ramp).predict(1e15 + ramp), 3 * ramp)


@settings(max_examples=60)
@given(st.integers(1, 8), st.integers(1, 4), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_row_alone_gets_the_bits_that_it_gets_among_others(p: int, k: int, far: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(700, p)) + far * 1e12
    model = trained(x[:40], random.normal(size=(40, k)))
    whole = model.predict(x)
    for layout in (np.ascontiguousarray, np.asfortranarray):
        for rows in (1, 2, 5, 17, 60, 400):
            first = int(random.integers(0, len(x) - rows))
            block = slice(first, first + rows)
            assert_array_equal(model.predict(layout(x[block])), whole[block])
    assert_array_equal(model.predict_few(x[:9].tolist()), whole[:9])


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("p", [MAX_ORDERED + 1, 300])
def test_a_wide_model_keeps_its_stated_bound_in_every_layout(p: int, far: bool) -> None:
    random = np.random.default_rng(p)
    x = random.normal(size=(p + 40, p)) + far * 1e12
    model = trained(x, random.normal(size=(p + 40, 1)))
    asked = x[:30]
    centre = model.statistics.shift[:p] if far else np.zeros(p)
    start = model.centre_prediction if far else model.intercept
    assert start is not None
    for y in (
        model.predict(asked),
        model.predict(np.asfortranarray(asked)),
        np.vstack([model.predict(row[np.newaxis]) for row in asked]),
    ):
        for row, (predicted,) in zip(asked, y.tolist(), strict=True):
            with mpmath.workprec(300):
                terms = [
                    mpmath.mpf(w) * (mpmath.mpf(v) - mpmath.mpf(c))
                    for w, v, c in zip(model.coef[0].tolist(), row.tolist(), centre.tolist(), strict=True)
                ]
                size = abs(mpmath.mpf(float(start[0]))) + sum(map(abs, terms))
                error = abs(predicted - float(start[0]) - sum(terms))
                assert error <= (p + 3) * EPSILON / 2 * size


def test_the_exact_model_of_the_notebook_predicts_its_reference_point() -> None:
    model = trained(YIELDS[:, :3], YIELDS[:, 3:])
    assert_allclose(model.predict(np.array([[75.0, 63.0, 44.0]])), [[53.80, 66.81]], atol=5e-3)


@pytest.mark.parametrize("value", [1e308, -1e308])
def test_a_prediction_beyond_64_bits_is_refused_with_its_instance(value: float) -> None:
    model = with_weights(np.array([[1.0, 1.0], [10.0, -10.0]]), np.zeros(2), np.eye(2))
    with pytest.raises(PredictionTooLarge) as refusal:
        model.predict(np.array([[1.0, 1.0], [value, 0.0], [value, value]]))
    assert refusal.value.row == 1
    assert "range of 64-bit numbers" in refusal.value.message


@settings(max_examples=60)
@given(noisy_rows())
def test_the_mean_prediction_is_the_mean_of_the_predictions(rows: Rows) -> None:
    x, y = rows
    model = trained(x, y)
    assert_allclose(model.mean_prediction, model.predict(x).mean(axis=0), rtol=1e-9, atol=1e-9)
    # With an intercept the residuals of the optimum sum to zero.
    assert_allclose(model.mean_prediction, y.mean(axis=0), rtol=1e-9, atol=1e-9)


@settings(max_examples=60)
@given(noisy_rows(), st.floats(-10, 10))
def test_contributions_sum_to_the_prediction_less_the_mean_prediction(rows: Rows, stretch: float) -> None:
    x, y = rows
    model = trained(x, y)
    asked = x * stretch
    contributions = model.contributions(asked)
    assert contributions.shape == (len(x), y.shape[1], x.shape[1])
    assert_allclose(contributions.sum(axis=2), model.predict(asked) - model.mean_prediction, rtol=1e-10, atol=1e-10)


def test_a_contribution_is_the_weight_times_the_distance_from_the_mean() -> None:
    x = np.array([[1.0, 10.0], [3.0, 30.0]])
    model = with_weights(np.array([[2.0, -1.0], [0.5, 4.0]]), np.array([7.0, 8.0]), x)
    assert_allclose(model.contributions(np.array([[4.0, 10.0]])), [[[4.0, 10.0], [1.0, -40.0]]])


@settings(max_examples=60)
@given(noisy_rows())
def test_leverage_of_the_training_rows_is_the_diagonal_of_the_hat_matrix(rows: Rows) -> None:
    x, y = rows
    q, _ = np.linalg.qr(np.column_stack([np.ones(len(x)), x / np.abs(x).max(axis=0)]))
    leverage = trained(x, y).leverage(x)
    assert_allclose(leverage, np.diag(q @ q.T), rtol=1e-7)
    assert leverage.sum() == pytest.approx(x.shape[1] + 1)


@settings(max_examples=60)
@given(noisy_rows(), st.integers(0, 2**32 - 1))
def test_leverage_of_any_row_is_the_textbooks(rows: Rows, seed: int) -> None:
    x, y = rows
    units = x.std(axis=0)
    asked = x.mean(axis=0) + 10 * np.random.default_rng(seed).normal(size=(4, x.shape[1])) * units
    z, centred = (asked - x.mean(axis=0)) / units, (x - x.mean(axis=0)) / units
    expected = 1 / len(x) + np.diag(z @ np.linalg.inv(centred.T @ centred) @ z.T)
    assert_allclose(trained(x, y).leverage(asked), expected, rtol=1e-7)


@settings(max_examples=200)
@given(awkward_features(), st.sampled_from([1.0, 0.1, 1 / 3, 1e6, 1e-6]))
def test_leverage_of_collinear_training_rows_is_the_diagonal_of_the_hat_matrix(x: Array, unit: float) -> None:
    # The hat matrix does not know units; in whole numbers its rank is beyond doubt.
    design = np.column_stack([np.ones(len(x)), x])
    hat = design @ np.linalg.pinv(design, rcond=1e-9)
    assert_allclose(trained(x * unit, x * unit).leverage(x * unit), np.diag(hat), rtol=1e-7)


@pytest.mark.parametrize("offset", [0.0, 0.1, 100.0])
def test_the_mean_of_collinear_training_rows_has_the_lowest_leverage(offset: float) -> None:
    first = offset + 0.1 * np.array([-5.0, 3.0, 4.0, 3.0, 3.0, -2.0, 1.0])
    x = np.column_stack([first, 3 * first])
    leverage = trained(x, x).leverage(x.mean(axis=0, keepdims=True))
    assert leverage.tolist() == pytest.approx([1 / 7], rel=1e-6)


@settings(max_examples=60)
@given(noisy_rows(), st.floats(0.5, 0.999))
def test_prediction_intervals_follow_the_textbook(rows: Rows, level: float) -> None:
    x, y = rows
    model = trained(x, y)
    design = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)])
    freedom = len(x) - design.shape[1]
    coefficients, *_ = np.linalg.lstsq(design, y)
    variance = ((y - design @ coefficients) ** 2).sum(axis=0) / freedom
    leverage = np.diag(design @ np.linalg.inv(design.T @ design) @ design.T)
    reach = np.sqrt(freedom * (1 / betaincinv(freedom / 2, 0.5, 1 - level) - 1))
    half = reach * np.sqrt(np.outer(1 + leverage, variance))
    found = model.interval(x, level)
    assert found.shape == (len(x), y.shape[1], 2)
    assert_allclose(found[..., 0], design @ coefficients - half, rtol=1e-6, atol=1e-6)
    assert_allclose(found[..., 1], design @ coefficients + half, rtol=1e-6, atol=1e-6)


def test_an_interval_is_finite_for_every_level_and_is_refused_where_the_row_is_too_far_away() -> None:
    model = trained(YIELDS[:, :3], YIELDS[:, 3:])
    rows = np.array([[75.0, 63.0, 44.0], [1e200, 1.0, 1.0]])
    nearly_certain = model.interval(rows[:1], np.nextafter(1.0, 0.0))
    assert np.isfinite(nearly_certain).all()
    assert (np.ptp(nearly_certain, axis=-1) > np.ptp(model.interval(rows[:1], 0.999), axis=-1)).all()
    with pytest.raises(PredictionTooLarge) as refused:
        model.interval(rows, 0.9)
    assert refused.value.row == 1


def test_only_rows_outside_the_span_of_collinear_rows_have_no_interval() -> None:
    first = np.arange(10.0)
    x = np.column_stack([first, 2 * first])
    y = (first + np.cos(first))[:, np.newaxis]
    both, single = trained(x, y), trained(x[:, :1], y)
    for of_mean in (False, True):
        found = both.interval(np.array([[3.0, 6.0], [3.0, 7.0]]), 0.9, of_mean=of_mean)
        assert_allclose(found[0], single.interval(np.array([[3.0]]), 0.9, of_mean=of_mean)[0], rtol=1e-10)
        assert np.isnan(found[1]).all()
    with pytest.raises(PredictionTooLarge) as refused:
        both.interval(np.array([[3.0, 7.0], [1e200, 2e200]]), 0.9)
    assert refused.value.row == 1


def test_an_observation_of_its_own_weight_has_its_own_interval() -> None:
    x, y = YIELDS[:, :3], YIELDS[:, 3:]
    model = trained(x, y)
    asked = x[:3]
    weights = np.array([1.0, 4.0, 0.25])
    halves = np.diff(model.interval(asked, 0.9, observation_weights=weights))[..., 0] / 2
    leverage = model.leverage(asked)
    quantile = stdtrit(len(x) - 4, 0.95)
    expected = quantile * np.sqrt(leverage + 1 / weights)[:, np.newaxis] * model.residual_deviation
    assert_allclose(halves, expected, rtol=1e-12)
    assert_array_equal(model.interval(asked, 0.9)[0], model.interval(asked, 0.9, observation_weights=weights)[0])
    with pytest.raises(PredictionTooLarge):
        model.interval(asked, 0.9, observation_weights=np.array([1.0, 5e-324, 1.0]))


def test_the_unit_of_all_weights_does_not_change_the_interval_of_an_observation() -> None:
    model = trained(YIELDS[:, :3], YIELDS[:, 3:])
    statistics = model.statistics
    unit = 1 / 200
    scaled = replace(
        model,
        known_statistics=replace(statistics, factor=statistics.factor * np.sqrt(unit)),
        residual_norms=model.residual_norms * np.sqrt(unit),
    )
    asked, weights = YIELDS[:2, :3], np.array([2.0, 0.5])
    assert_allclose(scaled.interval(asked, 0.9), model.interval(asked, 0.9), rtol=1e-12)
    assert_allclose(
        scaled.interval(asked, 0.9, observation_weights=weights * unit),
        model.interval(asked, 0.9, observation_weights=weights),
        rtol=1e-12,
    )


def test_rows_outside_a_training_range_are_flagged_feature_by_feature() -> None:
    model = trained(YIELDS[:, :3], YIELDS[:, 3:])
    asked = np.array([[68.0, 43.0, 36.0], [103.0, 135.0, 71.0], [67.9, 88.0, 36.0], [103.1, 135.1, 71.0]])
    found = model.extrapolation(asked)
    assert_array_equal(
        found.outside, [[False, False, False], [False, False, False], [True, False, False], [True, True, False]]
    )
    assert found.flag[2:].all()


def test_a_row_inside_every_range_is_flagged_where_its_leverage_exceeds_three_times_the_mean() -> None:
    first = np.arange(20.0)
    x = np.column_stack([first, first + np.where(first % 2 == 0, 0.5, -0.5)])
    model = trained(x, x)
    middle, corner = [9.5, 9.5], [19.0, 0.5]
    found = model.extrapolation(np.array([middle, corner]))
    limit = 3 * 3 / 20
    assert not found.outside.any()
    assert found.leverage[0] < limit < found.leverage[1]
    assert found.flag.tolist() == [False, True]


def test_the_flag_goes_up_just_beyond_the_limit_of_leverage() -> None:
    # For x = -1, 1 and zeros between: leverage 1/n + x^2 / 2, and the limit 6/n is met at x^2 = 10/n.
    n = 20
    x = np.concatenate([[-1.0, 1.0], np.zeros(n - 2)])[:, np.newaxis]
    edge = np.sqrt(10 / n)
    found = trained(x, x).extrapolation(np.array([[edge * 0.999], [edge * 1.001]]))
    assert found.flag.tolist() == [False, True]


def test_a_row_off_the_line_of_collinear_training_rows_has_infinite_leverage() -> None:
    first = np.arange(10.0)
    x = np.column_stack([first, 2 * first])
    found = trained(x, x).extrapolation(np.array([[3.0, 6.0], [3.0, 7.0]]))
    assert found.leverage[0] < 0.3
    assert found.leverage[1] == np.inf
    assert found.flag.tolist() == [False, True]
    assert not found.outside.any()


def test_rows_with_many_terms_come_to_the_same_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 2))
    terms = ("x0", "x1", "x0^2", "x0:x1")
    columns = np.column_stack([x, x[:, 0] ** 2, x[:, 0] * x[:, 1]])
    model = replace(trained(columns, random.normal(size=(50, 3))), features=names("x", 2), terms=terms)
    whole = model.predict(x), model.leverage(x)
    outside = model.extrapolation(3 * x).outside
    monkeypatch.setattr("app.regression.linear_model.MAX_CHUNK_VALUES", 12)  # three rows
    parts = model.predict(x), model.leverage(x)
    assert_array_equal(model.extrapolation(3 * x).outside, outside)
    for one, other in zip(whole, parts, strict=True):
        assert_allclose(one, other, rtol=1e-12)
    assert_allclose(whole[0], columns @ model.coef.T + model.intercept)
    beyond = x.copy()
    beyond[40] = 1e300
    with pytest.raises(PredictionTooLarge) as refused:
        model.predict(beyond)
    assert refused.value.row == 40
    assert model.predict(x[:0]).shape == (0, 3)
