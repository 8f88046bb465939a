"""How often a model is preferred to another one that is as good, and to a better one."""

import numpy as np
import pytest

from app.regression.cross_validation import CrossValidation, Folds
from app.regression.folds import divide
from app.regression.least_squares import fit
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import Array, SufficientStatistics
from app.regression.training_batch import TrainingBatch

FEATURES = 3
# Coefficients of 1 that are shrunk by this have a squared error of 0.1 error variances in all.
SHRINKAGE = np.sqrt(0.1 / FEATURES)


def some_rows(random: np.random.Generator, rows: int) -> tuple[Array, Array]:
    x = random.normal(size=(rows, FEATURES))
    return x, x.sum(axis=1, keepdims=True) + random.normal(size=(rows, 1))


def ridge_ten_percent_worse(rows: int) -> Exact:
    return Exact(l2=rows * SHRINKAGE / (1 - SHRINKAGE))


def is_preferred(
    seen: SufficientStatistics, new: tuple[Array, Array], solver: Exact, seed: int, *, update: bool = False
) -> bool:
    """Return whether a model of the new rows, or of all, is preferred to the model of the rows that were seen."""
    current = fit(seen, Exact())
    statistics = {
        fold: SufficientStatistics.from_rows(part.x, part.y) for fold, part in divide(TrainingBatch(*new), 10, seed, 0)
    }
    folds = Folds(statistics, base=seen if update else None)
    whole = seen.merge(folds.all_rows) if update else folds.all_rows
    return folds.validate(solver).is_as_good_as(
        folds.all_rows.residual_norms(current.coef, current.intercept),
        coefficients=fit(whole, solver).design.effective_coefficients(solver.l2),
        share=folds.all_rows.total_weight / whole.total_weight,
    )


@pytest.mark.parametrize("rows", [30, *(pytest.param(rows, marks=pytest.mark.slow) for rows in (300, 3000))])
def test_half_of_the_models_that_are_as_good_are_preferred(rows: int) -> None:
    random = np.random.default_rng(rows)
    runs = 75
    preferred = 0
    for seed in range(runs):
        seen = SufficientStatistics.from_rows(*some_rows(random, rows))
        preferred += is_preferred(seen, some_rows(random, rows), Exact(), seed)

    assert 0.35 < preferred / runs < 0.65


def test_half_of_the_small_updates_are_preferred() -> None:
    random = np.random.default_rng(0)
    runs = 75
    preferred = 0
    for seed in range(runs):
        seen = SufficientStatistics.from_rows(*some_rows(random, 3000))
        preferred += is_preferred(seen, some_rows(random, 100), Exact(), seed, update=True)

    assert 0.35 < preferred / runs < 0.65


@pytest.mark.parametrize("update", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_model_with_an_error_ten_percent_larger_is_rarely_preferred(update: bool) -> None:
    random = np.random.default_rng(0)
    runs = 60
    preferred = 0
    for seed in range(runs):
        seen = SufficientStatistics.from_rows(*some_rows(random, 3000))
        solver = ridge_ten_percent_worse(6000 if update else 3000)
        preferred += is_preferred(seen, some_rows(random, 3000), solver, seed, update=update)

    assert preferred / runs < 0.1


def test_two_perfect_models_are_as_good_as_each_other_and_an_error_is_worse_than_none() -> None:
    perfect = CrossValidation(5, np.array([0.0]), np.array([1.0]), 20.0, 20.0)
    faulty = CrossValidation(5, np.array([0.1]), np.array([1.0]), 20.0, 20.0)

    assert perfect.is_as_good_as(np.array([0.0]), coefficients=2, share=1)
    assert not faulty.is_as_good_as(np.array([0.0]), coefficients=2, share=1)
