"""The same numbers as the reference implementation of classical inference, and the coverage that they promise."""

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_linnerud

from app.regression.accumulator import summarise
from app.regression.block import Block
from app.regression.inference import infer
from app.regression.least_squares import fit
from app.regression.linear_model import LinearModel
from app.regression.metrics import training_metrics
from app.regression.solvers import Exact

Array = NDArray[np.float64]


def fitted(x: Array, y: Array, weights: Array | None = None, *, fit_intercept: bool = True) -> LinearModel:
    statistics = summarise([Block(x, y, weights)])
    found = fit(statistics, Exact(fit_intercept=fit_intercept))
    return LinearModel(
        tuple(f"x{index}" for index in range(x.shape[1])),
        tuple(f"y{index}" for index in range(y.shape[1])),
        found.weights,
        found.intercept,
        statistics,
        found.residual_norms,
        found.unscaled_errors,
        has_intercept=fit_intercept,
    )


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
    new = x[:7] * 1.1
    columns = slice(0 if fit_intercept else 1, None)

    for target in range(y.shape[1]):
        design = sm.add_constant(x) if fit_intercept else x
        expected = sm.WLS(y[:, target], design, weights=1.0 if weights is None else weights / weights.mean()).fit()

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

        frame = expected.get_prediction(
            sm.add_constant(new, has_constant="add") if fit_intercept else new
        ).summary_frame(alpha=0.1)
        assert_allclose(model.interval(new, 0.9)[:, target, 0], frame["obs_ci_lower"], rtol=1e-8)
        assert_allclose(model.interval(new, 0.9)[:, target, 1], frame["obs_ci_upper"], rtol=1e-8)
        confidence = model.interval(new, 0.9, of_mean=True)[:, target]
        assert_allclose(confidence, frame[["mean_ci_lower", "mean_ci_upper"]], rtol=1e-8)


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
