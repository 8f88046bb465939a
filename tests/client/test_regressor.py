"""LinserveRegressor keeps the conventions of scikit-learn."""

import copy
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import CLIENT
from service import INPUTS, TARGETS, Service
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from linserve import Client, InvalidInput, LinserveRegressor

X = pd.DataFrame(INPUTS, columns=["temp", "rainfall", "humidity"])
Y = np.array(TARGETS, dtype=float)
# Checks that are not passed, with the reasons. All are.
EXPECTED_FAILURES: dict[str, str] = {}


@pytest.fixture(scope="module")
def client(publishing: Service) -> Iterator[Client]:
    with Client(publishing.url) as made:
        yield made


def names(client: Client) -> set[str]:
    """Return the models of estimators, without those of estimators that nothing refers to any more."""
    gc.collect()
    return {model["model"] for model in client.models() if model["model"].startswith("estimator-")}


@pytest.mark.parametrize(
    ("y", "weights"),
    [
        (Y, np.arange(1.0, 16.0)),
        *(pytest.param(y, None, marks=pytest.mark.slow) for y in (Y[:, 0], Y, Y[:, :1])),
        *(pytest.param(y, np.arange(1.0, 16.0), marks=pytest.mark.slow) for y in (Y[:, 0], Y[:, :1])),
    ],
)
def test_coefficients_and_predictions_are_those_of_scikit_learn(client: Client, y: Any, weights: Any) -> None:
    ours = LinserveRegressor(url=client.url, model="regressor").fit(X, y, weights)
    theirs = LinearRegression().fit(X, y, weights)

    assert np.shape(ours.intercept_) == np.shape(theirs.intercept_)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-9, strict=True)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-9)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9, strict=True)
    assert ours.score(X, y, weights) == pytest.approx(theirs.score(X, y, weights), rel=1e-9)
    assert list(ours.feature_names_in_) == list(X.columns)
    assert ours.n_features_in_ == 3


@pytest.mark.slow
def test_it_works_in_a_pipeline_and_in_a_cross_validation(client: Client) -> None:
    pipeline = make_pipeline(StandardScaler(), LinserveRegressor(url=client.url, l2=0.1))

    scores = cross_val_score(pipeline, X, Y, cv=3)

    assert (scores > 0.9).all()


def test_a_model_of_its_own_is_deleted_with_the_estimator_unless_it_was_copied(client: Client) -> None:
    before = names(client)
    estimator = LinserveRegressor(url=client.url).fit(X, Y)
    first = estimator.model_
    estimator.fit(X.iloc[:, :2], Y[:, 0])
    assert (estimator.model_, estimator.version_) == (first, 2)
    assert names(client) - before == {first}
    del estimator
    assert names(client) == before

    estimator = LinserveRegressor(url=client.url).fit(X, Y)
    copies = [pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)]  # noqa: S301 - our own estimator
    expected = estimator.predict(X)
    del estimator
    gc.collect()
    for copied in copies:
        np.testing.assert_array_equal(copied.predict(X), expected)
    client.delete(copies[0].model_)


def test_options_reach_the_training_and_errors_the_caller(client: Client) -> None:
    estimator = LinserveRegressor(
        url=client.url,
        model="descended",
        solver="gradient_descent",
        options={"epochs": 200, "standardize": True, "learning_rate": 0.1},
    ).fit(X, Y)
    assert estimator.score(X, Y) > 0.9
    assert client.card("descended")["solver"]["epochs"] == 200

    with pytest.raises(InvalidInput, match="l2"):
        LinserveRegressor(url=client.url, model="wrong", l2=-1).fit(X, Y)
    assert clone(estimator).get_params() == estimator.get_params()


@pytest.mark.slow
def test_models_are_deleted_when_the_program_ends_and_not_by_a_fork_of_it(client: Client) -> None:
    before = names(client)
    program = f"""
import os, sys
import numpy as np
from linserve import LinserveRegressor
kept = [LinserveRegressor(url={client.url!r}).fit(np.eye(5)[:, :2], np.arange(5.0)) for _ in range(2)]
if os.fork() == 0:
    sys.exit()
os.wait()
kept[0].predict(np.eye(2))
"""
    environment = {**os.environ, "PYTHONPATH": str(CLIENT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert names(client) == before


def test_a_key_is_not_shown_with_the_parameters() -> None:
    estimator = LinserveRegressor(url="http://127.0.0.1:1", api_key="of-this-test")
    pipeline = make_pipeline(StandardScaler(), clone(clone(estimator)))

    assert pipeline[-1].get_params()["api_key"] == "of-this-test"  # pragma: allowlist secret
    assert "of-this-test" not in repr(estimator) + repr(pipeline) + pipeline._repr_html_() + str(pipeline.get_params())


@pytest.mark.slow
def test_all_checks_of_scikit_learn_are_passed(client: Client) -> None:
    before = names(client)

    results = check_estimator(
        LinserveRegressor(url=client.url), expected_failed_checks=EXPECTED_FAILURES, on_skip=None, on_fail=None
    )

    failed = {result["check_name"]: str(result["exception"]) for result in results if result["status"] == "failed"}
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}
    assert failed == {}
    assert skipped <= {"check_array_api_input"}  # It needs SCIPY_ARRAY_API in the environment.
    assert sum(result["status"] == "passed" for result in results) > 50
    for model in names(client) - before:  # of estimators that were pickled or copied
        client.delete(model)
