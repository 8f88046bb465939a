"""Joint F tests and marginal means of a category."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from regression.categories import block_of, encoded, rows_of, summary
from trained import model_from

from app.regression.category_tests import joint_f_test, marginal_means
from app.regression.column_changes import rebased
from app.regression.downdate import downdate
from app.regression.fit import ArrayData, fit_model
from app.regression.hypothesis_tests import infer
from app.regression.linear_model import LinearModel
from app.regression.solvers import Exact

Array = NDArray[np.float64]

LEVELS = [0, 1, 2, 3]
BLOCK = block_of(LEVELS)
X, CODES, Y = rows_of(5, 80, 4, numbers=3)
COLUMNS = encoded(X, CODES, LEVELS)
WEIGHTS = np.random.default_rng(5).uniform(0.5, 3, 80)


def model_of(columns: Array, y: Array, weights: Array | None = None, *, fit_intercept: bool = True) -> LinearModel:
    return model_from(summary(columns, y, BLOCK, weights), Exact(fit_intercept=fit_intercept))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_joint_test_and_the_marginal_means_are_those_of_statsmodels(
    weights: Array | None, fit_intercept: bool
) -> None:
    model = model_of(COLUMNS, Y, weights, fit_intercept=fit_intercept)

    test, means = joint_f_test(model, BLOCK), marginal_means(model, BLOCK, level=0.9)

    rows = np.tile(np.average(COLUMNS, axis=0, weights=weights), (4, 1))
    rows[:, BLOCK] = np.eye(4)[:, 1:]
    design, rows = (sm.add_constant(z, has_constant="add") if fit_intercept else z for z in (COLUMNS, rows))
    tested = np.eye(design.shape[1])[int(fit_intercept) + 1 : int(fit_intercept) + 4]
    assert (test.hypotheses, test.degrees_of_freedom) == (3, 80 - design.shape[1])
    assert means.lower is not None
    assert means.upper is not None
    for target in range(2):
        result = sm.WLS(Y[:, target], design, 1.0 if weights is None else weights).fit()
        expected = result.f_test(tested)
        assert_allclose(test.f_values[target], expected.fvalue, rtol=1e-9)
        assert_allclose(test.p_values[target], expected.pvalue, rtol=1e-9)
        frame = result.get_prediction(rows).summary_frame(alpha=0.1)
        assert_allclose(means.means[:, target], frame["mean"], rtol=1e-10)
        assert_allclose(means.lower[:, target], frame["mean_ci_lower"], rtol=1e-10)
        assert_allclose(means.upper[:, target], frame["mean_ci_upper"], rtol=1e-10)


def test_the_joint_test_of_one_column_is_its_t_test() -> None:
    model = model_of(COLUMNS, Y)
    inference = infer(model)

    test = joint_f_test(model, slice(2, 3))

    assert_allclose(test.f_values, inference.t_values[:, 3] ** 2, rtol=1e-10)
    assert_allclose(test.p_values, inference.p_values[:, 3], rtol=1e-9)


def test_the_joint_test_of_all_columns_is_the_f_test_of_the_model() -> None:
    model = model_of(COLUMNS, Y)
    inference = infer(model)

    test = joint_f_test(model, slice(None))

    assert_allclose(test.f_values, inference.f_values, rtol=1e-10)
    assert_allclose(test.p_values, inference.f_p_values, rtol=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2), st.integers(0, 2))
def test_a_design_of_lower_rank_is_compared_with_the_one_without_the_columns(
    seed: int, repeated: int, dependent: int
) -> None:
    random = np.random.default_rng(seed)
    x, codes, y = rows_of(seed, 60, 4, numbers=3)
    columns = encoded(x, codes, LEVELS)
    # Columns that depend on others, on the category, or on both.
    combined = [columns @ random.normal(size=columns.shape[1]) for _ in range(dependent)]
    columns = np.column_stack([columns, *([columns[:, 1]] * repeated), *combined, x[:, :1]])
    model = model_from(summary(columns, y, BLOCK), Exact())

    test = joint_f_test(model, BLOCK)

    design = np.column_stack([np.ones(60), columns - columns.mean(axis=0)])
    without = np.delete(design, np.arange(2, 5), axis=1)
    ranks, residuals = [], []
    for matrix in (design, without):
        solution, _, rank, _ = np.linalg.lstsq(matrix / np.linalg.norm(matrix, axis=0).clip(1e-300), y, rcond=1e-12)
        ranks.append(int(rank))
        residuals.append(((y - matrix / np.linalg.norm(matrix, axis=0).clip(1e-300) @ solution) ** 2).sum(axis=0))
    assert test.hypotheses == ranks[0] - ranks[1]
    if test.hypotheses == 0:
        assert np.isnan(test.f_values).all()
        assert np.isnan(test.p_values).all()
        return
    expected = (residuals[1] - residuals[0]) / test.hypotheses / (residuals[0] / (60 - ranks[0]))
    assert_allclose(test.f_values, expected, rtol=1e-6, atol=1e-9)


def test_the_tests_do_not_depend_on_the_reference_level() -> None:
    statistics = summary(COLUMNS, Y, BLOCK)
    first, second = (model_from(one, Exact()) for one in (statistics, rebased(statistics, BLOCK, 1)))

    assert_allclose(joint_f_test(first, BLOCK).f_values, joint_f_test(second, BLOCK).f_values, rtol=1e-10)
    means, others = marginal_means(first, BLOCK), marginal_means(second, BLOCK)
    order = [2, 1, 0, 3]
    assert_allclose(means.means[order], others.means, rtol=1e-10)
    assert means.lower is not None
    assert others.lower is not None
    assert_allclose(means.lower[order], others.lower, rtol=1e-10)


@pytest.mark.parametrize("emptied", [0, 2])
def test_a_level_without_rows_has_no_marginal_mean(emptied: int) -> None:
    out = emptied == CODES
    statistics = downdate(summary(COLUMNS, Y, BLOCK), summary(COLUMNS[out], Y[out], BLOCK), blocks=[BLOCK])
    model, afresh = model_from(statistics, Exact()), model_of(COLUMNS[~out], Y[~out])

    means, expected = marginal_means(model, BLOCK), marginal_means(afresh, BLOCK)

    assert_array_equal(np.isnan(means.means[:, 0]), np.arange(4) == emptied)
    assert_allclose(means.means, expected.means, rtol=1e-8)
    assert means.lower is not None
    assert expected.lower is not None
    assert_allclose(means.lower, expected.lower, rtol=1e-8)
    test = joint_f_test(model, BLOCK)
    assert test.hypotheses == 2
    assert_allclose(test.f_values, joint_f_test(afresh, BLOCK).f_values, rtol=1e-7)


def test_a_penalty_leaves_the_marginal_means_without_intervals() -> None:
    model = model_from(summary(COLUMNS, Y, BLOCK), Exact(l2=1.0))

    means = marginal_means(model, BLOCK)

    rows = np.tile(COLUMNS.mean(axis=0), (4, 1))
    rows[:, BLOCK] = np.eye(4)[:, 1:]
    assert_allclose(means.means, model.predict(rows), rtol=1e-10)
    assert means.lower is means.upper is None


def test_with_terms_the_marginal_mean_is_the_average_prediction_of_all_rows_at_the_level() -> None:
    features = tuple(f"c{index}" for index in range(6))
    terms = (*features, "c0^2", "c0:c4")
    model = fit_model(ArrayData(COLUMNS, Y, features, ("a", "b"), terms=terms, blocks=(BLOCK,)), Exact()).model

    means = marginal_means(model, BLOCK)

    for level in range(4):
        rows = COLUMNS.copy()
        rows[:, BLOCK] = np.eye(4)[level, 1:]
        assert_allclose(means.means[level], model.predict(rows).mean(axis=0), rtol=1e-9)
