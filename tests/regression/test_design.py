"""The rank of a design, the row space of its rows and the degrees of freedom of a penalty."""

import numpy as np
import pytest

from app.regression.design import Design
from app.regression.sufficient_statistics import SufficientStatistics


def test_whitened_deviations_are_infinite_where_they_leave_the_span_of_the_rows() -> None:
    x = np.array([[1.0, 2.0], [2.0, 4.0], [4.0, 8.0]])
    design = Design.of(SufficientStatistics.from_rows(x, x))
    lengths = (design.whiten(np.array([[1.0, 2.0], [1.0, -2.0], [0.0, 0.0]])) ** 2).sum(axis=1)
    assert lengths[0] == pytest.approx(1 / 14 * 3)
    assert lengths[1] == np.inf
    assert lengths[2] == 0


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 0.5, 20.0])
def test_effective_coefficients_are_the_trace_of_the_hat_matrix(intercept: bool, l2: float) -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(30, 3)) * [1, 10, 0.1] + 2
    x = np.column_stack([x, x[:, 0] + x[:, 1]])
    columns = (x - x.mean(axis=0)) if intercept else x
    unit = columns / np.sqrt((columns**2).mean(axis=0))
    hat = unit @ np.linalg.pinv(unit.T @ unit + l2 * np.eye(4), rcond=1e-10) @ unit.T

    found = Design.of(SufficientStatistics.from_rows(x, x[:, :1]), fit_intercept=intercept).effective_coefficients(l2)

    assert found == pytest.approx(np.trace(hat) + intercept, rel=1e-9)


@pytest.mark.parametrize(("away", "infinite"), [(1e-9, False), (1e-7, True), (-1e-7, True)])
@pytest.mark.parametrize("length", [1.0, 100.0, -100.0])
def test_a_row_leaves_the_span_from_eight_digits_of_its_length_on(away: float, infinite: bool, length: float) -> None:
    x = np.linspace(-1, 1, 25)[:, np.newaxis] * [1.0, 1.0]
    design = Design.of(SufficientStatistics.from_rows(x, x[:, :1]))
    norm = np.linalg.norm(x[:, 0])

    found = design.whiten(length * np.array([[1 + away, 1 - away]]))

    # The smallest length that counts is that of an average training row, 1 / sqrt(n) of the norm.
    assert np.isinf(found).any() == infinite
    if not infinite:
        assert (found**2).sum() == pytest.approx((length / norm) ** 2, rel=1e-6)


@pytest.mark.parametrize(("away", "infinite"), [(4e-9, False), (1e-8, True)])
def test_near_the_centre_an_average_row_is_the_measure_of_the_span(away: float, infinite: bool) -> None:
    x = np.linspace(-1, 1, 25)[:, np.newaxis] * [1.0, 1.0]
    design = Design.of(SufficientStatistics.from_rows(x, x[:, :1]))

    assert np.isinf(design.whiten(np.array([[away, -away]]))).any() == infinite


@pytest.mark.parametrize(("centre", "moved", "infinite"), [(-1e6, 1e-3, False), (-1e6, -0.1, True), (1e6, 0.1, True)])
def test_a_row_leaves_the_span_if_a_constant_column_moves(centre: float, moved: float, infinite: bool) -> None:
    x = np.column_stack([np.linspace(-1, 1, 25), np.full(25, centre), np.full(25, 3.0)])
    design = Design.of(SufficientStatistics.from_rows(x, x[:, :1]))

    found = design.whiten(np.array([[0.5, 0.0, 0.0], [0.5, moved, 0.0]]))

    assert np.isfinite(found[0]).all()
    assert np.isinf(found[1]).any() == infinite


def test_without_an_intercept_a_column_of_zeros_must_stay_zero() -> None:
    x = np.column_stack([np.linspace(1, 2, 25), np.zeros(25)])
    design = Design.of(SufficientStatistics.from_rows(x, x[:, :1]), fit_intercept=False)

    found = design.whiten(np.array([[0.5, 0.0], [0.5, 1e-12]]))

    assert np.isfinite(found[0]).all()
    assert np.isinf(found[1]).any()


@pytest.mark.parametrize("decomposed_first", [True, False])
def test_the_norms_of_whitened_rows_and_the_rank_are_the_same_with_and_without_a_decomposition(
    decomposed_first: bool,
) -> None:
    x = np.random.default_rng(0).normal(size=(30, 4)) @ np.diag([1, 1e3, 1, 1])
    for columns, rank in ((x, 5), (np.column_stack([x, x[:, 0] - x[:, 1]]), 5)):
        design = Design.of(SufficientStatistics.from_rows(columns, x[:, :1]))
        rows = columns[:5] - columns.mean(axis=0)
        rows[4, 4:] += 1
        if decomposed_first:
            design.whiten(rows)

        assert design.lengths(rows) == pytest.approx(np.linalg.norm(design.whiten(rows), axis=1), rel=1e-10)
        assert design.rank == rank
