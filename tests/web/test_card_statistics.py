"""The computed fields of a card, and the reason for each that is null."""

import tracemalloc
from dataclasses import replace

import numpy as np
import orjson
import pytest
from cards import card_of
from numpy.testing import assert_allclose
from trained import model_from, model_of, version_of

from app.data.columns.schema import Column, TableSchema
from app.errors import InvalidInput
from app.registry.version_file import Version
from app.regression.solvers import Exact, GradientDescent
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch
from app.web.model_view import model_to_view, view_bytes

RANDOM = np.random.default_rng(0)
A, B, C = RANDOM.normal(3, 1, (3, 40))
Y = np.column_stack([A + RANDOM.normal(size=40), B + RANDOM.normal(size=40)])
X = np.column_stack([A, B, C])
FIT = Exact()


def test_the_card_of_an_ordinary_fit_has_every_statistic() -> None:
    card = card_of(version_of(model_of(X, Y), parent=1, precision_loss=1.0), include="covariance")
    assert card["unavailable"] == {
        "diagnostics": "The version file has no record of diagnostics. An earlier release may have written it.",
        "validation": "The job did not ask for cross-validation.",
        "precision_bounds": "No rows were taken out of this version.",
    }
    assert (card["residual_degrees_of_freedom"], card["model_degrees_of_freedom"]) == (36, 3)
    assert card["effective_degrees_of_freedom"] == pytest.approx(4)
    assert card["total_weight"] == pytest.approx(40)
    assert (card["weight_kind"], card["confidence_level"], card["precision_loss"]) == ("precision", 0.95, 1)
    assert card["linear_dependencies"] == []
    assert card["covariance"]["coefficients"] == ["intercept", "x0", "x1", "x2"]
    for target in ("y0", "y1"):
        errors = list(card["standard_errors"][target].values())
        assert_allclose(np.sqrt(np.diag(card["covariance"]["matrices"][target])), errors, rtol=1e-12)
        log_likelihood = card["log_likelihood"][target]
        assert card["aic"][target] == pytest.approx(-2 * log_likelihood + 10)
        assert card["bic"][target] == pytest.approx(-2 * log_likelihood + 5 * np.log(40))


def test_intervals_are_of_the_level_that_is_asked_for() -> None:
    version = version_of(model_of(X, Y))
    wide, narrow = card_of(version, level=0.99), card_of(version, level=0.5)
    assert (wide["confidence_level"], narrow["confidence_level"]) == (0.99, 0.5)
    for name, (low, high) in narrow["confidence_intervals"]["y0"].items():
        lower, higher = wide["confidence_intervals"]["y0"][name]
        assert lower < low < high < higher


def test_a_coefficient_that_the_rows_do_not_determine_has_a_reason_and_the_others_have_inference() -> None:
    x = np.column_stack([A, B, 2 * B, np.full(40, 7.0)])
    card = card_of(version_of(model_of(x, Y[:, :1])), include="covariance")
    assert card["linear_dependencies"] == [["x1", "x2"], ["intercept", "x3"]]
    for field in ("standard_errors", "t_values", "p_values", "confidence_intervals"):
        assert {name for name, value in card[field]["y0"].items() if value is not None} == {"x0"}
        assert "linear_dependencies" in card["unavailable"][f"{field}.y0.x2"]
        assert "intercept" in card["unavailable"][f"{field}.y0.intercept"]
    assert [row.count(None) for row in card["covariance"]["matrices"]["y0"]] == [5, 4, 5, 5, 5]
    assert set(card["unavailable"]) >= {f"variance_inflation_factors.x{index}" for index in (1, 2, 3)}
    assert card["variance_inflation_factors"]["x0"] > 1


def test_a_field_without_any_value_is_null_and_has_one_reason() -> None:
    card = card_of(version_of(model_of(np.column_stack([A, A, np.full(40, 7.0)]), Y)))
    for field in ("standard_errors", "t_values", "p_values", "confidence_intervals", "variance_inflation_factors"):
        assert card[field] is None
        assert "linear_dependencies" in card["unavailable"][field]
    assert card["f_tests"]["y0"]["f"] > 0


def test_reasons_that_hold_for_every_target_are_given_once() -> None:
    x, y = np.column_stack([X, 2 * A]), RANDOM.normal(size=(40, 100))
    card = card_of(version_of(model_of(x, y)))
    assert len(card["unavailable"]) < 20
    assert "standard_errors.*.x3" in card["unavailable"]


def test_a_ridge_fit_keeps_what_does_not_depend_on_inference() -> None:
    solver = Exact(l2=5.0)
    card = card_of(version_of(model_of(X, Y, solver=solver), solver), include="covariance")
    for field in ("standard_errors", "f_tests", "log_likelihood", "aic", "bic", "covariance"):
        assert card[field] is None
        assert "ridge" in card["unavailable"][field]
    assert 1 < card["effective_degrees_of_freedom"] < 4
    assert set(card["variance_inflation_factors"]) == {"x0", "x1", "x2"}


def test_a_descent_has_no_effective_degrees_of_freedom() -> None:
    card = card_of(version_of(model_of(X, Y), solver=GradientDescent()))
    assert card["effective_degrees_of_freedom"] is None
    assert "effective_degrees_of_freedom" in card["unavailable"]


def test_decay_withholds_the_likelihood_alone() -> None:
    statistics = summarise([TrainingBatch(X, Y)]).discounted_by(0.5)
    card = card_of(version_of(model_from(statistics, Exact())))
    assert card["log_likelihood"] is None
    assert "Decay" in card["unavailable"]["aic"]
    assert card["standard_errors"] is not None
    assert card["residual_degrees_of_freedom"] == pytest.approx(16)


def test_fewer_discounted_rows_than_coefficients_leave_no_degrees_of_freedom() -> None:
    card = card_of(version_of(model_from(summarise([TrainingBatch(X, Y)]).discounted_by(0.05), Exact())))
    assert card["residual_degrees_of_freedom"] is None
    assert "2 rows" in card["unavailable"]["residual_degrees_of_freedom"]
    assert card["metrics"]["y0"]["adjusted_r2"] is None


def test_a_constant_target_has_no_r2_and_the_reason() -> None:
    y = np.column_stack([Y[:, 0], np.full(40, 0.1)])
    card = card_of(version_of(model_of(X, y)))
    assert card["unavailable"]["metrics.y1.r2"] == "The target does not vary."
    assert card["unavailable"]["metrics.y1.adjusted_r2"] == "The target does not vary."
    assert card["metrics"]["y0"]["r2"] > 0


def test_without_residual_norms_everything_that_follows_from_them_is_null_with_the_reason() -> None:
    model = replace(
        model_of(X, Y),
        residual_norms=np.full(2, np.nan),
        unscaled_errors=None,
        inference_unavailable="Too many rows taken out.",
    )
    card = card_of(version_of(model))
    for field in ("standard_errors", "log_likelihood", "variance_inflation_factors", "linear_dependencies"):
        assert card["unavailable"][field] == "Too many rows taken out."
    assert card["unavailable"]["metrics.*.r2"] == "Too many rows taken out."
    assert card["unavailable"]["metrics.mse"] == "Too many rows taken out."


def test_a_lost_direction_is_not_said_to_be_unrecorded() -> None:
    model = model_of(X, Y)
    taken = replace(model, known_statistics=replace(model.statistics, removed=model.statistics.factor))
    for stored in (None, np.inf):
        card = card_of(version_of(taken, precision_loss=stored))
        assert card["precision_loss"] is None
        assert "infinite" in card["unavailable"]["precision_loss"]
    assert "not recorded" in card_of(version_of(model))["unavailable"]["precision_loss"]


def test_a_perfect_fit_of_an_older_version_has_no_infinite_numbers() -> None:
    model = replace(model_of(X, Y), residual_norms=np.array([0.0, 1.0]))
    card = card_of(version_of(model))
    assert "standard error is zero" in card["unavailable"]["t_values.y0"]
    assert card["log_likelihood"]["y0"] is None
    assert card["t_values"]["y1"]["x1"] is not None


def test_columns_that_do_not_vary_leave_nothing_to_test() -> None:
    card = card_of(version_of(model_of(np.full((40, 2), 3.0), Y)))
    assert card["model_degrees_of_freedom"] == 0
    assert "no coefficient" in card["unavailable"]["f_tests.*.f"]


def test_units_at_the_end_of_the_range_give_null_and_not_zero() -> None:
    card = card_of(version_of(model_of(X, 1e-170 * Y)), include="covariance")
    assert card["metrics"]["mse"] is None
    assert "rmse" in card["unavailable"]["metrics.mse"]
    assert card["covariance"]["matrices"]["y0"][1][1] is None
    assert "covariance.matrices.*.x0" in card["unavailable"]


def test_many_dependencies_are_counted_and_not_listed() -> None:
    x = RANDOM.normal(size=(10, 150))
    card = card_of(version_of(model_of(x, x[:, :1])))
    assert card["linear_dependencies"] is None
    assert card["unavailable"]["linear_dependencies"].startswith("There are 141 dependencies")


@pytest.mark.parametrize(("columns", "targets", "refused"), [(499, 1, False), (500, 1, True), (499, 11, True)])
def test_covariances_are_given_for_a_bounded_number_of_coefficients(columns: int, targets: int, refused: bool) -> None:
    x = RANDOM.normal(size=(40, columns))
    version = version_of(replace(model_of(x, RANDOM.normal(size=(40, targets))), inference_unavailable="a reason"))
    if refused:
        with pytest.raises(InvalidInput) as error:
            model_to_view(version, current=True, include="covariance")
        assert [detail.parameter for detail in error.value.details] == ["include"]
    else:
        assert model_to_view(version, current=True, include="covariance")["covariance"] is None


def test_a_card_of_a_decomposed_design_reserves_less_memory_and_takes_no_more() -> None:
    x = RANDOM.normal(size=(400, 300))
    x[:, -20:] = x[:, :20]  # the null space takes memory, too
    version = version_of(model_of(x, x[:, :2] + RANDOM.normal(size=(400, 2))))
    model = replace(version.model)  # without what the fit has computed
    before = view_bytes(model, None)
    model_to_view(replace(version, model=model), current=True)
    assert view_bytes(model, "covariance") == before

    tracemalloc.start()
    view = model_to_view(replace(version, model=model), current=True)
    orjson.dumps(view, option=orjson.OPT_SERIALIZE_NUMPY)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < view_bytes(model, None) < before / 2


def wide_version(solver: Exact = FIT, *, dependent: bool = False) -> Version:
    """A version with a category of 502 levels and a number, which may depend on the levels."""
    codes = np.arange(1200) % 502
    number = codes * 1.0 if dependent else np.random.default_rng(1).normal(size=1200)
    y = (np.random.default_rng(2).normal(size=1200) + number)[:, np.newaxis]
    x = np.column_stack([codes[:, np.newaxis] == np.arange(1, 502), number])
    levels = tuple(f"level {code:03}" for code in range(502))
    table = TableSchema((Column("site", "category", levels), Column("b")), (Column("y0"),))
    version = version_of(model_of(x, y, solver=solver), solver)
    card = replace(version.card, features=("site", "b"), table=table)
    # The design of a stored model is not decomposed.
    model = replace(version.model, features=table.encoded_features, stored_rank=card.rank)
    return replace(version, card=card, model=model)


def test_the_card_of_a_wide_design_has_inference_without_a_decomposition() -> None:
    version = wide_version(dependent=True)
    card = model_to_view(version, current=True)
    assert (card["rank"], card["model_degrees_of_freedom"], card["residual_degrees_of_freedom"]) == (502, 501, 698)
    assert card["p_values"]["y0"]["intercept"] is not None
    for field in ("linear_dependencies", "category_tests", "marginal_means"):
        assert card[field] is None
        assert "at most 500 columns" in card["unavailable"][field]
    assert not version.model.has_decomposed_design


def test_the_card_of_a_wide_design_of_full_rank_has_no_dependencies() -> None:
    card = card_of(wide_version())
    assert card["linear_dependencies"] == []
    assert card["variance_inflation_factors"]["b"] > 1


def test_the_card_of_a_wide_ridge_fit_withholds_what_needs_singular_values() -> None:
    version = wide_version(Exact(l2=1.0))
    card = card_of(version)
    for field in ("effective_degrees_of_freedom", "variance_inflation_factors"):
        assert card[field] is None
        assert "at most 500 columns" in card["unavailable"][field]
    assert not version.model.has_decomposed_design


def category_version(solver: Exact = FIT) -> Version:
    """A version with a category of three levels, of which no row has the last, and a number."""
    x = np.column_stack([A > 3, np.zeros(40), B])
    table = TableSchema(
        (Column("site", "category", ("east", "north", "west")), Column("b")), (Column("y0"), Column("y1"))
    )
    version = version_of(model_of(x, Y, solver=solver))
    model = replace(version.model, features=table.encoded_features)
    return replace(version, card=replace(version.card, features=("site", "b"), table=table), model=model)


def test_a_category_has_a_joint_test_and_a_mean_for_each_level() -> None:
    card = card_of(category_version())
    assert list(card["coefficients"]["y0"]) == ["site[north]", "site[west]", "b"]
    test = card["category_tests"]["y0"]["site"]
    assert (test["degrees_of_freedom"], test["p_value"] < 0.05) == (1, True)
    means = card["marginal_means"]["y0"]["site"]
    east = card["intercept"]["y0"] + card["coefficients"]["y0"]["b"] * B.mean()
    assert means["east"]["mean"] == pytest.approx(east)
    assert means["east"]["lower"] < means["east"]["mean"] < means["east"]["upper"]
    assert means["west"] == {"mean": None, "lower": None, "upper": None}
    assert card["table"]["features"][0]["reference"] == "east"


def test_a_ridge_fit_has_means_of_categories_but_no_tests() -> None:
    card = card_of(category_version(Exact(l2=1.0)))
    assert card["category_tests"] is None
    east = card["marginal_means"]["y0"]["site"]["east"]
    assert (east["mean"] is None, east["lower"], east["upper"]) == (False, None, None)


def test_a_model_without_categories_has_no_tests_or_means_of_them() -> None:
    card = card_of(version_of(model_of(X, Y)))
    assert (card["category_tests"], card["marginal_means"]) == ({}, {})
