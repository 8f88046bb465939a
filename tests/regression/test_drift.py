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

    found, directions = drift.covariance_distance(
        statistics, served_of(statistics, served * unit), np.arange(columns, dtype=np.intp)
    )

    one, other = (np.cov(rows.T).reshape(columns, columns) for rows in (training, served))
    ratios = np.linalg.eigvals(np.linalg.solve(one, other)).real
    assert directions == columns
    assert found == pytest.approx(np.sqrt((np.log(ratios) ** 2).sum()), rel=1e-6)


def test_the_covariance_distance_of_the_same_rows_is_zero_and_of_dependent_columns_is_that_of_the_others() -> None:
    rows = normal(1, 200, 3)
    with_sum = np.column_stack([rows, rows.sum(axis=1)])
    served = normal(2, 200, 3, scale=2)
    served_with_sum = np.column_stack([served, served.sum(axis=1)])
    statistics = statistics_of(with_sum)
    places = np.arange(4, dtype=np.intp)

    same, directions = drift.covariance_distance(statistics, served_of(statistics, with_sum), places)
    changed, _ = drift.covariance_distance(statistics, served_of(statistics, served_with_sum), places)
    alone, _ = drift.covariance_distance(statistics, served_of(statistics, served_with_sum), places[:3])

    assert directions == 3
    assert same == pytest.approx(0, abs=1e-6)
    assert changed == pytest.approx(alone, rel=1e-6)


def test_served_rows_that_do_not_vary_are_infinitely_far() -> None:
    statistics = statistics_of(normal(1, 50, 2))
    served = np.column_stack([np.ones(30), np.arange(30)])

    distance, _ = drift.covariance_distance(statistics, served_of(statistics, served), np.arange(2, dtype=np.intp))

    assert distance == np.inf


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
def test_chance_alone_rarely_exceeds_the_limits(rows: int) -> None:
    columns, shares, exceeded = 6, np.array([0.4, 0.3, 0.2, 0.05, 0.05]), [0, 0, 0]
    random = np.random.default_rng(rows)
    for _ in range(300):
        training, served = random.normal(size=(2000, columns)), random.normal(size=(rows, columns))
        statistics = statistics_of(training)
        moments = served_of(statistics, served)
        differences = np.abs(drift.mean_differences(statistics, moments)).max()
        exceeded[0] += differences > drift.mean_limit(rows, 2000)
        distance, directions = drift.covariance_distance(statistics, moments, np.arange(columns, dtype=np.intp))
        exceeded[1] += distance > drift.covariance_limit(directions, rows, 2000)
        one, other = (random.multinomial(count, shares) / count for count in (2000, rows))
        exceeded[2] += drift.stability_index(one, other) > drift.stability_limit(len(shares), rows, 2000)

    assert max(exceeded) <= 3


def test_the_limit_of_the_stability_index_by_chance_is_near_the_quantile_of_chi_squared() -> None:
    from scipy.stats import chi2

    for cells in (2, 5, 40):
        expected = chi2.isf(3.17e-5, cells - 1) * (1 / 20 + 1 / 20)
        assert drift.stability_limit(cells, 20, 20) == pytest.approx(expected, rel=0.1)
