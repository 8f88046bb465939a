"""Rows with a wide block of indicators, summarised by level."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from regression.categories import block_of, encoded, rows_of

from app.regression import level_qr
from app.regression.cross_validation import Folds
from app.regression.errors import InvalidData, ValuesTooLarge
from app.regression.fit import ArrayData, fit_model
from app.regression.least_squares import fit
from app.regression.level_qr import MIN_INDICATORS, LevelQR
from app.regression.solvers import Exact
from app.regression.streaming_qr import MAX_OBSERVATIONS
from app.regression.sufficient_statistics import FACTOR_ERROR, SufficientStatistics, WeightKind, column_norms
from app.regression.summaries import summarise, summarise_folds
from app.regression.training_batch import TrainingBatch

Array = NDArray[np.float64]

LEVELS = list(range(8))
BLOCK = block_of(LEVELS)
BY_LEVEL = partial(LevelQR, block=BLOCK)


def batches(x: Array, y: Array, size: int, weights: Array | None = None) -> Iterator[TrainingBatch]:
    whole = TrainingBatch(x, y, weights)
    for start in range(0, len(x), size):
        yield whole.select(slice(start, start + size))


def assert_same(found: SufficientStatistics, expected: SufficientStatistics) -> None:
    """Compare cross products, relative to the norms of columns about the shift, and everything else exactly."""
    factor = found.rescaled_factor(expected.shift, expected.scale)
    norms = column_norms(expected.factor)
    norms = np.where(norms > 0, norms, 1.0)
    products, others = ((one / norms).T @ (one / norms) for one in (factor, expected.factor))
    assert_allclose(products, others, atol=2 * FACTOR_ERROR)
    for name in ("features", "rows", "effective_rows", "weight_kind", "discounted"):
        assert getattr(found, name) == getattr(expected, name)
    assert_array_equal(found.minimum, expected.minimum)
    assert_array_equal(found.maximum, expected.maximum)
    assert_allclose(found.log_weights, expected.log_weights, rtol=1e-12, atol=1e-12)
    assert not np.tril(found.factor, -1).any()


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 200),
    st.integers(1, 70),
    st.sampled_from([None, "precision", "frequency"]),
    st.sampled_from([(0.0, 1.0), (1e9, 1.0), (0.0, 1e-200), (-1e5, 1e200)]),
)
def test_the_statistics_are_those_of_rows_one_by_one(
    seed: int, rows: int, size: int, weight_kind: WeightKind | None, units: tuple[float, float]
) -> None:
    x, codes, y = rows_of(seed, rows, len(LEVELS), numbers=3)
    random = np.random.default_rng(seed)
    x[:, 2] = codes % 3  # a column that is constant in each level
    x[:, 0] = (x[:, 0] + units[0]) * units[1]
    weights: Array | None = None
    if weight_kind == "frequency":
        weights = np.maximum(random.integers(0, 4, rows), np.arange(rows) == 0).astype(np.float64)
    elif weight_kind is not None:
        weights = random.lognormal(0, 2, rows)
    columns, kind = encoded(x, codes, LEVELS), weight_kind or "precision"

    found = summarise(batches(columns, y, size, weights), BY_LEVEL, kind)

    assert_same(found, summarise(batches(columns, y, size, weights), weight_kind=kind))
    assert_array_equal(found.scale[[0, 8, 9]], summarise(batches(columns, y, size, weights)).scale[[0, 8, 9]])


@pytest.mark.parametrize("chunk_rows", [1, 3, 50])
def test_the_number_of_rows_at_once_changes_no_result(chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level_qr, "CHUNK_ROWS", chunk_rows)
    x, codes, y = rows_of(1, 120, len(LEVELS))
    columns = encoded(x, codes, LEVELS)

    found = summarise([TrainingBatch(columns, y)], BY_LEVEL)

    assert_same(found, summarise([TrainingBatch(columns, y)]))


def test_many_batches_add_no_rounding_errors() -> None:
    x, codes, y = rows_of(1, 10_000, len(LEVELS))
    x = np.round(x * 1024) / 1024  # so that all cross products of the exact rows are exact
    y = np.round(y * 1024) / 1024
    columns = encoded(x, codes, LEVELS)

    found = summarise(batches(columns, y, 10), BY_LEVEL)

    rows = np.column_stack([np.ones(len(x)), columns - found.shift[: columns.shape[1]], y - found.shift[-2:]])
    products = found.rescaled_factor(found.shift, np.ones_like(found.scale))
    exact = rows.astype(np.longdouble).T @ rows.astype(np.longdouble)
    norms = np.sqrt(np.diag(exact).astype(np.float64))
    assert_allclose((products.T @ products) / norms / norms[:, None], exact / norms / norms[:, None], atol=FACTOR_ERROR)


def test_the_reference_level_may_have_no_rows() -> None:
    x, codes, y = rows_of(1, 60, len(LEVELS))
    columns = encoded(x, codes % 7 + 1, LEVELS)

    found = summarise([TrainingBatch(columns, y)], BY_LEVEL)

    assert fit(found, Exact()).design.rank == fit(summarise([TrainingBatch(columns, y)]), Exact()).design.rank


def test_later_rows_may_differ_in_magnitude() -> None:
    x, codes, y = rows_of(1, 60, len(LEVELS))
    x[:30] *= 1e-150
    x[30:] *= 1e150

    columns = encoded(x, codes, LEVELS)

    assert_same(summarise(batches(columns, y, 30), BY_LEVEL), summarise(batches(columns, y, 30)))


@pytest.mark.parametrize("column", [0, 8, 9])
def test_differences_beyond_the_range_name_the_column(column: int) -> None:
    x, codes, y = rows_of(1, 60, len(LEVELS))
    columns = encoded(x, codes, LEVELS)
    values = np.hstack([columns, y])
    values[::2, column], values[1::2, column] = 1.7e308, -1.7e308

    with pytest.raises(ValuesTooLarge) as raised:
        summarise(batches(values[:, :9], values[:, 9:], 10), BY_LEVEL)

    assert raised.value.column == column


def test_too_many_observations_are_refused() -> None:
    x, codes, y = rows_of(1, 2, len(LEVELS))
    weights = np.full(2, float(MAX_OBSERVATIONS))

    with pytest.raises(InvalidData, match="observations"):
        summarise([TrainingBatch(encoded(x, codes, LEVELS), y, weights)], BY_LEVEL, "frequency")


def test_each_fold_has_its_own_levels() -> None:
    x, codes, y = rows_of(1, 200, len(LEVELS))
    columns = encoded(x, codes, LEVELS)

    by_level = summarise_folds(batches(columns, y, 30), 4, BY_LEVEL, blocks=[BLOCK])

    expected = summarise_folds(batches(columns, y, 30), 4, blocks=[BLOCK])
    for fold, statistics in expected.items():
        assert_same(by_level[fold], statistics)
    assert Folds(by_level).validate(Exact()).mse == pytest.approx(Folds(expected).validate(Exact()).mse, rel=1e-10)


def test_a_fit_to_many_levels_is_that_of_dense_rows() -> None:
    levels = list(range(MIN_INDICATORS + 1))
    x, codes, y = rows_of(1, 2000, len(levels), numbers=3)
    columns = encoded(x, codes, levels)
    features = tuple(f"x{index}" for index in range(columns.shape[1]))

    found, expected = (
        fit_model(ArrayData(columns, y, features, ("a", "b"), blocks=blocks), Exact())
        for blocks in ((block_of(levels),), ())
    )

    assert_allclose(found.model.coef, expected.model.coef, rtol=1e-9)
    assert_allclose(found.model.residual_norms, expected.model.residual_norms, rtol=1e-12)
    assert found.model.unscaled_errors is not None
    assert expected.model.unscaled_errors is not None
    assert_allclose(found.model.unscaled_errors, expected.model.unscaled_errors, rtol=1e-10)
    assert found.statistics.indicator_rows is not None
    assert_array_equal(found.statistics.indicator_rows[block_of(levels)], np.bincount(codes, minlength=34)[1:])
