"""What classical theory does not cover, or rounding makes uncertain, is withheld with a reason."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from looks import Array, diagnosed, fit_of, look
from numpy.testing import assert_allclose
from statsmodels.stats.outliers_influence import OLSInfluence

from app.regression.errors import InvalidData
from app.regression.solvers import Exact, GradientDescent

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(50, 3))
Y = X @ [[1.0], [2.0], [-1.0]] + RANDOM.normal(size=(50, 1))
PARTS = {"residuals", "quantiles", "cooks_distance", "durbin_watson", "breusch_pagan", "partial_residuals"}


def nulls(value: Any, path: str = "") -> Iterator[str]:
    if value is None:
        yield path[1:]
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from nulls(part, f"{path}.{name}")


def checked(found: dict[str, Any]) -> dict[str, Any]:
    """Return diagnostics of which each null has a reason, each reason is for a null, and the JSON is small."""
    assert set(nulls(found)) == set(found["unavailable"])
    assert len(json.dumps(found, allow_nan=False)) < 100_000
    return found


def given(found: dict[str, Any], target: str = "y0") -> set[str]:
    """The parts of the diagnostics of a target that are given."""
    return {part for part, value in checked(found)["targets"][target].items() if value is not None}


def test_a_ridge_penalty_leaves_only_what_needs_no_theory() -> None:
    found = look(fit_of(X, Y, solver=Exact(l2=3.0)), X, Y, penalised=True)
    assert given(found) == {"residuals", "durbin_watson", "partial_residuals"}
    assert found["leverage"] is None
    assert "penalty" in found["unavailable"]["leverage"]
    assert "ridge" in found["unavailable"]["targets.y0.cooks_distance"]


def test_a_descent_short_of_the_optimum_keeps_leverages_and_one_at_the_optimum_has_everything() -> None:
    short = GradientDescent(device="cpu", epochs=2, learning_rate=0.01)
    found = look(fit_of(X, Y, solver=short), X, Y)
    assert given(found) == {"residuals", "durbin_watson", "partial_residuals"}
    assert found["leverage"] is not None
    assert "gradient descent" in found["unavailable"]["targets.y0.quantiles"]
    exact, near = (
        look(fit_of(X, Y, solver=solver), X, Y)
        for solver in (Exact(), GradientDescent(device="cpu", epochs=200, learning_rate=0.5, standardize=True))
    )
    assert given(near) == PARTS
    one, other = (item["targets"]["y0"]["cooks_distance"][0]["distance"] for item in (exact, near))
    assert other == pytest.approx(one, rel=1e-4)


def test_a_perfect_fit_of_one_target_leaves_the_others() -> None:
    found = diagnosed(X, np.hstack([Y, X @ [[1.0], [1.0], [1.0]] + 2]))
    assert given(found, "y0") == PARTS
    assert given(found, "y1") == set()
    assert "rounding" in found["unavailable"]["targets.y1.residuals"]


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_rows_that_are_no_more_than_coefficients_have_no_residuals(rows: int) -> None:
    found = diagnosed(X[:rows], Y[:rows])
    assert given(found) == set()
    assert found["leverage"] is not None
    assert found["leverage"]["ones"] == rows


def test_a_constant_target_has_no_residuals() -> None:
    found = diagnosed(X, np.full_like(Y, 3.7))
    assert given(found) == set()
    assert sum(found["leverage"]["counts"]) == 50


def test_a_feature_that_is_constant_leaves_the_mean() -> None:
    found = diagnosed(np.ones((50, 1)), Y)
    assert given(found) == PARTS - {"breusch_pagan", "partial_residuals"}
    assert found["unavailable"]["targets.y0.breusch_pagan"] == "No column varies."
    assert found["leverage"]["maximum"] == pytest.approx(1 / 50)
    none = look(fit_of(np.zeros((50, 1)), Y, solver=Exact(fit_intercept=False)), np.zeros((50, 1)), Y)
    assert given(none) == {"residuals", "durbin_watson"}
    assert none["unavailable"]["leverage"] == "The rows determine no coefficient."


def test_dependent_columns_count_once() -> None:
    twice = np.hstack([X, X[:, :1] * 2 - X[:, 1:2]])
    one, other = diagnosed(X, Y), checked(diagnosed(twice, Y))
    first, second = one["targets"]["y0"], other["targets"]["y0"]
    assert_allclose(second["quantiles"]["observed"], first["quantiles"]["observed"], rtol=1e-9)
    assert second["breusch_pagan"] == pytest.approx(first["breusch_pagan"], rel=1e-9)
    assert_allclose(other["leverage"]["maximum"], one["leverage"]["maximum"], rtol=1e-9)
    # A slope that the rows do not determine has no partial residuals.
    assert set(other["targets"]["y0"]["partial_residuals"]) == {"x2"}
    nothing = diagnosed(np.hstack([X[:, :1], X[:, :1]]), Y)
    assert given(nothing) == PARTS - {"partial_residuals"}


def test_nearly_collinear_columns_withhold_leverages() -> None:
    near = np.hstack([X, X[:, :1] + 1e-9 * RANDOM.normal(size=(50, 1))])
    found = diagnosed(near, Y)
    assert given(found) == {"residuals", "durbin_watson", "partial_residuals"}
    assert "six digits" in found["unavailable"]["leverage"]


def test_a_row_that_determines_a_coefficient_alone_is_counted_and_left_out() -> None:
    alone = np.hstack([X, np.eye(50)[:, 17:18]])
    found = diagnosed(alone, Y)
    assert given(found) == PARTS
    assert found["leverage"]["ones"] == 1
    assert found["leverage"]["maximum"] == pytest.approx(1)
    assert 17 not in {entry["row"] for entry in found["targets"]["y0"]["cooks_distance"]}
    others = np.arange(50) != 17
    expected = OLSInfluence(sm.OLS(Y[others], sm.add_constant(X[others])).fit())
    observed = found["targets"]["y0"]["quantiles"]["observed"]
    assert_allclose(observed, np.sort(expected.resid_studentized_internal), rtol=1e-8)


def test_a_residual_that_is_the_only_error_has_no_studentised_value() -> None:
    x = np.arange(12.0)[:, np.newaxis]
    y = 2 * x + 1
    y[5] += 1
    row = diagnosed(x, y)["targets"]["y0"]["cooks_distance"][0]
    assert row["row"] == 5
    assert row["studentized_residual"] is None
    assert row["distance"] > 0


def test_squared_residuals_that_do_not_vary_have_no_test() -> None:
    x = np.repeat([[0.0], [1.0], [2.0]], 2, axis=0)
    y = x + np.array([[1.0], [-1.0]] * 3)
    found = diagnosed(x, y)
    assert given(found) == PARTS - {"breusch_pagan"}
    assert "do not vary" in found["unavailable"]["targets.y0.breusch_pagan"]


def test_terms_are_columns_of_their_own() -> None:
    terms = ("x0", "x0^2", "x1:x2")
    result = fit_of(X, Y, terms=terms)
    found = look(result, X, Y)
    columns = np.column_stack([X[:, 0], X[:, 0] ** 2, X[:, 1] * X[:, 2]])
    expected = diagnosed(columns, Y)
    assert given(found) == PARTS
    assert set(found["targets"]["y0"]["partial_residuals"]) == set(terms)
    for part in ("quantiles", "breusch_pagan", "durbin_watson", "cooks_distance", "residuals"):
        assert found["targets"]["y0"][part] == expected["targets"]["y0"][part]


def test_the_first_four_targets_and_the_columns_with_the_largest_t_are_given() -> None:
    random = np.random.default_rng(8)
    x = random.normal(size=(200, 30))
    y = x @ random.normal(size=(30, 6)) + random.normal(size=(200, 6))
    found = checked(diagnosed(x, y))
    assert list(found["targets"]) == ["y0", "y1", "y2", "y3"]
    assert found["notes"] == [
        "The first 4 of 6 targets are diagnosed.",
        "Partial residuals are given for the 5 of 30 columns with the largest |t|.",
    ]
    t = np.abs(sm.OLS(y[:, 3], sm.add_constant(x)).fit().tvalues[1:])
    assert list(found["targets"]["y3"]["partial_residuals"]) == [f"x{place}" for place in np.argsort(-t)[:5]]


@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_squares_that_leave_the_range_of_floats_do_not_matter(size: float) -> None:
    found = diagnosed(X * size, Y * size)
    assert given(found) == PARTS
    assert found["targets"]["y0"]["breusch_pagan"] == pytest.approx(diagnosed(X, Y)["targets"]["y0"]["breusch_pagan"])


def test_rows_that_are_not_those_of_the_fit_are_refused() -> None:
    with pytest.raises(InvalidData, match="not those of the fit"):
        look(fit_of(X, Y), X[:-1], Y[:-1])
    assert given(look(fit_of(X, Y), X, Y[::-1])) == set()


def test_weights_that_make_columns_collinear_do_not_give_a_wrong_test() -> None:
    weights = np.where(np.arange(50) < 25, 1e-12, 1.0)
    x = np.column_stack([X[:, 0], np.where(np.arange(50) < 25, X[:, 1], X[:, 0])])
    found: dict[str, Any] = look(fit_of(x, Y, weights), x, Y, weights)
    checked(found)
    test = found["targets"]["y0"]["breusch_pagan"]
    assert test is None or np.isfinite(list(test.values())).all()


def test_all_numbers_are_finite_for_integers_with_many_ties() -> None:
    random = np.random.default_rng(2)
    x: Array = random.integers(0, 3, (90, 2)).astype(float)
    y: Array = random.integers(0, 4, (90, 1)).astype(float)
    found = diagnosed(x, y)
    assert given(found) == PARTS
    assert sum(map(sum, found["targets"]["y0"]["residuals"]["counts"])) == 90
