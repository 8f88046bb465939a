"""Rows taken out of the statistics again."""

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
