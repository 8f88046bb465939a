import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy import stats
from trained import model_of

from app.regression.hypothesis_tests import covariances, infer, variance_inflation
from app.regression.solvers import Exact

Array = NDArray[np.float64]

RANDOM = np.random.default_rng(0)
A, B, C = RANDOM.normal(2, 1, (3, 50))
WEIGHTS = RANDOM.uniform(0.5, 3, 50)
Y = (3 * A - B + 0.5 * C + RANDOM.normal(size=50))[:, np.newaxis]
DUMMIES = np.eye(3)[RANDOM.integers(0, 3, 50)]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(
    ("columns", "fit_intercept", "identifiable"),
    [
        ((A, B, C, 2 * A), True, [True, False, True, True, False]),
        ((A, B, C, A - B), True, [True, False, False, True, False]),
        ((A, B, *DUMMIES.T), True, [False, True, True, False, False, False]),
        ((A, B, np.full(50, 7.0)), True, [False, True, True, False]),
        ((A, B, C, 2 * A), False, [False, True, True, False]),
        ((A, *DUMMIES.T, np.ones(50)), False, [True, False, False, False, False]),
    ],
)
def test_an_identifiable_coefficient_has_the_inference_of_any_full_rank_choice(
    columns: tuple[Array, ...], fit_intercept: bool, identifiable: list[bool], weights: Array | None
) -> None:
    x = np.column_stack(columns)
    model = model_of(x, Y, weights, solver=Exact(fit_intercept=fit_intercept))
    found = infer(model, level=0.9)
    matrix = covariances(model, found)[0]
    if not fit_intercept:
        matrix = matrix[1:, 1:]

    # By the pseudo-inverse of the rows themselves.
    root = np.sqrt(np.ones(50) if weights is None else weights / weights.mean())[:, np.newaxis]
    design = (np.column_stack([np.ones(50), x]) if fit_intercept else x) * root
    inverse = np.linalg.pinv(design, rcond=1e-10)
    coefficients = inverse @ (root * Y)
    freedom = 50 - np.linalg.matrix_rank(design)
    variance = float(((root * Y - design @ coefficients) ** 2).sum() / freedom)
    expected = variance * inverse @ inverse.T
    errors = np.sqrt(np.diag(expected))

    kept = slice(0 if fit_intercept else 1, None)
    known = np.array(identifiable)
    for values in (found.standard_errors, found.t_values, found.p_values, found.lower, found.upper):
        assert np.isfinite(values[0, kept]).tolist() == identifiable
    assert_allclose(found.standard_errors[0, kept][known], errors[known], rtol=1e-9)
    t = coefficients[known, 0] / errors[known]
    assert_allclose(found.t_values[0, kept][known], t, rtol=1e-8)
    assert_allclose(found.p_values[0, kept][known], 2 * stats.t.sf(np.abs(t), freedom), rtol=1e-7)
    half = stats.t.ppf(0.95, freedom) * errors[known]
    assert_allclose(found.upper[0, kept][known], coefficients[known, 0] + half, rtol=1e-8)
    assert_allclose(matrix[np.ix_(known, known)], expected[np.ix_(known, known)], rtol=1e-8, atol=1e-14)
    assert np.isnan(matrix[~known]).all()


def test_f_counts_the_rank_and_not_the_columns() -> None:
    expected = infer(model_of(np.column_stack([A, B]), Y))
    found = infer(model_of(np.column_stack([A, B, A + B, np.full(50, 3.0)]), Y))
    assert_allclose(found.f_values, expected.f_values, rtol=1e-12)
    assert_allclose(found.f_p_values, expected.f_p_values, rtol=1e-9)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_variance_inflation_is_that_of_weighted_regressions_of_each_column_on_the_others(fit_intercept: bool) -> None:
    x = np.column_stack([A, B, C + A])
    root = np.sqrt(WEIGHTS)
    design = np.column_stack([np.ones(50), x]) if fit_intercept else x
    expected = []
    for index in range(3):
        others = np.delete(design, index + fit_intercept, axis=1) * root[:, np.newaxis]
        column = x[:, index]
        total = column - (WEIGHTS @ column / WEIGHTS.sum() if fit_intercept else 0.0)
        left = root * column - others @ np.linalg.lstsq(others, root * column, rcond=None)[0]
        expected.append(float(((root * total) ** 2).sum() / (left**2).sum()))
    solver = Exact(fit_intercept=fit_intercept)
    assert_allclose(variance_inflation(model_of(x, Y, WEIGHTS, solver=solver)), expected, rtol=1e-9)
    ridge = Exact(fit_intercept=fit_intercept, l2=3.0)
    assert_allclose(variance_inflation(model_of(x, Y, WEIGHTS, solver=ridge)), expected, rtol=1e-9)


def test_variance_inflation_is_unknown_only_for_columns_that_depend_on_others() -> None:
    found = variance_inflation(model_of(np.column_stack([A, B, 2 * A, np.full(50, 3.0)]), Y))
    assert np.isnan(found).tolist() == [True, False, True, True]
    assert found[1] == pytest.approx(variance_inflation(model_of(np.column_stack([A, B]), Y))[1], rel=1e-9)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 1e-9, 0.3, 50.0, 1e6])
def test_effective_degrees_of_freedom_are_the_trace_of_the_hat_matrix(l2: float, fit_intercept: bool) -> None:
    x = np.column_stack([A, 1e6 * B, C, A + 1e-3 * B * C])
    model = model_of(x, Y, solver=Exact(l2=l2, fit_intercept=fit_intercept))
    with mpmath.workdps(60):
        means = [mpmath.fsum(column) / 50 for column in x.T] if fit_intercept else [mpmath.mpf(0)] * 4
        columns = mpmath.matrix([[x[i, j] - means[j] for j in range(4)] for i in range(50)])
        # The penalty is l2 on columns of unit variance, about zero without an intercept.
        gram = columns.T * columns
        penalty = mpmath.diag([l2 * gram[j, j] / 50 for j in range(4)])
        inverse = mpmath.inverse(gram + penalty)
        expected = mpmath.fsum((inverse * gram)[j, j] for j in range(4)) + fit_intercept
    assert model.design.effective_coefficients(l2) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("unit", [1e-150, 1e-100, 1e100, 1e150])
def test_covariances_follow_the_units_of_a_column(unit: float) -> None:
    x, scaled = np.column_stack([A, B]), np.column_stack([A * unit, B])
    plain, far = (model_of(rows, Y) for rows in (x, scaled))
    expected, found = covariances(plain, infer(plain))[0], covariances(far, infer(far))[0]
    assert_allclose(found[0, 1] * unit, expected[0, 1], rtol=1e-9)
    assert_allclose(found[1, 2] * unit, expected[1, 2], rtol=1e-9)
    assert_allclose(found[[0, 0, 2], [0, 2, 2]], expected[[0, 0, 2], [0, 2, 2]], rtol=1e-9)


@pytest.mark.parametrize("unit", [1e-160, 1e160])
def test_a_variance_beyond_64_bits_is_unknown_and_not_zero_or_infinite(unit: float) -> None:
    model = model_of(np.column_stack([A * unit, B]), Y)
    found = covariances(model, infer(model))[0]
    assert np.isnan(found).tolist() == [[False, False, False], [False, True, False], [False, False, False]]
