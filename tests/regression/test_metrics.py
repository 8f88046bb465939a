from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from app.regression.least_squares import fit
from app.regression.metrics import Metrics, training_metrics
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics

Array: TypeAlias = NDArray[np.float64]

YIELDS = np.loadtxt(Path(__file__).parents[2] / "models" / "crop-yield" / "yields.csv", delimiter=",", skiprows=1)


def metrics_of(
    statistics: SufficientStatistics, weights: NDArray[np.float64], intercept: NDArray[np.float64]
) -> Metrics:
    rank = fit(statistics, Exact()).design.rank
    return training_metrics(statistics, statistics.residual_norms(weights, intercept), rank=rank)


@settings(max_examples=60)
@given(st.integers(2, 20), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_metrics_of_any_weights_are_those_of_the_rows(n: int, p: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(5, 2, (n, p)), rng.normal(-3, 10, (n, k))
    weights, intercept = rng.normal(size=(k, p)), rng.normal(size=k)
    residuals = y - x @ weights.T - intercept
    found = metrics_of(SufficientStatistics.from_rows(x, y), weights, intercept)
    assert found.mse == pytest.approx(float((residuals**2).mean()), rel=1e-9)
    assert_allclose(found.rmse, np.sqrt((residuals**2).mean(axis=0)), rtol=1e-9)
    assert_allclose(found.r2, 1 - (residuals**2).sum(axis=0) / (n * y.var(axis=0)), rtol=1e-9)


def test_the_optimum_of_the_notebook_has_the_reference_error() -> None:
    statistics = SufficientStatistics.from_rows(YIELDS[:, :3], YIELDS[:, 3:])
    found = fit(statistics, Exact())
    assert metrics_of(statistics, found.coef, found.intercept).mse == pytest.approx(0.9094, abs=5e-5)


def test_a_model_that_always_predicts_the_mean_explains_nothing() -> None:
    statistics = SufficientStatistics.from_rows(YIELDS[:, :3], YIELDS[:, 3:])
    found = metrics_of(statistics, np.zeros((2, 3)), YIELDS[:, 3:].mean(axis=0))
    assert_allclose(found.r2, [0, 0], atol=1e-12)
    assert_allclose(found.rmse, YIELDS[:, 3:].std(axis=0))


def test_a_perfect_model_explains_everything() -> None:
    x = np.arange(6.0)[:, np.newaxis]
    found = metrics_of(SufficientStatistics.from_rows(x, 2 * x - 1), np.array([[2.0]]), np.array([-1.0]))
    assert_allclose(found.r2, [1])
    assert_allclose([found.mse, found.rmse[0]], [0, 0], atol=1e-12)


def test_a_constant_target_has_no_r2() -> None:
    x = np.arange(4.0)[:, np.newaxis]
    y = np.column_stack([np.full(4, 2.0), np.arange(4.0)])
    found = metrics_of(SufficientStatistics.from_rows(x, y), np.array([[1.0], [1.0]]), np.zeros(2))
    assert np.isnan(found.r2[0])
    assert found.r2[1] == pytest.approx(1)


def test_a_target_that_is_always_one_tenth_does_not_vary_either() -> None:
    # The mean of seven tenths is not exactly a tenth. The remainder is rounding, not variation.
    x = np.arange(7.0)[:, np.newaxis]
    found = metrics_of(SufficientStatistics.from_rows(x, np.full((7, 1), 0.1)), np.array([[1.0]]), np.zeros(1))
    assert np.isnan(found.r2[0])


def test_adjusted_r2_pays_for_every_feature() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    y = x[:, :1] + np.random.default_rng(1).normal(size=(20, 1))
    statistics = SufficientStatistics.from_rows(x, y)
    found = training_metrics(statistics, fit(statistics, Exact()).residual_norms, rank=4)
    assert found.adjusted_r2[0] == pytest.approx(1 - (1 - found.r2[0]) * 19 / 16)


def test_adjusted_r2_pays_for_the_rank_and_not_for_columns_that_do_not_vary() -> None:
    # 12 rows of which one column explains 81.227 %: 1 - 0.18773 * 11 / 10, and not 1 - 0.18773 * 11 / 2.
    x = np.arange(12.0) - 5.5
    noise = np.random.default_rng(0).normal(size=12)
    noise -= noise.mean() + x * (noise @ x) / (x @ x)
    explained = np.sqrt(1 - 0.18773) * x / np.linalg.norm(x)
    y = (explained + np.sqrt(0.18773) * noise / np.linalg.norm(noise))[:, np.newaxis]
    statistics = SufficientStatistics.from_rows(np.column_stack([x, np.full((12, 8), 0.1)]), y)
    fitted = fit(statistics, Exact())
    found = training_metrics(statistics, fitted.residual_norms, rank=fitted.design.rank)
    assert found.adjusted_r2[0] == pytest.approx(0.7935, abs=5e-5)


@pytest.mark.parametrize("unit", [1e-200, 1e-155, 1e155, 1e200])
def test_a_mean_square_beyond_64_bits_is_unknown_and_its_root_is_known(unit: float) -> None:
    x = np.arange(6.0)[:, np.newaxis]
    statistics = SufficientStatistics.from_rows(x, unit * x**2)
    found = training_metrics(statistics, fit(statistics, Exact()).residual_norms, rank=2)
    plain = SufficientStatistics.from_rows(x, x**2)
    expected = training_metrics(plain, fit(plain, Exact()).residual_norms, rank=2)
    assert np.isnan(found.mse)
    assert_allclose(found.rmse / unit, expected.rmse)
    assert_allclose(found.r2, expected.r2)


def test_without_an_intercept_the_variance_is_that_about_zero() -> None:
    x = np.arange(1.0, 8.0)[:, np.newaxis]
    y = 2 * x + 5
    statistics = SufficientStatistics.from_rows(x, y)
    found = training_metrics(
        statistics, fit(statistics, Exact(fit_intercept=False)).residual_norms, rank=1, fit_intercept=False
    )
    slope = (x * y).sum() / (x * x).sum()
    assert found.r2[0] == pytest.approx(1 - ((y - slope * x) ** 2).sum() / (y * y).sum())
    assert found.adjusted_r2[0] == pytest.approx(1 - (1 - found.r2[0]) * 7 / 6)
