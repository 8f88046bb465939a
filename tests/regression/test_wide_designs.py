"""Wide designs, which are decomposed without singular values, agree with those of which these are computed."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from trained import model_from

from app.regression import design as design_module
from app.regression.category_tests import joint_f_test, marginal_means
from app.regression.dependencies import linear_dependencies
from app.regression.design import Design
from app.regression.least_squares import Fit, fit
from app.regression.rank_revealing import RankRevealing
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics

Array = NDArray[np.float64]
COLUMNS = 40


@dataclass(frozen=True)
class Rows:
    x: Array
    dependencies: int = 0


def rows_of(kind: str) -> Rows:
    random = np.random.default_rng(0)
    if kind == "normal":
        return Rows(random.normal(size=(2 * COLUMNS, COLUMNS)) * 10.0 ** random.integers(-5, 5, COLUMNS) + 3)
    if kind == "few rows":
        return Rows(random.normal(size=(30, COLUMNS)), COLUMNS - 29)
    codes = random.integers(0, COLUMNS, 8 * COLUMNS)
    codes[:COLUMNS] = np.arange(COLUMNS)
    numbers = random.normal(size=(len(codes), 3)) * [1, 100, 1e-3] + 7
    x = np.column_stack([numbers[:, 0], codes[:, np.newaxis] == np.arange(1, COLUMNS), numbers[:, 1:]])
    if kind == "levels":
        return Rows(x)
    constant_by_level = random.normal(size=COLUMNS)[codes]
    return Rows(np.column_stack([constant_by_level, x, np.full(len(x), 4.0), 2 * x[:, 0] + 1]), 3)


KINDS = ("normal", "few rows", "levels", "dependent levels")


def fits(kind: str, solver: Exact, monkeypatch: pytest.MonkeyPatch) -> tuple[SufficientStatistics, Fit, Fit, int]:
    """Return the statistics of rows, their fit, their fit by singular values, and the number of dependencies."""
    rows = rows_of(kind)
    random = np.random.default_rng(1)
    y = rows.x @ random.normal(size=(rows.x.shape[1], 2)) + random.normal(size=(len(rows.x), 2))
    statistics = SufficientStatistics.from_rows(rows.x, y)
    monkeypatch.setattr(design_module, "WIDE", 10)
    found = fit(statistics, solver)
    monkeypatch.setattr(design_module, "WIDE", 10_000)
    expected = fit(statistics, solver)
    assert (found.design._revealed is None, expected.design._revealed is None) == (False, True)
    return statistics, found, expected, rows.dependencies


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", [Exact(), Exact(l2=3.0), Exact(fit_intercept=False)])
def test_a_wide_design_gives_the_numbers_of_its_singular_values(
    kind: str, solver: Exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, found, expected, missing = fits(kind, solver, monkeypatch)

    assert found.design.rank == expected.design.rank
    if solver.fit_intercept:
        assert found.design.rank == found.design.unit_factor.shape[1] + 1 - missing
    assert_allclose(found.coef * found.design.norms, expected.coef * expected.design.norms, rtol=1e-8, atol=1e-8)
    assert_allclose(found.intercept, expected.intercept, rtol=1e-8, atol=1e-9)
    assert_allclose(found.unscaled_errors, expected.unscaled_errors, rtol=1e-8)
    assert_allclose(found.residual_norms, expected.residual_norms, rtol=1e-8, atol=1e-9)
    for l2 in (0.0, 2.0):
        assert found.design.penalised_condition(l2) == pytest.approx(expected.design.penalised_condition(l2), rel=1e-9)
        effective = expected.design.effective_coefficients(l2)
        assert found.design.effective_coefficients(l2) == pytest.approx(effective, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wide_design_measures_rows_and_dependencies_as_its_singular_values_do(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics, found, expected, _ = fits(kind, Exact(), monkeypatch)
    deviations = np.random.default_rng(2).normal(size=(5, statistics.features)) * found.design.norms
    deviations[:3] = (rows_of(kind).x - statistics.mean[: statistics.features])[:3]

    assert_allclose(found.design.lengths(deviations), expected.design.lengths(deviations), rtol=1e-8)
    assert np.isinf(found.design.lengths(deviations)[3:]).all() == (not expected.design.full_rank)
    found_sets = linear_dependencies(statistics, found.design)
    if kind != "few rows":
        assert found_sets == linear_dependencies(statistics, expected.design)
    assert len(found_sets) == found.design.null_space.shape[1]


@pytest.mark.parametrize("kind", ["levels", "dependent levels"])
def test_a_category_of_a_wide_design_has_the_same_tests_and_means(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics, _, _, missing = fits(kind, Exact(), monkeypatch)
    expected = model_from(statistics, Exact())
    monkeypatch.setattr(design_module, "WIDE", 10)
    model = model_from(statistics, Exact())
    block = slice(1 + missing // 3, COLUMNS + missing // 3)

    test, by_values = joint_f_test(model, block), joint_f_test(expected, block)
    assert test.hypotheses == by_values.hypotheses
    assert_allclose(test.f_values, by_values.f_values, rtol=1e-8)
    means, means_by_values = marginal_means(model, block), marginal_means(expected, block)
    assert_allclose(means.means, means_by_values.means, rtol=1e-8)
    assert_allclose(means.lower, means_by_values.lower, rtol=1e-7)  # type: ignore[arg-type]


def test_a_rank_that_is_not_clear_is_left_to_the_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design_module, "WIDE", 10)
    random = np.random.default_rng(3)
    u, _ = np.linalg.qr(random.normal(size=(COLUMNS, COLUMNS)))
    ranks = []
    for smallest in (1e-6, 2e-12, 1e-14, 0.0):
        x = random.normal(size=(2 * COLUMNS, COLUMNS))
        x[:, -1] = x[:, :-1] @ u[0, :-1] + smallest * x[:, -1]
        design = Design.of(SufficientStatistics.from_rows(x, x[:, :1]))
        singular_values = np.asarray(np.linalg.svd(design.unit_factor, compute_uv=False), dtype=np.float64)
        assert design.rank == design.are_nonzero(singular_values).sum() + 1
        assert (design._revealed is None) == (smallest == 2e-12)
        ranks.append(design.rank)
    assert all(larger >= smaller for larger, smaller in pairwise(ranks))


def test_a_decomposition_judges_no_singular_value_between_the_bounds() -> None:
    factor = np.diag([1.0, 1.0, 1e-3])
    assert RankRevealing.of(factor, zero=1e-5, nonzero=1e-2) is None
    assert RankRevealing.of(np.zeros((3, 3)), zero=1e-5, nonzero=1e-2) is None
    found = RankRevealing.of(factor, zero=1e-2, nonzero=1e-1)
    assert found is not None
    assert found.rank == 2
