import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.regression.dependencies import Dependency, implicit_constant, linear_dependencies
from app.regression.design import Design
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array = NDArray[np.float64]

RANDOM = np.random.default_rng(0)
A, B, C, D = (RANDOM.normal(offset, 1, 60) for offset in (0.0, 3.0, -100.0, 1e4))
DUMMIES = np.eye(3)[RANDOM.integers(0, 3, 60)]


def dependencies(*columns: Array, fit_intercept: bool = True, weights: Array | None = None) -> list[Dependency]:
    x = np.column_stack(columns)
    statistics = summarise([TrainingBatch(x, x[:, :1], weights)])
    return linear_dependencies(statistics, Design.of(statistics, fit_intercept=fit_intercept))


def constant(*columns: Array) -> tuple[int, ...]:
    x = np.column_stack(columns)
    return implicit_constant(summarise([TrainingBatch(x, x[:, :1])]))


def test_independent_columns_have_no_dependency() -> None:
    assert dependencies(A, B, C, D) == []


def test_a_dependency_lists_the_columns_that_take_part_and_no_other() -> None:
    assert dependencies(A, B, C, A - 2 * B, D) == [Dependency((0, 1, 3))]


def test_units_do_not_matter_to_a_dependency() -> None:
    units = [1e-150, 1e12, 1.0, 1e-9]
    columns = [column * unit for column, unit in zip((A, B, C, A - 2 * B), units, strict=True)]
    assert dependencies(*columns) == [Dependency((0, 1, 3))]


def test_the_intercept_takes_part_if_the_sum_is_a_constant() -> None:
    assert dependencies(A, *DUMMIES.T, B) == [Dependency((1, 2, 3), intercept=True)]
    assert dependencies(A, B, A + 5) == [Dependency((0, 2), intercept=True)]
    assert dependencies(A, np.full(60, 0.1)) == [Dependency((1,), intercept=True)]


def test_a_column_of_zeros_depends_on_nothing() -> None:
    assert dependencies(A, np.zeros(60)) == [Dependency((1,))]
    assert dependencies(A, np.zeros(60), fit_intercept=False) == [Dependency((1,))]


def test_without_an_intercept_a_constant_column_is_one_like_others() -> None:
    assert dependencies(A, np.full(60, 7.0), fit_intercept=False) == []
    assert dependencies(A, np.full(60, 7.0), A - 2, fit_intercept=False) == [Dependency((0, 1, 2))]


def test_several_dependencies_are_separated() -> None:
    found = dependencies(A, B, C, D, A + B, C - D / 1024, np.full(60, 3.0))
    assert found == [Dependency((0, 1, 4)), Dependency((2, 3, 5)), Dependency((6,), intercept=True)]


@pytest.mark.parametrize("noise", [1e-4, 1e-8, 1e-11])
def test_columns_that_are_only_nearly_dependent_do_not_blur_a_dependency(noise: float) -> None:
    nearly = C + noise * RANDOM.normal(size=60)
    assert dependencies(A, B, C, nearly, A - 2 * B) == [Dependency((0, 1, 4))]


def test_weights_do_not_change_a_dependency() -> None:
    weights = RANDOM.uniform(0.01, 100, 60)
    assert dependencies(A, B, C, A - 2 * B, weights=weights) == [Dependency((0, 1, 3))]


@settings(max_examples=100)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1), st.booleans())
def test_dependencies_are_the_missing_ranks_and_minimal(p: int, extra: int, seed: int, fit_intercept: bool) -> None:
    random = np.random.default_rng(seed)
    base = random.integers(-3, 4, (30, p)).astype(float)
    x = np.hstack([base, base @ random.integers(-1, 2, (p, extra))]) + random.integers(0, 3, p + extra)
    design = np.hstack([np.ones((30, 1)), x]) if fit_intercept else x
    found = dependencies(*x.T, fit_intercept=fit_intercept)

    rank = int(np.linalg.matrix_rank(design))
    assert len(found) == design.shape[1] - rank
    for dependency in found:
        columns = x[:, dependency.columns]
        together = np.hstack([np.ones((30, 1)), columns]) if dependency.intercept else columns
        assert np.linalg.matrix_rank(together) == together.shape[1] - 1
        for left_out in range(together.shape[1]):
            others = np.delete(together, left_out, axis=1)
            assert np.linalg.matrix_rank(others) == others.shape[1]


def test_an_implicit_constant_is_found_with_the_columns_that_make_it() -> None:
    assert constant(A, *DUMMIES.T) == (1, 2, 3)
    assert constant(*DUMMIES.T, np.full(60, 2.0)) == (3,)
    assert constant(A, 3 - 2 * A) == (0, 1)


@pytest.mark.parametrize(
    "columns",
    [(A, B), (A, B, A + B), (A, np.zeros(60)), tuple(DUMMIES[:, :2].T), (D, D), (1e9 + A, 1e9 + A)],
)
def test_columns_without_a_constant_in_their_span_have_no_implicit_one(columns: tuple[Array, ...]) -> None:
    assert constant(*columns) == ()
