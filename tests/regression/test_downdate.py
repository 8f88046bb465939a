"""Rows taken out of the statistics again."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from app.errors import InvalidInput
from app.regression.accumulator import summarise
from app.regression.block import Block
from app.regression.downdate import downdate
from app.regression.least_squares import fit
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics


def some_rows(seed: int, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 3)) * [1, 10, 0.1] + [0, 50, 3]
    return x, x @ random.normal(size=(3, 2)) + random.normal(size=(rows, 2))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_forgetting_equals_a_fit_from_scratch_on_the_rows_that_remain(seed: int, forgotten: int) -> None:
    x, y = some_rows(seed, 60)
    whole, part = SufficientStatistics.from_block(x, y), SufficientStatistics.from_block(x[:forgotten], y[:forgotten])

    found, expected = downdate(whole, part), SufficientStatistics.from_block(x[forgotten:], y[forgotten:])

    assert (found.rows, found.count) == (expected.rows, expected.count)
    assert found.weight == pytest.approx(expected.weight, rel=1e-9)
    assert_allclose(fit(found, Exact()).weights, fit(expected, Exact()).weights, rtol=1e-9, atol=1e-9)
    assert_allclose(fit(found, Exact()).residual_norms ** 2, fit(expected, Exact()).residual_norms ** 2, rtol=1e-7)


def test_updating_and_forgetting_again_changes_nothing() -> None:
    x, y = some_rows(1, 80)
    first, second = SufficientStatistics.from_block(x[:50], y[:50]), SufficientStatistics.from_block(x[50:], y[50:])

    found = downdate(first.merge(second), second)

    assert_allclose(fit(found, Exact()).weights, fit(first, Exact()).weights, rtol=1e-9)


def test_rows_of_a_perfect_fit_can_be_forgotten() -> None:
    x, _ = some_rows(2, 20)
    y = x[:, :1] + 1

    found = downdate(SufficientStatistics.from_block(x, y), SufficientStatistics.from_block(x[:9], y[:9]))

    assert_allclose(fit(found, Exact()).weights, [[1, 0, 0]], atol=1e-9)


def test_rows_that_were_never_there_are_refused() -> None:
    x, y = some_rows(3, 40)
    whole = SufficientStatistics.from_block(x, y)

    with pytest.raises(InvalidInput, match="not among"):
        downdate(whole, SufficientStatistics.from_block(x[:3] + 1000, y[:3]))  # outside the ranges
    with pytest.raises(InvalidInput, match="not among"):
        downdate(whole, SufficientStatistics.from_block(x[:3], y[:3] + 1000))  # squares would be negative


def test_so_many_rows_that_the_rank_falls_are_refused() -> None:
    x, y = some_rows(4, 10)
    whole = SufficientStatistics.from_block(x, y)

    with pytest.raises(InvalidInput, match="too few remain"):
        downdate(whole, SufficientStatistics.from_block(x[:7], y[:7]))
    with pytest.raises(InvalidInput, match="all of them"):
        downdate(whole, whole)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 1))
def test_decay_is_a_weight_on_every_row(seed: int, share: float) -> None:
    x, y = some_rows(seed, 30)

    found = SufficientStatistics.from_block(x, y).decayed(share)

    weighted = summarise([Block(x, y, np.full(30, share))])
    assert_allclose(np.abs(found.raw_factor), np.abs(weighted.raw_factor), rtol=1e-9, atol=1e-9)
    assert found.weight == pytest.approx(30 * share)
    assert found.rows == 30
    assert found.count == pytest.approx(30 * share)


def frequencies(rows: slice, times: list[int]) -> SufficientStatistics:
    x, y = some_rows(5, 12)
    block = Block(x[rows], y[rows], np.array(times, dtype=float))
    return summarise([block], weight_kind="frequency")


def test_what_is_counted_is_taken_out_too() -> None:
    x, y = some_rows(6, 20)
    weights = np.random.default_rng(6).uniform(0.5, 2, 20)
    whole, part = summarise([Block(x, y, weights)]), summarise([Block(x[15:], y[15:], weights[15:])])

    found = downdate(replace(whole, operations=3), replace(part, operations=2))

    assert (found.rows, found.count, found.operations) == (15, 15.0, 6)
    assert found.log_weights == pytest.approx(np.log(weights[:15]).sum())
    assert found.weight == pytest.approx(weights[:15].sum())


def test_rows_that_decayed_are_taken_out_with_the_share_that_is_left() -> None:
    x, y = some_rows(7, 30)
    old, new = SufficientStatistics.from_block(x[:10], y[:10]), SufficientStatistics.from_block(x[10:], y[10:])

    found = downdate(old.decayed(0.25).merge(new), SufficientStatistics.from_block(x[:4], y[:4]), 0.25)

    weights = np.where(np.arange(4, 30) < 10, 0.25, 1.0)
    expected = summarise([Block(x[4:], y[4:], weights)])
    assert found.count == pytest.approx(21.5)
    assert_allclose(fit(found, Exact()).weights, fit(expected, Exact()).weights, rtol=1e-9)
    assert_allclose(fit(found, Exact()).residual_norms, fit(expected, Exact()).residual_norms, rtol=1e-9)


def test_part_of_the_observations_of_a_row_can_be_taken_out() -> None:
    whole = frequencies(slice(0, 12), [3] * 12)

    one_each = downdate(whole, frequencies(slice(0, 12), [1] * 12))
    all_of_two = downdate(whole, frequencies(slice(0, 2), [3, 3]))
    down_to_few = downdate(whole, frequencies(slice(0, 11), [2] * 11))

    assert (one_each.rows, one_each.count) == (12, 24.0)
    assert (all_of_two.rows, all_of_two.count) == (10, 30.0)
    assert (down_to_few.rows, down_to_few.count) == (1, 14.0)
    with pytest.raises(InvalidInput, match="they are 39 rows, and the version has 36"):
        downdate(whole, frequencies(slice(0, 12), [4, 4, 4, *[3] * 9]))


def test_no_more_rows_remain_than_observations() -> None:
    x, y = some_rows(5, 12)
    x[1], y[1] = x[0], y[0]
    whole = summarise([Block(x, y, np.ones(12))], weight_kind="frequency")

    found = downdate(whole, summarise([Block(x[:1], y[:1], np.array([2.0]))], weight_kind="frequency"))

    assert (found.rows, found.count) == (10, 10.0)


def test_frequencies_that_decayed_are_counted_by_their_rows() -> None:
    whole = frequencies(slice(0, 12), [3] * 12).decayed(0.5)

    found = downdate(whole, frequencies(slice(0, 7), [3] * 7), 0.5)

    assert (found.rows, found.count) == (5, 7.5)


def test_rows_of_another_kind_of_weights_or_more_rows_than_there_are_are_refused() -> None:
    x, y = some_rows(8, 12)
    whole = SufficientStatistics.from_block(x, y)

    with pytest.raises(InvalidInput, match="frequency weights, and the version has precision weights"):
        downdate(whole, frequencies(slice(0, 2), [1, 1]))
    with pytest.raises(InvalidInput, match="they are 24 rows, and the version has 12"):
        downdate(whole, SufficientStatistics.from_block(np.tile(x, (2, 1)), np.tile(y, (2, 1))))


@pytest.mark.parametrize("beyond", [-1000.0, 1000.0])
@pytest.mark.parametrize("feature", [0, 2])
def test_a_value_outside_the_range_of_one_feature_is_refused(beyond: float, feature: int) -> None:
    x, y = some_rows(9, 40)
    row = x[:1].copy()
    row[0, feature] = beyond

    with pytest.raises(InvalidInput, match="a value lies outside the range of its feature"):
        downdate(SufficientStatistics.from_block(x, y), SufficientStatistics.from_block(row, y[:1]))


def test_as_many_rows_as_coefficients_may_remain_and_no_fewer() -> None:
    x, y = some_rows(10, 12)
    whole = SufficientStatistics.from_block(x, y)

    assert downdate(whole, SufficientStatistics.from_block(x[:8], y[:8])).rows == 4
    with pytest.raises(InvalidInput, match="3 rows cannot determine 4 coefficients"):
        downdate(whole, SufficientStatistics.from_block(x[:9], y[:9]))


def test_a_feature_that_only_the_rows_taken_out_told_from_a_constant_is_refused() -> None:
    x, y = some_rows(11, 30)
    x[:, 1] = 5.0
    x[:4, 1] = [0.0, 1.0, 2.0, 3.0]

    with pytest.raises(InvalidInput, match="too few remain to determine the coefficients"):
        downdate(SufficientStatistics.from_block(x, y), SufficientStatistics.from_block(x[:4], y[:4]))


def test_rows_can_be_taken_out_beside_constant_and_dependent_columns() -> None:
    x, y = some_rows(12, 30)
    x = np.column_stack([x, x[:, 0] + x[:, 2], np.full(30, 3.0)])

    found = downdate(SufficientStatistics.from_block(x, y), SufficientStatistics.from_block(x[:5], y[:5]))

    expected = fit(SufficientStatistics.from_block(x[5:], y[5:]), Exact())
    assert_allclose(fit(found, Exact()).weights, expected.weights, rtol=1e-8, atol=1e-9)
    assert fit(found, Exact()).design.rank == 4
