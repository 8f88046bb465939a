"""Measures of drift agree with numpy and with computations by hand, and chance alone rarely exceeds their limits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.regression import drift
from app.regression.moments import Moments
from app.regression.sufficient_statistics import SufficientStatistics


def statistics_of(x: np.ndarray) -> SufficientStatistics:
    return SufficientStatistics.from_rows(x, x[:, :1] + 1)


def served_of(statistics: SufficientStatistics, x: np.ndarray, **options: Any) -> Moments:
    """Return the moments of served rows, in the coordinates of the training statistics."""
    p = statistics.features
    return Moments.of((x - statistics.shift[:p]) / statistics.scale[:p], **options)


def all_axes(statistics: SufficientStatistics, count: int | None = None) -> drift.Axes:
    columns = statistics.features if count is None else count
    return drift.Axes.of(statistics, np.arange(columns, dtype=np.intp))


def distance_of(statistics: SufficientStatistics, x: np.ndarray, count: int | None = None) -> float:
    return drift.covariance_distance(all_axes(statistics, count), served_of(statistics, x))


def drifted(training: np.ndarray, x: np.ndarray) -> list[bool]:
    """Return whether a mean, a variance and the covariances have drifted."""
    statistics = statistics_of(training)
    axes, served = all_axes(statistics), served_of(statistics, x)
    fourths = axes.fourth_powers((x - statistics.shift[:-1]) / statistics.scale[:-1])
    distance = drift.covariance_distance(axes, served)
    return [
        bool((np.abs(drift.mean_differences(statistics, served)) > drift.mean_limits(statistics, served)).any()),
        bool(drift.variances_moved(statistics, served, fourths[:-1]).any()),
        bool(drift.covariance_limit(statistics, axes, served, fourths[-1]) < distance < np.inf),
    ]


def normal(seed: int, rows: int, columns: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(columns).normal(size=(columns, columns))
    return random.normal(size=(rows, columns)) @ mixing * scale + shift


@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([1e-150, 1e-3, 1.0, 1e6, 1e150]))
@settings(max_examples=50)
def test_mean_differences_are_in_training_deviations_in_any_units(seed: int, columns: int, unit: float) -> None:
    training, served = normal(seed, 40, columns), normal(seed + 1, 30, columns, shift=2.0)
    statistics = statistics_of(training * unit)

    found = drift.mean_differences(statistics, served_of(statistics, served * unit))

    expected = (served.mean(axis=0) - training.mean(axis=0)) / training.std(axis=0, ddof=1)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([1e-3, 1.0, 1e6]))
@settings(max_examples=50)
def test_the_covariance_distance_is_that_of_the_generalised_eigenvalues(seed: int, columns: int, unit: float) -> None:
    training, served = normal(seed, 60, columns), normal(seed + 1, 50, columns, scale=1.7)
    statistics = statistics_of(training * unit)

    found = distance_of(statistics, served * unit)

    one, other = (np.cov(rows.T).reshape(columns, columns) for rows in (training, served))
    ratios = np.linalg.eigvals(np.linalg.solve(one, other)).real
    assert all_axes(statistics).directions == columns
    assert found == pytest.approx(np.sqrt((np.log(ratios) ** 2).sum()), rel=1e-6)


def test_the_covariance_distance_of_the_same_rows_is_zero_and_of_dependent_columns_is_that_of_the_others() -> None:
    rows = normal(1, 200, 3)
    with_sum = np.column_stack([rows, rows.sum(axis=1)])
    served = normal(2, 200, 3, scale=2)
    served_with_sum = np.column_stack([served, served.sum(axis=1)])
    statistics = statistics_of(with_sum)
    same = distance_of(statistics, with_sum)
    changed = distance_of(statistics, served_with_sum)
    alone = distance_of(statistics, served_with_sum, 3)

    assert all_axes(statistics).directions == 3
    assert same == pytest.approx(0, abs=1e-6)
    assert changed == pytest.approx(alone, rel=1e-6)


def test_served_rows_that_do_not_vary_are_infinitely_far() -> None:
    statistics = statistics_of(normal(1, 50, 2))
    served = np.column_stack([np.ones(30), np.arange(30)])

    assert distance_of(statistics, served) == np.inf
    assert distance_of(statistics_of(normal(1, 50, 1)), np.full((30, 1), 0.1)) == np.inf


def test_a_constant_column_has_no_difference_and_is_noticed_when_it_moves() -> None:
    training = np.column_stack([np.full(20, 0.1), np.arange(20.0)])
    statistics = statistics_of(training)
    moved = training + np.array([1e-3, 0])

    assert np.isnan(drift.mean_differences(statistics, served_of(statistics, moved))).tolist() == [True, False]
    assert drift.constants_moved(statistics, served_of(statistics, training)).tolist() == [False, False]
    assert drift.constants_moved(statistics, served_of(statistics, moved)).tolist() == [True, False]


def test_the_stability_index_is_that_of_a_computation_by_hand() -> None:
    training, served = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.3, 0.3])

    # (0.4 - 0.5) ln(0.4 / 0.5) + 0 + (0.3 - 0.2) ln(0.3 / 0.2) = 0.0223144 + 0.0405465
    assert drift.stability_index(training, served) == pytest.approx(0.0628609, abs=1e-7)
    # An empty cell counts as 0.0001: (0.1 - 0.0001) ln(0.1 / 0.0001) + (0.9 - 1) ln 0.9
    assert drift.stability_index(np.array([1.0, 0.0]), np.array([0.9, 0.1])) == pytest.approx(
        0.0999 * np.log(1000) - 0.1 * np.log(0.9)
    )


@pytest.mark.parametrize("rows", [100, 300, 3000])
def test_chance_alone_rarely_exceeds_the_limit_of_the_stability_index(rows: int) -> None:
    random, shares, exceeded = np.random.default_rng(rows), np.array([0.4, 0.3, 0.2, 0.05, 0.05]), 0
    for _ in range(300):
        one, other = (random.multinomial(count, shares) / count for count in (2000, rows))
        exceeded += drift.stability_index(one, other) > drift.stability_limit(len(shares), rows, 2000)

    assert exceeded <= 3


def rows_like(random: np.random.Generator, kind: str, rows: int) -> np.ndarray:
    match kind:
        case "lognormal":
            return np.exp(random.normal(scale=1.5, size=(rows, 2)))
        case "t3":
            return random.standard_t(3, size=(rows, 2))
        case "rare":
            return (random.random((rows, 2)) < 0.01).astype(float)
        case "one rare":
            return (random.random((rows, 1)) < 0.01).astype(float)
        case "mixed":
            return np.hstack([rows_like(random, each, rows) for each in ("normal", "lognormal", "t3")])
    return random.normal(size=(rows, 6))


@pytest.mark.parametrize("kind", ["normal", "lognormal", "t3", "rare", "one rare", "mixed"])
@pytest.mark.parametrize("rows", [100, 500])
def test_chance_alone_rarely_makes_a_verdict_also_in_heavy_tails(kind: str, rows: int) -> None:
    random = np.random.default_rng(rows)

    found = [any(drifted(rows_like(random, kind, 2000), rows_like(random, kind, rows))) for _ in range(60)]

    assert sum(found) <= 1


@pytest.mark.parametrize("rows", [100, 500])
def test_real_shifts_are_found(rows: int) -> None:
    random = np.random.default_rng(rows)
    first = np.eye(10)[0]
    mixing = np.array([[1.0, 0.7], [0.0, np.sqrt(0.51)]])
    for _ in range(20):
        training, served = random.normal(size=(2000, 10)), random.normal(size=(rows, 10))
        assert drifted(training, served + first)[0]
        assert drifted(training, served * (1 + first))[1]
        assert drifted(training, served / (1 + first))[1]
        assert drifted(training, served * 2)[2]
        correlated, flipped = training[:, :2] @ mixing, served[:, :2] @ mixing * [1, -1]
        assert drifted(correlated, flipped) == [False, False, True]
        if rows == 500:
            assert drifted(training, np.where(first, 0.1, served))[1]  # A sensor is stuck.
            heavy = random.standard_t(3, size=(2000, 1))
            assert drifted(heavy, random.standard_t(3, size=(rows, 1)) + np.sqrt(3))[0]


def test_extremes_beyond_any_number_leave_the_limits_finite() -> None:
    statistics = statistics_of(normal(1, 200, 2))
    axes = all_axes(statistics)

    fourths = axes.fourth_powers(np.array([[1e100, 0.0], [1.0, 1.0]]))

    assert np.isfinite(fourths).all()
    assert axes.kurtosis(Moments.of(np.zeros((2, 2)) + axes.origin), 0.0) == 0.0


def test_the_limit_of_the_stability_index_by_chance_is_near_the_quantile_of_chi_squared() -> None:
    from scipy.stats import chi2

    for cells in (2, 5, 40):
        expected = chi2.isf(3.17e-5, cells - 1) * (1 / 20 + 1 / 20)
        assert drift.stability_limit(cells, 20, 20) == pytest.approx(expected, rel=0.1)
