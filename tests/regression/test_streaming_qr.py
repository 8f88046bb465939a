"""The fast way to the statistics, on chunks so small that every turn of it is taken."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from app.regression import streaming_qr
from app.regression.errors import InvalidData
from app.regression.least_squares import fit
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_qr, "CHUNK_BYTES", 0)  # a chunk is then twice as many rows as there are columns


def some_rows(seed: int, rows: int = 400, features: int = 3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, features)) * random.uniform(0.1, 10, features) + random.normal(size=features)
    return x, x @ random.normal(size=(features, 2)) + random.normal(size=(rows, 2))


def assert_same(found: SufficientStatistics, expected: SufficientStatistics, tolerance: float = 1e-12) -> None:
    """Equal up to the signs of the factor's rows, in units of its columns."""
    assert (found.rows, found.features) == (expected.rows, expected.features)
    norms = np.sqrt((expected.raw_factor**2).sum(axis=0))
    assert_allclose(np.abs(found.raw_factor) / norms, np.abs(expected.raw_factor) / norms, rtol=0, atol=tolerance)
    assert_allclose(found.minimum, expected.minimum, rtol=0)
    assert_allclose(found.maximum, expected.maximum, rtol=0)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_many_chunks_give_the_factor_of_all_rows_at_once(seed: int, features: int) -> None:
    x, y = some_rows(seed, features=features)

    assert_same(summarise([TrainingBatch(x, y)]), SufficientStatistics.from_rows(x, y))


@pytest.mark.parametrize("blocks", [1, 3, 37])
@pytest.mark.parametrize("seed", range(5))
def test_rows_in_any_number_of_blocks_merged_in_any_order_have_the_same_coefficients(blocks: int, seed: int) -> None:
    x, y = some_rows(seed)
    expected = fit(SufficientStatistics.from_rows(x, y), Exact())
    cuts = np.linspace(0, len(x), blocks + 1).astype(int)
    parts = [summarise([TrainingBatch(x[a:b], y[a:b])]) for a, b in pairwise(cuts)]

    merged, *others = [parts[i] for i in np.random.default_rng(seed).permutation(blocks)]
    for part in others:
        merged = merged.merge(part)

    found = fit(merged, Exact())
    assert_allclose(found.coef, expected.coef, rtol=1e-10)
    assert_allclose(found.intercept, expected.intercept, rtol=1e-10, atol=1e-10)


def test_rows_that_drift_are_whitened_anew() -> None:
    x, y = some_rows(1, rows=2000)
    x *= np.logspace(0, 6, len(x))[:, np.newaxis]  # the last rows are a million times as long as the first

    assert_same(summarise([TrainingBatch(x, y)]), SufficientStatistics.from_rows(x, y))


@pytest.mark.parametrize("mean", [1e6, 1e8])
def test_means_far_above_deviations_cost_no_digits(mean: float) -> None:
    x, y = some_rows(2)
    near = fit(SufficientStatistics.from_rows(x, y), Exact())
    far = fit(summarise([TrainingBatch(x + mean, y)]), Exact())

    assert_allclose(far.coef, near.coef, rtol=1e-15 * mean)


def test_scales_side_by_side_that_lie_24_digits_apart_keep_theirs() -> None:
    x, y = some_rows(3)
    scales = np.array([1e-12, 1.0, 1e12])
    expected = fit(SufficientStatistics.from_rows(x, y), Exact())

    found = fit(summarise([TrainingBatch(x * scales, y)]), Exact())

    assert_allclose(found.coef * scales, expected.coef, rtol=1e-10)
    assert found.design.full_rank


@pytest.mark.parametrize("late", [False, True], ids=["at the first row", "in the middle"])
def test_collinear_and_constant_columns_are_recognised(late: bool) -> None:
    x, y = some_rows(4)
    collinear = np.column_stack([x, x[:, 0] + x[:, 1], np.full(len(x), 7.0)])
    blocks = [TrainingBatch(collinear[:200], y[:200]), TrainingBatch(collinear[200:], y[200:])]

    found = fit(summarise(blocks[::-1] if late else blocks), Exact())

    assert found.design.rank == 4
    assert_allclose(found.coef[:, 4], 0)
    expected = fit(SufficientStatistics.from_rows(x, y), Exact())
    combined = found.coef[:, :2] + found.coef[:, 3:4]
    assert_allclose(combined, expected.coef[:, :2], rtol=1e-9)


def test_a_perfect_fit_stays_one() -> None:
    x, _ = some_rows(5)
    y = x @ np.array([[1.0], [2.0], [3.0]]) + 4

    found = fit(summarise([TrainingBatch(x, y)]), Exact())

    assert_allclose(found.coef, [[1, 2, 3]], rtol=1e-12)
    assert_allclose(found.intercept, [4], rtol=1e-12)


def test_a_whole_weight_equals_repeated_rows_and_zero_equals_no_row() -> None:
    x, y = some_rows(6, rows=60)
    times = np.random.default_rng(6).integers(0, 4, len(x))
    repeated = SufficientStatistics.from_rows(np.repeat(x, times, axis=0), np.repeat(y, times, axis=0))

    found = summarise([TrainingBatch(x, y, times.astype(float))])

    assert found.rows == (times > 0).sum()
    assert_allclose(np.abs(found.raw_factor), np.abs(repeated.raw_factor), atol=1e-10)
    assert_allclose(found.minimum, x[times > 0].min(axis=0))


def test_rows_that_all_weigh_nothing_are_no_rows() -> None:
    x, y = some_rows(7, rows=5)

    with pytest.raises(InvalidData, match="no rows"):
        summarise([TrainingBatch(x, y, np.zeros(5))])


@pytest.mark.parametrize("outlier", [1e4, -999_999_999, 1e10, 1e11, 1e12])
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("chunk_bytes", [0, 1 << 19])
def test_a_row_far_out_in_two_columns_costs_the_others_no_digits(
    monkeypatch: pytest.MonkeyPatch, outlier: float, correlated: bool, chunk_bytes: int
) -> None:
    monkeypatch.setattr(streaming_qr, "CHUNK_BYTES", chunk_bytes)
    random = np.random.default_rng(3)
    x = random.normal(size=(40_000, 3)) * [1, 2, 5]
    if correlated:
        x[:, 2] = x[:, 1] + 0.01 * x[:, 2]
    y = x @ [[1.0], [2.0], [3.0]] + random.normal(size=(40_000, 1))
    x[30_000, :2] = outlier
    expected = fit(SufficientStatistics.from_rows(x, y), Exact())

    found = fit(summarise([TrainingBatch(x, y)]), Exact())

    # QR itself has this accuracy.
    scale = np.abs(expected.coef).max()
    assert_allclose(found.coef, expected.coef, rtol=0, atol=scale * 1e-14 * max(1e5, abs(outlier)))
    assert_allclose(found.residual_norms**2, expected.residual_norms**2, rtol=1e-16 * max(1e10, abs(outlier)))
