from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from trained import model_of

from app.registry.fit_card import metrics_of, warnings_of
from app.regression.linear_model import LinearModel
from app.regression.solvers import Exact, GradientDescent, Solver

Array = NDArray[np.float64]

RANDOM = np.random.default_rng(0)
A, B, C = RANDOM.normal(3, 1, (3, 40))
Y = A[:, np.newaxis] + RANDOM.normal(size=(40, 1))
DUMMIES = np.eye(3)[RANDOM.integers(0, 3, 40)]


def warnings(
    columns: Sequence[Array],
    solver: Exact | None = None,
    *,
    y: Array = Y,
    by: Solver | None = None,
    refined: bool = False,
) -> list[str]:
    """The warnings for an exact fit, or for a model with its statistics that another solver made."""
    solver = solver or Exact()
    model = model_of(np.column_stack(columns), y, solver=solver)
    return list(warnings_of(model, model.design, by or solver, refined=refined))


def test_an_ordinary_fit_has_no_warnings() -> None:
    assert warnings([A, B, C]) == []
    assert warnings([A, B, C], Exact(fit_intercept=False)) == []


def test_only_a_minimum_norm_solution_is_called_the_smallest_standardised_coefficients() -> None:
    columns = [A, B, 10 * A]
    (exact,) = warnings(columns)
    (ridge,) = warnings(columns, Exact(l2=0.1))
    (descent,) = warnings(columns, by=GradientDescent())
    assert exact.endswith("This is the solution with the smallest standardised coefficients.")
    assert ridge.endswith("Leave out features that follow from others.")
    assert descent.endswith("This is the solution that the descent reached from its start.")


def test_the_solution_for_two_collinear_columns_is_the_smallest_in_standardised_coefficients() -> None:
    # (1, 10) and (50.5, 5.05) fit alike: the first is smaller, the second is smaller on standardised columns.
    x = np.column_stack([A, 10 * A])
    model = model_of(x, (101 * A)[:, np.newaxis])
    assert model.coef[0] == pytest.approx([50.5, 5.05])


@pytest.mark.parametrize(("noise", "warned"), [(1e-6, False), (1e-7, False), (1e-9, True), (1e-11, True)])
def test_nearly_collinear_columns_are_warned_of(noise: float, warned: bool) -> None:
    columns = [A, B, A + noise * C]
    found = warnings(columns)
    assert len(found) == warned
    if warned:
        condition = model_of(np.column_stack(columns), Y).design.condition_number
        assert f"(condition number {condition:.0e})" in found[0]
        assert f"may have lost about {int(np.ceil(np.log10(condition)))} of their 16 digits" in found[0]


def test_the_warning_of_a_refined_fit_does_not_mention_lost_digits() -> None:
    (found,) = warnings([A, B, A + 1e-10 * C], refined=True)
    assert "accurate for exactly these values" in found
    assert "lost" not in found


def test_the_warning_of_a_descent_does_not_mention_lost_digits() -> None:
    (found,) = warnings([A, B, A + 1e-10 * C], by=GradientDescent())
    assert found.endswith("very different coefficients fit these rows almost equally well.")


def test_a_penalty_that_removes_the_collinearity_removes_the_warning() -> None:
    columns = [A, B, A + 1e-10 * C]
    assert warnings(columns, Exact(l2=1e-3)) == []
    assert len(warnings(columns, Exact(l2=1e-20))) == 1


def test_a_constant_target_is_warned_of() -> None:
    y = np.column_stack([np.full(40, 0.1), Y, np.full(40, 7.0)])
    assert warnings([A, B], y=y[:, :2])[0] == (
        'The target "y0" is constant in these rows, so there is no variation to explain and R² is null. Check '
        "that this is the column to predict, and send rows in which it varies."
    )
    assert warnings([A, B], y=y)[0].startswith('The targets "y0" and "y2" are constant')
    # About zero, a constant target varies.
    assert warnings([A, B], Exact(fit_intercept=False), y=y) == []
    assert warnings([A, B], Exact(fit_intercept=False), y=0 * Y)[0].startswith('The target "y0" is constant')


def test_an_essentially_perfect_fit_is_warned_of() -> None:
    (found,) = warnings([A, B], y=(3 * A - B + 1)[:, np.newaxis])
    assert found.startswith("The fit is essentially perfect: the residuals are rounding errors.")


def test_an_implicit_constant_is_named_with_its_columns() -> None:
    without = Exact(fit_intercept=False)
    (found,) = warnings([A, *DUMMIES.T], without)
    assert found.startswith(
        'A weighted sum of the columns "x1", "x2" and "x3" is constant in these rows, so the model has an intercept '
        "although fit_intercept is false. R², adjusted R² and F are about zero."
    )
    (found,) = warnings([A, np.full(40, 2.0)], without)
    assert found.startswith('The column "x1" is constant in these rows, so the model has an intercept')
    assert warnings([A, *DUMMIES.T[:2]], without) == []
    assert not any("fit_intercept" in text for text in warnings([A, *DUMMIES.T]))


def test_a_warning_lists_at_most_ten_columns() -> None:
    many = np.eye(30)[np.arange(90) % 30]
    model = model_of(many, RANDOM.normal(size=(90, 1)), solver=Exact(fit_intercept=False))
    (found,) = warnings_of(model, model.design, Exact(fit_intercept=False), refined=False)
    assert '"x9" and 20 more' in found


def metrics(model: LinearModel) -> dict[str, object]:
    found = metrics_of(model, model.design, None, optimum_norms=model.residual_norms)
    assert msgspec.json.decode(msgspec.json.encode(found)) == found  # neither NaN nor infinity
    return found


def test_metrics_that_are_withheld_are_null() -> None:
    model = replace(model_of(A[:, np.newaxis], Y), residual_norms=np.array([np.nan]))
    nothing = {"r2": None, "adjusted_r2": None, "rmse": None}
    assert metrics(model) == {"y0": nothing, "mse": None, "optimum_mse": None, "r2_about": "mean"}


def test_a_mean_square_beyond_64_bits_is_null_and_its_root_is_not() -> None:
    found = metrics(model_of(A[:, np.newaxis], 1e-170 * Y))
    assert (found["mse"], found["optimum_mse"]) == (None, None)
    expected = metrics(model_of(A[:, np.newaxis], Y))
    of_target, plain = found["y0"], expected["y0"]
    assert isinstance(of_target, dict)
    assert isinstance(plain, dict)
    assert of_target["rmse"] == pytest.approx(1e-170 * plain["rmse"])
    assert of_target["r2"] == pytest.approx(plain["r2"])
