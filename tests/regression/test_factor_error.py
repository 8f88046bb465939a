"""The factor's rounding error, in exact rationals, against the bound that the statistics state for it."""

from collections.abc import Callable
from itertools import repeat
from typing import TypeAlias

import numpy as np
import pytest
from exact import rational
from numpy.typing import NDArray

from app.regression import streaming_qr
from app.regression.sufficient_statistics import FACTOR_ERROR, OPERATION_ERROR, SufficientStatistics
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array: TypeAlias = NDArray[np.float64]

FEW = 16  # rows, which are repeated: the errors of equal sums add up instead of averaging out


def some_rows(seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(FEW, 3))


def one_sided(seed: int) -> Array:
    """Values that are nearly equal, except for a row on the other side."""
    rows = np.abs(some_rows(seed)) * 0.01 + 1
    rows[0] = -30
    return rows


def nearly_collinear(seed: int) -> Array:
    rows = some_rows(seed)
    rows[:, 1] = rows[:, 0] + 1e-10 * rows[:, 1]
    return rows


def with_an_outlier(seed: int) -> Array:
    rows = some_rows(seed)
    rows[3] *= 1e9
    return rows


def error_of(statistics: SufficientStatistics, rows: Array, times: int) -> float:
    """Return the largest error of the Gram matrix of the rows, repeated `times`, in norms of its columns."""
    z = rational(rows) - rational(statistics.shift)
    design = np.hstack([rational(np.ones((len(rows), 1))), z / rational(statistics.scale)])
    gram = times * (design.T @ design)
    factor = rational(statistics.factor)
    norms = np.sqrt(gram.diagonal().astype(float))
    return float((np.abs((factor.T @ factor - gram).astype(float)) / np.outer(norms, norms)).max()) / 2


def repeated(rows: Array, times: int) -> SufficientStatistics:
    block = np.tile(rows, (times, 1))
    return summarise([TrainingBatch(block[:, :2], block[:, 2:])])


@pytest.mark.parametrize("some", [some_rows, one_sided, nearly_collinear, with_an_outlier])
@pytest.mark.parametrize("times", [1, 64, 1024])
def test_rows_of_one_chunk_keep_the_bound(some: Callable[[int], Array], times: int) -> None:
    for seed in range(6):
        statistics = repeated(some(seed), times)
        assert error_of(statistics, some(seed), times) <= statistics.factor_error


@pytest.mark.parametrize("some", [some_rows, one_sided, nearly_collinear, with_an_outlier])
def test_thousands_of_chunks_keep_the_bound(some: Callable[[int], Array], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_qr, "CHUNK_BYTES", 0)
    for seed in range(2):
        statistics = repeated(some(seed), 2000)
        assert error_of(statistics, some(seed), 2000) <= statistics.factor_error


def test_equal_chunks_of_a_gram_matrix_round_no_more_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_qr, "CHUNK_BYTES", 0)
    for seed in range(3):
        statistics = repeated(some_rows(seed), 4000)
        assert statistics.operations == 0
        assert error_of(statistics, some_rows(seed), 4000) <= FACTOR_ERROR


def test_the_bound_of_a_factor_is_less_than_ten_times_the_error() -> None:
    rows = [some(seed) for some in (one_sided, with_an_outlier) for seed in range(12)]
    errors = [error_of(repeated(few, 1024), few, 1024) for few in rows]

    assert FACTOR_ERROR / 10 < max(errors) <= FACTOR_ERROR


@pytest.mark.parametrize("merges", [1, 10, 200])
def test_merges_keep_the_bound(merges: int) -> None:
    for some in (some_rows, one_sided, nearly_collinear, with_an_outlier):
        part = repeated(some(1), 1)
        whole = part
        for other in repeat(part, merges):
            whole = whole.merge(other)

        assert whole.operations == merges
        assert whole.factor_error == FACTOR_ERROR + merges * OPERATION_ERROR
        assert error_of(whole, some(1), 1 + merges) <= whole.factor_error


def test_each_decomposition_after_the_first_counts_as_an_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_qr, "CHUNK_BYTES", 0)
    rows = nearly_collinear(1)

    assert repeated(rows, 1).operations == 1  # two chunks of eight rows
    assert repeated(rows, 10).operations == 19
    assert repeated(some_rows(1), 10).operations == 0
