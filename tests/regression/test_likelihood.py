from dataclasses import replace
from math import log

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from trained import model_from, model_of

from app.regression.metrics import likelihood, why_no_likelihood
from app.regression.solvers import Exact
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(5, 2, (40, 3))
Y = X @ [[1.0, 2.0], [0.5, -1.0], [0.0, 1.0]] + RANDOM.normal(size=(40, 2))
WEIGHTS = RANDOM.uniform(0.5, 3, 40)


def test_the_log_likelihood_is_the_density_of_the_rows_at_the_fit() -> None:
    model = model_of(X, Y, WEIGHTS)
    residuals = Y - X @ model.coef.T - model.intercept
    variances = (WEIGHTS[:, np.newaxis] * residuals**2).mean(axis=0) / WEIGHTS[:, np.newaxis]
    with mpmath.workdps(30):
        expected = [
            float(mpmath.fsum(mpmath.log(mpmath.npdf(r, 0, mpmath.sqrt(v))) for r, v in zip(*columns, strict=True)))
            for columns in zip(residuals.T, variances.T, strict=True)
        ]
    found = likelihood(model)
    assert_allclose(found.log_likelihood, expected, rtol=1e-12)
    assert_allclose(found.aic, -2 * np.array(expected) + 2 * 5, rtol=1e-12)
    assert_allclose(found.bic, -2 * np.array(expected) + log(40) * 5, rtol=1e-12)


@pytest.mark.parametrize("factor", [1e-200, 1 / 200, 3.0, 1e200])
def test_multiplying_all_precision_weights_changes_no_criterion(factor: float) -> None:
    expected, found = likelihood(model_of(X, Y, WEIGHTS)), likelihood(model_of(X, Y, WEIGHTS * factor))
    assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-11)
    assert_allclose(found.aic, expected.aic, rtol=1e-11)
    assert_allclose(found.bic, expected.bic, rtol=1e-11)


def test_frequency_weights_have_the_likelihood_of_repeated_rows() -> None:
    times = np.random.default_rng(1).integers(1, 5, 40)
    repeated = likelihood(model_of(np.repeat(X, times, axis=0), np.repeat(Y, times, axis=0)))
    found = likelihood(model_of(X, Y, times.astype(float), weight_kind="frequency"))
    assert_allclose(found.log_likelihood, repeated.log_likelihood, rtol=1e-12)
    assert_allclose(found.aic, repeated.aic, rtol=1e-12)
    assert_allclose(found.bic, repeated.bic, rtol=1e-12)


def test_columns_that_add_nothing_to_the_rank_cost_no_parameter() -> None:
    doubled = np.hstack([X, 2 * X[:, :1], np.full((40, 1), 7.0)])
    expected, found = likelihood(model_of(X, Y)), likelihood(model_of(doubled, Y))
    assert_allclose(found.aic, expected.aic, rtol=1e-12)
    assert_allclose(found.bic, expected.bic, rtol=1e-12)


def test_the_likelihood_survives_an_update_and_ends_with_decay() -> None:
    first, second = (
        summarise([TrainingBatch(X[part], Y[part], WEIGHTS[part])]) for part in (slice(0, 15), slice(15, None))
    )
    merged = first.merge(second)
    assert why_no_likelihood(merged) is None
    found = likelihood(model_from(merged, Exact()))
    assert_allclose(found.log_likelihood, likelihood(model_of(X, Y, WEIGHTS)).log_likelihood, rtol=1e-12)
    assert "Decay" in str(why_no_likelihood(first.discounted_by(0.5).merge(second)))


def test_a_version_without_the_sum_of_log_weights_has_no_likelihood() -> None:
    statistics = replace(summarise([TrainingBatch(X, Y, WEIGHTS)]), log_weights=np.nan)
    assert "logarithms" in str(why_no_likelihood(statistics))
