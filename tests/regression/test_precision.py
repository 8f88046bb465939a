"""The digits that rows cost when they are taken out: loss and bounds against their definitions, on dense matrices."""

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.linalg import eigh

from app.regression.downdate import downdate
from app.regression.errors import InvalidData
from app.regression.least_squares import fit
from app.regression.precision import PRECISION_LOST, check_precision, precision_bounds, precision_loss
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array: TypeAlias = NDArray[np.float64]


def some_rows(seed: int, rows: int = 30) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 2)) * [1, 50] + np.array([3.0, -200.0])
    return x, x @ random.normal(size=(2, 2)) + random.normal(size=(rows, 2)) * [1, 20] + 7


def taken_out(rows: int = 30, far: float = 100.0, gap: float | None = None) -> SufficientStatistics:
    """Statistics of these rows, to which five rows that lie this many times as far out were added and taken out."""
    x, y = some_rows(1, rows + 5)
    if gap is not None:
        x[:, 1] = x[:, 0] + gap * x[:, 1]
    for columns in (x, y):
        columns[rows:] = columns[:rows].mean(axis=0) + far * (columns[rows:] - columns[:rows].mean(axis=0))
    return downdate(summarise([TrainingBatch(x, y)]), summarise([TrainingBatch(x[rows:], y[rows:])]))


def grams(statistics: SufficientStatistics) -> tuple[Array, Array]:
    return statistics.cumulative_factor.T @ statistics.cumulative_factor, statistics.factor.T @ statistics.factor


def test_the_loss_is_the_largest_ratio_of_sums_of_squares_over_all_directions() -> None:
    statistics = taken_out()
    expected = eigh(*grams(statistics), eigvals_only=True).max()

    assert precision_loss(statistics) == pytest.approx(expected, rel=1e-6)
    assert expected > 100


def test_rows_lower_the_loss_and_decay_leaves_it() -> None:
    statistics = taken_out()
    others = summarise([TrainingBatch(*some_rows(2, 300))])

    assert precision_loss(others) == 1
    assert precision_loss(statistics.merge(others)) < 0.2 * precision_loss(statistics)
    assert precision_loss(statistics.discounted_by(0.1)) == pytest.approx(precision_loss(statistics), rel=1e-9)


def test_dependent_columns_do_not_count_as_lost() -> None:
    x, y = some_rows(3)
    x = np.column_stack([x, x[:, 0], np.full(len(x), 5.0)])

    found = downdate(summarise([TrainingBatch(x, y)]), summarise([TrainingBatch(x[25:], y[25:])]))

    assert 1 < precision_loss(found) < 10


def test_a_direction_of_which_nothing_is_left_has_a_loss_beyond_all_digits() -> None:
    statistics = taken_out()
    factor = statistics.factor.copy()
    factor[:, 1] = 0.0

    assert precision_loss(replace(statistics, factor=factor)) > 1e20


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0])
@pytest.mark.parametrize(("rows", "far"), [(30, 100.0), (30, 3e5), (3, 30.0)])
def test_the_bounds_are_those_of_their_definition(intercept: bool, l2: float, rows: int, far: float) -> None:
    statistics = taken_out(rows=rows, far=far)
    solver = Exact(l2=l2, fit_intercept=intercept)
    fitted = fit(statistics, solver)
    held, gram = grams(statistics)
    p, shift, scale = 2, statistics.shift, statistics.scale
    sizes = np.sqrt(held.diagonal())
    if not intercept:  # the columns about zero are rounded too
        sizes[1:] += np.abs(shift / scale) * sizes[0]

    def error(a: Array, b: Array) -> float:
        ha, hb = np.sqrt(a @ held @ a), np.sqrt(b @ held @ b)
        return float(statistics.factor_error * (ha * (np.abs(b) @ sizes) + hb * (np.abs(a) @ sizes)))

    # Each of [1, x] as a combination of the factor's columns [1, (x - shift) / scale].
    design = np.zeros((5, 1 + p))
    design[0] = [1, *shift[:p]]
    design[1 : p + 1, 1:] = np.diag(scale[:p])
    design = design if intercept else design[:, 1:]
    products = design.T @ gram @ design
    penalised = products + np.diag(
        [0.0] * intercept + (l2 / statistics.effective_rows * fitted.design.norms**2).tolist()
    )
    directions = design @ np.linalg.inv(penalised)

    found = precision_bounds(statistics, fitted, l2=l2)

    assert found is not None
    for target in range(2):
        y = np.zeros(5)
        y[1 + p + target] = scale[p + target]
        y[0] = shift[p + target]
        coefficients = np.concatenate([fitted.intercept[target : target + 1], fitted.coef[target]])
        residual = y - design @ (coefficients if intercept else coefficients[1:])
        squares = fitted.residual_norms[target] ** 2
        of_squares = error(residual, residual) / squares
        assert found.rss[target] == pytest.approx(of_squares, rel=1e-4)
        mean = y - np.eye(5)[0] * (gram[0] @ y) / gram[0, 0] if intercept else y
        assert found.tss[target] == pytest.approx(error(mean, mean) / (mean @ gram @ mean), rel=1e-4)
        deviation = np.sqrt(max(1 - of_squares, 0) * squares / max(rows - p - intercept, 1))
        off = np.array([error(residual, u) for u in directions.T])
        lengths = np.sqrt([u @ gram @ u for u in directions.T])
        with np.errstate(divide="ignore"):
            expected = off / (deviation * lengths)
        assert_allclose(found.coefficients[target, 0 if intercept else 1 :], expected, rtol=1e-3)
    assert np.isnan(found.coefficients[:, 0]).all() != intercept


def test_a_penalty_spares_the_direction_whose_digits_are_lost() -> None:
    statistics = taken_out(far=1e4, gap=1e-5)
    plain, penalised = fit(statistics, Exact()), fit(statistics, Exact(l2=1e9))

    with pytest.raises(InvalidData) as failed:
        check_precision(statistics, precision_bounds(statistics, plain))
    assert failed.value.message == PRECISION_LOST
    with pytest.raises(InvalidData):
        check_precision(statistics, precision_bounds(statistics, penalised))
    assert check_precision(statistics, precision_bounds(statistics, penalised, l2=1e9)) is None


def test_a_version_without_rows_that_were_taken_out_has_no_bounds() -> None:
    statistics = summarise([TrainingBatch(*some_rows(4))])

    assert precision_bounds(statistics, fit(statistics, Exact())) is None
    assert check_precision(statistics, None) is None


def test_the_precision_of_rows_that_were_taken_out_untracked_is_unknown() -> None:
    statistics = replace(summarise([TrainingBatch(*some_rows(4))]), untracked=True)

    assert "before the precision that this costs was recorded" in str(check_precision(statistics, None))


def test_a_second_removal_keeps_what_the_first_one_cost() -> None:
    statistics = taken_out()
    x, y = some_rows(1, 35)
    part = summarise([TrainingBatch(x[:3], y[:3])])

    found = downdate(statistics, part)

    assert found.removed is not None
    moved = part.rescaled_factor(statistics.shift, statistics.scale)
    assert statistics.removed is not None
    expected = statistics.removed.T @ statistics.removed + moved.T @ moved
    norms = np.sqrt(expected.diagonal())
    assert_allclose(found.removed.T @ found.removed / np.outer(norms, norms), expected / np.outer(norms, norms),
                    rtol=0, atol=1e-9)  # fmt: skip
    assert found.operations == statistics.operations + 1
