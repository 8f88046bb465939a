"""LinearRegressor fits, updates, forgets and predicts as scikit-learn, statsmodels and the service do."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from service import INPUTS, TARGETS
from sklearn.datasets import load_diabetes, load_linnerud
from sklearn.linear_model import LinearRegression, Ridge
from torch.utils.data import DataLoader, TensorDataset

from app.regression import LinearRegressor
from app.regression.errors import FitError, InvalidData, InvalidOption, NotIncluded
from app.regression.solvers import Exact, GradientDescent, Solver, Start

Array = NDArray[np.float64]
X, Y = np.array(INPUTS, dtype=np.float64), np.array(TARGETS, dtype=np.float64)
FEATURES, NAMES = ["temp", "rainfall", "humidity"], ["apples", "oranges"]


def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.DataFrame(X, columns=FEATURES), pd.DataFrame(Y, columns=NAMES)


def assert_same_fit(model: LinearRegressor, other: Any, *, rtol: float = 1e-9) -> None:
    assert_allclose(model.coef_, other.coef_, rtol=rtol, atol=1e-12)
    assert_allclose(model.intercept_, other.intercept_, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("load", [load_diabetes, load_linnerud])
def test_a_fit_is_that_of_scikit_learn(load: Any, weighted: bool, fit_intercept: bool) -> None:
    x, y = load(return_X_y=True)
    weights = np.random.default_rng(0).uniform(0.5, 2, len(x)) if weighted else None

    model = LinearRegressor(fit_intercept=fit_intercept).fit(x, y, weights)

    theirs = LinearRegression(fit_intercept=fit_intercept).fit(x, y, weights)
    assert_same_fit(model, theirs)
    assert np.shape(model.coef_) == np.shape(theirs.coef_)
    assert_allclose(model.predict(x), theirs.predict(x), rtol=1e-9)
    assert model.score(x, y, weights) == pytest.approx(theirs.score(x, y, weights))


def test_a_penalty_is_that_of_ridge_on_standardised_columns() -> None:
    x, y = load_diabetes(return_X_y=True)
    standardised = (x - x.mean(axis=0)) / x.std(axis=0)

    model = LinearRegressor(l2=20).fit(x, y)

    assert_allclose(model.predict(x), Ridge(alpha=20).fit(standardised, y).predict(standardised), rtol=1e-9)


def test_a_chosen_penalty_is_used_again_in_an_update() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(60, 20))
    y = x[:, 0] + 5 * random.normal(size=60)

    model = LinearRegressor(l2="auto").fit(x[:50], y[:50])
    chosen = model.solver_
    model.update(x[50:], y[50:])

    assert chosen.l2 > 0  # type: ignore[attr-defined]
    assert model.solver_ == chosen
    assert_same_fit(model, LinearRegressor(l2=chosen.l2).fit(x, y))  # type: ignore[attr-defined]


def test_frames_give_their_names() -> None:
    x, y = frames()

    model = LinearRegressor(terms=["temp", "temp:humidity"]).fit(x, y)

    assert model.feature_names_in_.tolist() == FEATURES
    assert model.n_features_in_ == 3
    assert model.model_.targets == tuple(NAMES)
    assert model.coef_.shape == (2, 2)
    with pytest.raises(ValueError, match=r"Feature names must be in the same order"):
        model.predict(x[FEATURES[::-1]])
    assert not hasattr(model.set_params(terms=["x0"]).fit(X, Y), "feature_names_in_")


def test_a_series_gives_its_name_and_predictions_without_a_target_axis() -> None:
    x, y = frames()

    model = LinearRegressor().fit(x, y["apples"])
    predictions, bounds = model.predict(x, interval=0.9)

    assert "Target: apples" in model.summary()
    assert (predictions.shape, bounds.shape, np.shape(model.coef_)) == ((15,), (15, 2), (3,))
    assert isinstance(model.intercept_, float)


@pytest.mark.parametrize("solver", ["exact", GradientDescent(epochs=3, batch_size=4)], ids=["exact", "descent"])
@pytest.mark.parametrize("again", [True, False], ids=["read twice", "read once"])
def test_batches_give_the_fit_of_their_rows(solver: Any, again: bool) -> None:
    batches = [(X[start:end], Y[start:end], np.ones(end - start)) for start, end in pairwise([0, 4, 5, 15])]

    class Table:
        def __iter__(self) -> Iterator[Any]:
            return iter(batches)

    model = LinearRegressor(solver=solver).fit(Table() if again else iter(batches))

    assert_same_fit(model, LinearRegressor(solver=solver).fit(X, Y))


def test_a_data_loader_is_read_as_batches() -> None:
    loader = DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=5, shuffle=True)

    assert_same_fit(LinearRegressor().fit(loader), LinearRegressor().fit(X, Y))


def test_updates_give_the_fit_of_all_rows() -> None:
    model = LinearRegressor().partial_fit(X[:4], Y[:4])
    model.partial_fit(X[4:9], Y[4:9]).update(iter([(X[9:12], Y[9:12]), (X[12:], Y[12:])]))

    assert_same_fit(model, LinearRegression().fit(X, Y))
    assert model.model_.statistics.rows == 15


def test_decay_is_a_weight_on_the_earlier_rows() -> None:
    model = LinearRegressor().fit(X[:10], Y[:10]).update(X[10:], Y[10:], decay=0.25)

    assert_same_fit(model, LinearRegression().fit(X, Y, np.repeat([0.25, 1], [10, 5])))
    assert_same_fit(model.forget(X[:3], Y[:3], share=0.25), LinearRegression().fit(X[3:], Y[3:], [0.25] * 7 + [1] * 5))


def test_forgetting_gives_the_fit_of_the_other_rows() -> None:
    x, y = load_diabetes(return_X_y=True)

    model = LinearRegressor().fit(x, y).forget(x[:100], y[:100])

    assert_same_fit(model, LinearRegression().fit(x[100:], y[100:]))
    expected = sm.OLS(y[100:], sm.add_constant(x[100:])).fit()
    _, bounds = model.predict(x[:5], interval=0.9)
    assert_allclose(bounds, expected.get_prediction(sm.add_constant(x)[:5]).conf_int(obs=True, alpha=0.1), rtol=1e-7)


def test_inference_is_withheld_if_forgetting_costs_too_many_digits() -> None:
    random = np.random.default_rng(2)
    far = random.normal(size=(20, 1)) * 3e4
    near = random.normal(size=(20, 1))
    rows = [(x, 2 * x + 1 + random.normal(size=(20, 1))) for x in (far, near)]
    model = LinearRegressor().fit(*map(np.vstack, zip(*rows, strict=True)))

    model.forget(*rows[0])

    assert model.model_.inference_unavailable is not None
    assert model.model_.inference_unavailable in model.summary()
    with pytest.raises(FitError, match=r"There are no intervals\. Too many rows were forgotten"):
        model.predict(near, interval=0.9)


def test_a_failed_update_leaves_the_fit_as_it_was() -> None:
    model = LinearRegressor().fit(X, Y)
    before = model.coef_.copy()

    with pytest.raises(NotIncluded):
        model.forget(X[:2] + 500, Y[:2])
    with pytest.raises(InvalidData):
        model.forget(X[:13], Y[:13])
    with pytest.raises(ValueError, match="y has 1 targets, but LinearRegressor is expecting 2"):
        model.update(X, Y[:, 0])
    with pytest.raises(InvalidOption, match="decay is 0"):
        model.update(X, Y, decay=0)

    assert_array_equal(model.coef_, before)
    assert model.model_.statistics.rows == 15


def test_intervals_are_those_of_statsmodels() -> None:
    x, y = load_diabetes(return_X_y=True)
    theirs = sm.OLS(y, sm.add_constant(x)).fit()

    _, bounds = LinearRegressor().fit(x, y).predict(x[:9], interval=0.8)

    assert_allclose(bounds, theirs.get_prediction(sm.add_constant(x)[:9]).conf_int(obs=True, alpha=0.2), rtol=1e-9)
    with pytest.raises(ValueError, match="interval is 80, expected a probability between 0 and 1"):
        LinearRegressor().fit(x, y).predict(x, interval=80)


def test_a_descent_goes_on_from_the_current_coefficients() -> None:
    options = {"learning_rate": 1e-5, "start": Start(weights=[[0.1] * 3] * 2, intercept=[1.0, 2.0])}
    whole = LinearRegressor(solver=GradientDescent(epochs=5, **options)).fit(X, Y)  # type: ignore[arg-type]

    model = LinearRegressor(solver=GradientDescent(epochs=2, **options)).fit(X, Y)  # type: ignore[arg-type]
    model.set_params(solver=GradientDescent(epochs=3, learning_rate=1e-5, start="current")).fit(X, Y)

    assert_same_fit(model, whole)
    with pytest.raises(InvalidOption, match="Rows cannot be added"):
        model.update(X, Y)
    with pytest.raises(InvalidOption, match="An estimator has no versions"):
        LinearRegressor(solver=GradientDescent(start=Start(version=1))).fit(X, Y)


def test_a_target_that_does_not_vary_scores_as_in_scikit_learn() -> None:
    model = LinearRegressor().fit(X, np.ones(15))

    assert model.score(X, np.ones(15)) == 1
    assert model.score(X, np.full(15, 2.0)) == 0


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (GradientDescent(epochs=0), "epochs is 0, expected a number at least 1 and at most 100000000"),
        (GradientDescent(batch_size=0), "batch_size is 0, expected a number at least 1"),
        (GradientDescent(learning_rate=float("nan")), "learning_rate is nan, expected a number above 0"),
        (GradientDescent(momentum=1.0), "momentum is 1.0, expected a number at least 0 and below 1"),
        (Exact(l2=-1.0), "l2 is -1.0, expected a number at least 0"),
    ],
)
def test_an_option_of_a_solver_outside_its_bounds_is_rejected(solver: Solver, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        LinearRegressor(solver=solver).fit(X, Y)
