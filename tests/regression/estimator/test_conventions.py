"""The estimator keeps scikit-learn's conventions, and does without scikit-learn."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone, is_regressor
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from app.regression import LinearRegressor
from app.regression.solvers import GradientDescent

ROOT = Path(__file__).parents[3]
NOT_EQUIVALENT = "The penalty is a number of observations, and precision weights do not count observations."
NO_UPDATES = "Gradient descent cannot add rows to earlier ones, so partial_fit fails in its second call."
# Parameters, and the checks of check_estimator that an estimator with them does not pass, each with the reason.
ESTIMATORS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {}),
    ({"fit_intercept": False}, {}),
    ({"l2": 0.1}, {"check_sample_weight_equivalence_on_dense_data": NOT_EQUIVALENT}),
    (
        {"solver": GradientDescent(standardize=True, learning_rate=0.1)},
        {"check_fit_score_takes_y": NO_UPDATES, "check_n_features_in_after_fitting": NO_UPDATES},
    ),
]


@pytest.mark.filterwarnings("ignore:Estimator LinearRegressor does not inherit")  # scikit-learn may not be installed
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")  # array_api needs a variable set
@pytest.mark.parametrize(("parameters", "failures"), ESTIMATORS, ids=lambda value: "".join(map(str, value)))
def test_check_estimator_passes(parameters: dict[str, Any], failures: dict[str, str]) -> None:
    results = check_estimator(LinearRegressor(**parameters), expected_failed_checks=failures)

    assert {result["check_name"] for result in results if result["status"] == "xfail"} == failures.keys()
    assert sum(result["status"] == "passed" for result in results) > 50


def test_it_works_in_a_pipeline_a_grid_search_and_a_cross_validation() -> None:
    x, y = load_diabetes(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), LinearRegressor())

    found = cross_val_score(pipeline, x, y)
    search = GridSearchCV(LinearRegressor(), {"l2": [0.0, 1e6]}).fit(x, y)

    assert_allclose(found, cross_val_score(LinearRegression(), x, y), rtol=1e-9)
    assert search.best_params_ == {"l2": 0.0}
    assert is_regressor(LinearRegressor())


def test_a_clone_has_the_parameters_and_is_not_fitted() -> None:
    solver = GradientDescent(epochs=7)
    fitted = LinearRegressor(solver=solver, terms=["x0"]).fit([[1.0], [2.0]], [1.0, 2.0])

    copy = clone(fitted)

    assert copy.get_params() == fitted.get_params() == {
        "l2": 0.0, "fit_intercept": True, "terms": ["x0"], "weight_kind": "precision", "solver": solver,
    }  # fmt: skip
    assert not hasattr(copy, "coef_")
    assert repr(copy) == f"LinearRegressor(terms=['x0'], solver={solver!r})"


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid parameter 'penalty'"):
        LinearRegressor().set_params(penalty=1)
    with pytest.raises(TypeError):
        LinearRegressor(penalty=1)  # type: ignore[call-arg]


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_it_needs_neither_scikit_learn_nor_pandas() -> None:
    program = """
import sys
sys.modules["sklearn"] = sys.modules["pandas"] = None
from app.regression import LinearRegressor
model = LinearRegressor()
try:
    model.predict([[1.0]])
except ValueError as error:
    print(error)
print(model.fit([[1.0], [2.0], [4.0]], [3.0, 5.0, 9.0]).predict([[3.0]]).round(9).tolist())
"""

    assert run(program).splitlines() == [
        "This LinearRegressor instance is not fitted yet. Call 'fit' first.",
        "[7.0]",
    ]


def test_only_gradient_descent_loads_torch() -> None:
    program = """
import sys
from app.regression import LinearRegressor
for solver in ("exact", "gradient_descent"):
    LinearRegressor(solver=solver).fit([[1.0], [2.0], [4.0]], [3.0, 5.0, 9.0]).summary()
    print("torch" in sys.modules)
"""

    assert run(program).split() == ["False", "True"]


def rejected(message: str, x: Any, y: Any, **options: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        LinearRegressor(**options).fit(x, y)


def test_parameters_and_rows_that_do_not_fit_are_refused() -> None:
    x, y = np.arange(6.0).reshape(3, 2), np.arange(3.0)

    rejected('l2 is -1, expected "auto" or a number of at least 0', x, y, l2=-1)
    rejected("l2 is 'automatic', expected", x, y, l2="automatic")
    rejected("weight_kind is 'count', expected one of", x, y, weight_kind="count")
    rejected("terms is 'x0', expected a list of terms", x, y, terms="x0")
    rejected("There is no solver 'magic': exact, gradient_descent", x, y, solver="magic")
    rejected('need solver="exact"', x, y, solver="gradient_descent", l2=1)
    rejected("Not all terms can be made from the features. 'x2': A term is a feature, or", x, y, terms=["x0", "x2"])
    rejected("X has 3 rows, and y has 2", x, y[:2])
    rejected(r"y has to be \(n,\) or \(n, k\), and it has 3 dimensions", x, y.reshape(3, 1, 1))
    rejected("A batch has to be", iter([1.0]), None)
    rejected("There are no rows to train on", iter([]), None)
    with pytest.raises(ValueError, match="sample_weight has a negative value"):
        LinearRegressor().fit(x, y, sample_weight=[1, -1, 1])
    with pytest.raises(ValueError, match="Frequency weights have to be whole numbers"):
        LinearRegressor(weight_kind="frequency").fit(x, y, sample_weight=[1, 0.5, 1])
    with pytest.raises(ValueError, match="Batches have their own weights"):
        LinearRegressor().fit(iter([(x, y)]), sample_weight=[1, 1, 1])
