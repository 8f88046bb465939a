from collections.abc import Iterable
from dataclasses import replace
from itertools import permutations
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from app.regression.errors import InvalidData
from app.regression.sufficient_statistics import (
    FACTOR_ERROR,
    OPERATION_ERROR,
    SufficientStatistics,
    power_of_two,
    r_factor,
    shift_and_scale,
)
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = tuple[Array, Array]

# Small integers make ties, constant columns and collinear ones; the floats make everything else.
VALUES = st.integers(-3, 3).map(float) | st.floats(-1e3, 1e3, allow_subnormal=False)


@st.composite
def some_rows(draw: st.DrawFn, least: int = 1) -> Rows:
    n, p, k = draw(st.integers(least, 12)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    return draw(arrays(np.float64, (n, p), elements=VALUES)), draw(arrays(np.float64, (n, k), elements=VALUES))


def summarise_blocks(blocks: Iterable[Rows]) -> SufficientStatistics:
    return summarise(TrainingBatch(x, y) for x, y in blocks)


def gram(statistics: SufficientStatistics) -> Array:
    return np.asarray(statistics.raw_factor.T @ statistics.raw_factor)


def gram_of(x: Array, y: Array) -> Array:
    z = np.hstack([np.ones((len(x), 1)), x, y])
    return np.asarray(z.T @ z)


def assert_same_gram(found: Array, expected: Array) -> None:
    norms = np.maximum(np.sqrt(np.diag(expected)), 1e-3)
    assert_allclose(found / np.outer(norms, norms), expected / np.outer(norms, norms), rtol=0, atol=1e-11)


def assert_statistics_of(found: SufficientStatistics, x: Array, y: Array) -> None:
    assert found.rows == len(x)
    assert found.features == x.shape[1]
    assert found.targets == y.shape[1]
    assert_same_gram(gram(found), gram_of(x, y))
    assert_array_equal(found.minimum, x.min(axis=0))
    assert_array_equal(found.maximum, x.max(axis=0))


@settings(max_examples=60)
@given(some_rows())
def test_the_factor_holds_the_cross_products_of_all_columns(rows: Rows) -> None:
    statistics = SufficientStatistics.from_rows(*rows)
    assert_array_equal(statistics.factor, np.triu(statistics.factor))
    assert_statistics_of(statistics, *rows)


@settings(max_examples=60)
@given(some_rows())
def test_the_mean_and_the_deviations_are_those_of_the_rows(rows: Rows) -> None:
    statistics = SufficientStatistics.from_rows(*rows)
    z = np.hstack(rows)
    largest = np.maximum(np.abs(z).max(axis=0), 1e-3)
    deviations = z - z.mean(axis=0)
    assert_allclose(statistics.mean / largest, z.mean(axis=0) / largest, rtol=0, atol=1e-13)
    centred = statistics.centred_factor.T @ statistics.centred_factor
    scale = len(z) * np.outer(largest, largest)
    assert_allclose(centred / scale, deviations.T @ deviations / scale, rtol=0, atol=1e-12)
    totals = (deviations[:, statistics.features :] ** 2).sum(axis=0)
    assert_allclose(
        statistics.total_norms() ** 2 / np.diag(scale)[statistics.features :],
        totals / np.diag(scale)[-len(totals) :],
        rtol=0,
        atol=1e-12,
    )


@settings(max_examples=60)
@given(some_rows(least=2), st.data())
def test_merging_two_halves_equals_all_rows_at_once(rows: Rows, data: st.DataObject) -> None:
    x, y = rows
    cut = data.draw(st.integers(1, len(x) - 1))
    first = SufficientStatistics.from_rows(x[:cut], y[:cut])
    second = SufficientStatistics.from_rows(x[cut:], y[cut:])
    assert_statistics_of(first.merge(second), x, y)


@settings(max_examples=30)
@given(some_rows(least=3), st.data())
def test_three_parts_merge_to_the_same_in_every_order(rows: Rows, data: st.DataObject) -> None:
    x, y = rows
    one = data.draw(st.integers(1, len(x) - 2))
    two = data.draw(st.integers(one + 1, len(x) - 1))
    parts = [SufficientStatistics.from_rows(x[part], y[part]) for part in np.split(np.arange(len(x)), [one, two])]
    for first, second, third in permutations(parts):
        assert_statistics_of(first.merge(second).merge(third), x, y)
        assert_statistics_of(first.merge(second.merge(third)), x, y)


@settings(max_examples=60)
@given(some_rows(), st.data())
def test_a_stream_cut_into_blocks_anywhere_equals_one_block(rows: Rows, data: st.DataObject) -> None:
    x, y = rows
    # Cuts may coincide or be at the ends, which makes empty blocks.
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=4)))
    blocks = zip(np.split(x, cuts), np.split(y, cuts), strict=True)
    assert_statistics_of(summarise_blocks(blocks), x, y)


@settings(max_examples=60)
@given(some_rows(least=2), st.data())
def test_rows_added_in_another_order_leave_the_same_statistics(rows: Rows, data: st.DataObject) -> None:
    x, y = rows
    order = data.draw(st.permutations(range(len(x))))
    statistics = SufficientStatistics.from_rows(x[order[:1]], y[order[:1]])
    for row in order[1:]:
        statistics = statistics.merge(SufficientStatistics.from_rows(x[[row]], y[[row]]))
    assert_statistics_of(statistics, x, y)


@settings(max_examples=60)
@given(some_rows(), st.data())
def test_residual_sums_are_those_of_the_rows_for_any_weights(rows: Rows, data: st.DataObject) -> None:
    x, y = rows
    weights = data.draw(arrays(np.float64, (y.shape[1], x.shape[1]), elements=VALUES))
    intercept = data.draw(arrays(np.float64, y.shape[1], elements=VALUES))
    found = SufficientStatistics.from_rows(x, y).residual_norms(weights, intercept) ** 2
    expected = ((y - x @ weights.T - intercept) ** 2).sum(axis=0)
    size = np.abs(y).max(axis=0) + np.abs(x).max(axis=0) @ np.abs(weights).T + np.abs(intercept) + 1e-3
    assert_allclose(found / (len(x) * size**2), expected / (len(x) * size**2), rtol=0, atol=1e-12)


def test_residual_sums_keep_their_digits_far_from_the_origin() -> None:
    steps = np.arange(100.0)[:, np.newaxis]
    noise = np.where(steps % 2 == 0, 0.25, -0.25)
    x = 2.0**30 + steps
    statistics = SufficientStatistics.from_rows(x, 3 * steps + noise)
    found = statistics.residual_norms(np.array([[3.0]]), np.array([-3 * 2.0**30])) ** 2
    assert_allclose(found, [100 * 0.0625], rtol=1e-6)


def test_statistics_of_rows_a_billion_away_from_zero_keep_the_small_differences() -> None:
    x = 1e9 + np.array([[0.0], [1.0], [2.0], [3.0]])
    far = summarise_blocks([(x[:1], x[:1] - 1e9), (x[1:], x[1:] - 1e9)])
    assert_allclose(np.abs(far.centred_factor[0]), [np.sqrt(5.0), np.sqrt(5.0)], rtol=1e-7)


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(InvalidData, match="no rows"):
        summarise_blocks([])
    with pytest.raises(InvalidData, match="no rows"):
        summarise_blocks([(np.empty((0, 2)), np.empty((0, 1)))])


@pytest.mark.parametrize("column", ["feature", "target"])
@pytest.mark.parametrize("block", [0, 1])
def test_values_whose_squares_overflow_are_ordinary(column: str, block: int) -> None:
    small, huge = np.array([[1.0], [2.0], [4.0]]), np.array([[1e200], [2e200], [4e200]])
    blocks = [(small, small), (small, small)]
    blocks[block] = (huge, small) if column == "feature" else (small, huge)
    found = summarise_blocks(blocks)
    deviations = np.array([[1.0], [2.0], [4.0], [0.0], [0.0], [0.0]])
    norm = np.linalg.norm(deviations - deviations.mean()) * 1e200
    index = 0 if column == "feature" else 1
    assert np.linalg.norm(found.centred_factor[:, index] / 1e200) == pytest.approx(norm / 1e200)


@pytest.mark.parametrize("value", [1e308, -1.7e308])
def test_values_at_the_edge_of_64_bits_are_refused(value: float) -> None:
    edge, small = np.full((3, 1), value), np.array([[1.0], [2.0], [4.0]])
    with pytest.raises(InvalidData, match="too large"):
        summarise_blocks([(np.vstack([edge, -edge]), np.vstack([small, small]))])


def some_statistics(seed: int, rows: int = 20, **changes: Any) -> SufficientStatistics:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(rows, 2)) + np.array([5.0, -3.0]), random.normal(size=(rows, 1))
    return replace(SufficientStatistics.from_rows(x, y), **changes)


def test_a_merge_adds_up_what_is_counted() -> None:
    one = some_statistics(1, rows=20, log_weights=2.0, operations=3)
    other = some_statistics(2, rows=15, log_weights=0.5, operations=4)

    found = one.merge(other)

    assert (found.rows, found.effective_rows, found.log_weights, found.operations) == (35, 35.0, 2.5, 8)
    assert found.removed is None
    assert not found.untracked
    assert not found.discounted


@pytest.mark.parametrize("flag", ["untracked", "discounted"])
def test_a_merge_remembers_what_either_side_remembers(flag: str) -> None:
    plain, marked = some_statistics(1), some_statistics(2, **{flag: True})

    assert getattr(plain.merge(marked), flag) is True
    assert getattr(marked.merge(plain), flag) is True


def test_a_merge_keeps_the_rows_that_were_removed_from_either_side() -> None:
    one, other = some_statistics(1), some_statistics(2)
    gone, theirs = one.discounted_by(0.25).factor, other.discounted_by(0.5).factor

    found = replace(one, removed=gone).merge(replace(other, removed=theirs))
    only_theirs = one.merge(replace(other, removed=theirs))

    assert found.removed is not None
    assert only_theirs.removed is not None
    moved = other.transform(theirs, one.shift, one.scale)
    assert_allclose(found.removed.T @ found.removed, gone.T @ gone + moved.T @ moved, rtol=1e-12, atol=1e-12)
    assert_allclose(only_theirs.removed.T @ only_theirs.removed, moved.T @ moved, rtol=1e-12, atol=1e-12)
    held = found.cumulative_factor.T @ found.cumulative_factor
    assert_allclose(held, found.factor.T @ found.factor + found.removed.T @ found.removed, rtol=1e-12, atol=1e-12)


def test_weights_of_two_kinds_cannot_be_merged() -> None:
    with pytest.raises(InvalidData, match="The rows have frequency weights, and the version has precision weights"):
        some_statistics(1).merge(some_statistics(2, weight_kind="frequency"))


def test_decay_is_remembered_and_takes_weight_from_removed_rows_too() -> None:
    one = some_statistics(1)
    gone = replace(one, removed=one.factor)

    found = gone.discounted_by(0.25)

    assert found.removed is not None
    assert_allclose(found.removed, one.factor / 2)
    assert (found.rows, found.effective_rows, found.discounted) == (20, 5.0, True)
    assert one.discounted_by(1.0).discounted is False
    assert replace(one, discounted=True).discounted_by(1.0).discounted is True


def test_the_mean_weight_is_that_of_precision_weights_and_one_for_frequencies() -> None:
    random = np.random.default_rng(1)
    x, y, weights = random.normal(size=(10, 1)), random.normal(size=(10, 1)), np.arange(1.0, 11.0)

    assert summarise([TrainingBatch(x, y, weights)]).mean_weight == pytest.approx(5.5)
    assert summarise([TrainingBatch(x, y, weights)], weight_kind="frequency").mean_weight == 1


def test_a_feature_is_constant_after_a_removal_if_only_rounding_errors_of_it_remain() -> None:
    """64 units of rounding of its sum of squares about the shift, without the part that is in its mean."""
    statistics = some_statistics(1)
    deviations = float((statistics.factor[1:, 1] ** 2).sum())
    share = 2 * statistics.factor_error * (deviations + statistics.factor[0, 1] ** 2) / deviations
    for remaining, constant in ((0.9 * share, True), (1.1 * share, False)):
        factor = statistics.factor.copy()
        factor[1:, 1] *= np.sqrt(remaining)
        gone = statistics.factor.copy()
        gone[1:, 1] *= np.sqrt(1 - remaining)
        gone[0, 1] = 0.0
        assert replace(statistics, factor=factor, removed=gone).constant.tolist() == [constant, False]
        assert replace(statistics, factor=factor).constant.tolist() == [False, False]


def test_a_feature_whose_minimum_is_its_maximum_is_constant_whether_rows_were_removed_or_not() -> None:
    x = np.column_stack([np.full(6, 0.1), np.arange(6.0)])
    statistics = SufficientStatistics.from_rows(x, x[:, 1:])

    assert statistics.constant.tolist() == [True, False]
    assert replace(statistics, removed=statistics.factor).constant.tolist() == [True, False]


def test_the_error_bound_grows_with_the_operations() -> None:
    assert some_statistics(1).factor_error == FACTOR_ERROR
    assert some_statistics(1).log_weights == 0
    assert some_statistics(1, operations=5).factor_error == pytest.approx(FACTOR_ERROR + 5 * OPERATION_ERROR, rel=1e-15)


def test_totals_about_zero_are_the_plain_squares_of_the_targets() -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=(20, 2)), random.normal(size=(20, 3)) * [1, 100, 1e-3] + [5, 0, 1]
    statistics = SufficientStatistics.from_rows(x, y)

    assert_allclose(statistics.total_norms(centred=False), np.linalg.norm(y, axis=0), rtol=1e-13)
    assert_allclose(statistics.total_norms(), np.linalg.norm(y - y.mean(axis=0), axis=0), rtol=1e-13)


def test_residuals_are_the_same_from_any_centre() -> None:
    random = np.random.default_rng(4)
    x, y = random.normal(size=(20, 2)) + 7, random.normal(size=(20, 2))
    weights, intercept, centre = random.normal(size=(2, 2)), random.normal(size=2), np.array([3.0, -2.0])
    expected = np.linalg.norm(y - (x - centre) @ weights.T - intercept, axis=0)

    found = SufficientStatistics.from_rows(x, y).residual_norms(weights, intercept, centre)

    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "weights", [None, np.array([1.0, 1.0, 1.0, 1e12]), np.array([1e-300, 2e-300, 1e10, 2e10]), np.array([1e-300] * 4)]
)
def test_the_shift_is_the_value_nearest_to_the_mean_and_the_scale_above_the_largest_deviation(
    weights: Array | None,
) -> None:
    z = np.array([[-5.0, 1e-9], [1.0, 2e-9], [2.0, 4e-9], [3.5, 1e-8]])
    shift, scale = shift_and_scale(z, weights)

    mean = np.average(z, axis=0, weights=weights)
    nearest = np.abs(z - mean).argmin(axis=0)
    assert shift.tolist() == [z[nearest[0], 0], z[nearest[1], 1]]
    deviations = np.abs(z - shift).max(axis=0)
    assert (scale > deviations).all()
    assert (scale <= 2 * deviations).all()
    assert_array_equal(np.frexp(scale)[0], [0.5, 0.5])


@pytest.mark.parametrize(
    ("spread", "otherwise", "expected"),
    [
        (3.0, 100.0, 4.0),
        (4.0, 0.0, 8.0),
        (0.0, 100.0, 128.0),
        (0.0, -100.0, 128.0),
        (0.0, 0.0, 1.0),
        (np.inf, 5.0, 1.0),
        (0.1, 5.0, 0.125),
        (1e308, 0.0, 2.0**1000),
        (1e-308, 0.0, 2.0**-1000),
    ],
)
def test_a_scale_is_a_power_of_two_that_can_be_divided_by(spread: float, otherwise: float, expected: float) -> None:
    assert power_of_two(np.array([spread]), np.array([otherwise])).tolist() == [expected]


@pytest.mark.parametrize("rows", [1, 3, 128, 256, 257, 400, 5000])
def test_the_factor_of_many_rows_is_that_of_all_of_them(rows: int) -> None:
    z = np.random.default_rng(rows).normal(size=(rows, 3))

    found = r_factor(z)

    assert found.shape == (3, 3)
    assert_array_equal(found, np.triu(found))
    assert_allclose(found.T @ found, z.T @ z, rtol=1e-12, atol=1e-12 * rows)
