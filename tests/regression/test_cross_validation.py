"""Against the loop that refits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from app.regression.cross_validation import PATH, Folds
from app.regression.errors import InvalidData
from app.regression.folds import permutations
from app.regression.least_squares import fit
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summaries import summarise_folds
from app.regression.training_batch import TrainingBatch


def some_rows(seed: int, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 3)) * [1, 10, 0.1] + [0, 50, 3]
    return x, x @ random.normal(size=(3, 2)) + random.normal(size=(rows, 2))


def fold_of_each(rows: int, folds: int, seed: int = 0) -> NDArray[np.intp]:
    return permutations(folds, seed, 0, -(-rows // folds)).argsort(axis=1).ravel()[:rows]


def refitted(x: NDArray[np.float64], y: NDArray[np.float64], folds: int, solver: Exact) -> NDArray[np.float64]:
    total = np.zeros(y.shape[1])
    mine = fold_of_each(len(x), folds)
    for fold in range(min(folds, len(x))):
        kept = mine == fold if folds <= len(x) else np.arange(len(x)) == fold
        found = fit(SufficientStatistics.from_rows(x[~kept], y[~kept]), solver)
        total += ((y[kept] - x[kept] @ found.coef.T - found.intercept) ** 2).sum(axis=0)
    return total


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.integers(2, 12),
    st.lists(st.integers(0, 60), max_size=4),
    st.sampled_from([Exact(), Exact(l2=3.0), Exact(fit_intercept=False)]),
)
def test_folds_from_their_statistics_equal_the_loop_that_refits(
    seed: int, folds: int, cuts: list[int], solver: Exact
) -> None:
    x, y = some_rows(seed, 60)
    blocks = [TrainingBatch(*parts) for parts in zip(np.split(x, sorted(cuts)), np.split(y, sorted(cuts)), strict=True)]

    found = Folds(summarise_folds(blocks, folds)).validate(solver)

    expected = refitted(x, y, folds, solver)
    assert_allclose(found.residual_norms**2, expected, rtol=1e-9)
    assert found.mse == pytest.approx(expected.sum() / 120, rel=1e-9)
    centre = y.mean(axis=0) if solver.fit_intercept else 0.0
    assert_allclose(found.r2, 1 - expected / ((y - centre) ** 2).sum(axis=0), rtol=1e-9)


def test_the_chosen_penalty_has_the_smallest_cross_validated_error_of_the_path() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 1)) + 0.05 * random.normal(size=(30, 12))  # nearly collinear: a penalty helps
    y = x[:, :1] + random.normal(size=(30, 1))
    folds = Folds(summarise_folds([TrainingBatch(x, y)], 10))

    chosen = folds.choose_l2(Exact())

    errors = {l2: refitted(x, y, 10, replace(Exact(), l2=30 * l2)).sum() for l2 in PATH}
    assert chosen.l2 == pytest.approx(30 * min(errors, key=lambda l2: errors[l2]))
    assert chosen.l2 > 0


def test_a_single_row_cannot_be_validated() -> None:
    x, y = some_rows(0, 1)

    with pytest.raises(InvalidData, match="at least 2 rows"):
        Folds(summarise_folds([TrainingBatch(x, y)], 5))


def test_more_folds_than_rows_leave_one_row_out_each() -> None:
    x, y = some_rows(3, 8)

    found = Folds(summarise_folds([TrainingBatch(x, y)], 50)).validate(Exact())

    assert found.folds == 8
    assert_allclose(found.residual_norms**2, refitted(x, y, 8, Exact()), rtol=1e-9)


def test_a_validation_can_be_ended_before_each_fit_and_each_merge() -> None:
    x, y = some_rows(0, 60)
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    Folds(summarise_folds([TrainingBatch(x, y)], 5), step).choose_l2(Exact())
    assert steps == 4 + 3 + 3 + 3 + 5 * len(PATH)  # all folds, those before, those behind, both; each fit

    class Ended(Exception):
        pass

    def end() -> None:
        raise Ended

    with pytest.raises(Ended):
        Folds(summarise_folds([TrainingBatch(x, y)], 5), end).choose_l2(Exact())
