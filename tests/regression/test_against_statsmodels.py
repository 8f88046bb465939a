"""The same numbers as the reference implementation of classical inference, and the coverage that they promise."""

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_linnerud
from statsmodels.stats.outliers_influence import variance_inflation_factor
from trained import model_of

from app.regression.hypothesis_tests import covariances, infer, variance_inflation
from app.regression.linear_model import LinearModel
from app.regression.metrics import likelihood, training_metrics
from app.regression.solvers import Exact

Array = NDArray[np.float64]


def fitted(x: Array, y: Array, weights: Array | None = None, *, fit_intercept: bool = True) -> LinearModel:
    return model_of(x, y, weights, solver=Exact(fit_intercept=fit_intercept))


def datasets() -> list[tuple[Array, Array]]:
    diabetes, linnerud = load_diabetes(), load_linnerud()
    return [(diabetes.data, diabetes.target[:, np.newaxis]), (linnerud.data, linnerud.target)]


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("fit_intercept", [True, False], ids=["with an intercept", "without one"])
@pytest.mark.parametrize(("x", "y"), datasets(), ids=["diabetes", "linnerud"])
def test_inference_is_that_of_statsmodels(x: Array, y: Array, fit_intercept: bool, weighted: bool) -> None:
    weights = np.random.default_rng(0).uniform(0.5, 2, len(x)) if weighted else None
    model = fitted(x, y, weights, fit_intercept=fit_intercept)
    found = infer(model)
    metrics = training_metrics(model.statistics, model.residual_norms, rank=model.rank, fit_intercept=fit_intercept)
    likelihoods, matrices = likelihood(model), covariances(model, found)
    new = x[:7] * 1.1
    columns = slice(0 if fit_intercept else 1, None)

    for target in range(y.shape[1]):
        design = sm.add_constant(x) if fit_intercept else x
        scaled = 1.0 if weights is None else weights / weights.mean()
        expected = sm.WLS(y[:, target], design, weights=scaled).fit()

        assert_allclose(found.standard_errors[target, columns], expected.bse, rtol=1e-8)
        assert_allclose(found.t_values[target, columns], expected.tvalues, rtol=1e-8)
        assert_allclose(found.p_values[target, columns], expected.pvalues, rtol=1e-8, atol=1e-300)
        intervals = np.column_stack([found.lower[target, columns], found.upper[target, columns]])
        assert_allclose(intervals, expected.conf_int(), rtol=1e-8, atol=1e-8)
        assert found.residual_deviation[target] == pytest.approx(np.sqrt(expected.mse_resid), rel=1e-8)
        assert metrics.r2[target] == pytest.approx(expected.rsquared, rel=1e-8)
        assert metrics.adjusted_r2[target] == pytest.approx(expected.rsquared_adj, rel=1e-8)
        assert found.f_values[target] == pytest.approx(expected.fvalue, rel=1e-8)
        assert found.f_p_values[target] == pytest.approx(expected.f_pvalue, rel=1e-6)

        assert model.degrees_of_freedom == expected.df_resid
        assert model.rank - fit_intercept == expected.df_model
        assert likelihoods.log_likelihood[target] == pytest.approx(expected.llf, rel=1e-12)
        # statsmodels does not count the variance among the parameters.
        assert likelihoods.aic[target] == pytest.approx(expected.aic + 2, rel=1e-12)
        assert likelihoods.bic[target] == pytest.approx(expected.bic + np.log(len(x)), rel=1e-12)
        apart = np.outer(expected.bse, expected.bse)
        assert_allclose(
            matrices[target, columns, columns] / apart, expected.cov_params() / apart, rtol=1e-8, atol=1e-12
        )

        frame = expected.get_prediction(
            sm.add_constant(new, has_constant="add") if fit_intercept else new
        ).summary_frame(alpha=0.1)
        assert_allclose(model.interval(new, 0.9)[:, target, 0], frame["obs_ci_lower"], rtol=1e-8)
        assert_allclose(model.interval(new, 0.9)[:, target, 1], frame["obs_ci_upper"], rtol=1e-8)
        confidence = model.interval(new, 0.9, of_mean=True)[:, target]
        assert_allclose(confidence, frame[["mean_ci_lower", "mean_ci_upper"]], rtol=1e-8)


@pytest.mark.parametrize("fit_intercept", [True, False], ids=["with an intercept", "without one"])
@pytest.mark.parametrize(("x", "y"), datasets(), ids=["diabetes", "linnerud"])
def test_variance_inflation_factors_are_those_of_statsmodels(x: Array, y: Array, fit_intercept: bool) -> None:
    design = sm.add_constant(x) if fit_intercept else x
    expected = [
        variance_inflation_factor(design, index + fit_intercept, standardize=False) for index in range(x.shape[1])
    ]
    assert_allclose(variance_inflation(fitted(x, y, fit_intercept=fit_intercept)), expected, rtol=1e-8)


@pytest.mark.slow
def test_95_of_100_intervals_hold_the_new_observation() -> None:
    random = np.random.default_rng(7)
    held = 0
    for _ in range(2000):
        x = random.normal(size=(13, 3))
        y = x @ [[1.0], [-2.0], [0.5]] + 3 + random.normal(size=(13, 1))
        new = random.normal(size=(1, 3))
        observed = float((new @ [1.0, -2.0, 0.5])[0]) + 3 + random.normal()
        low, high = fitted(x, y).interval(new, 0.95)[0, 0]
        held += low <= observed <= high

    assert 0.94 <= held / 2000 <= 0.96
