"""Moments of rows, merged in any way, are those of all rows together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.regression.moments import Moments

ROWS = arrays(float, st.tuples(st.integers(3, 40), st.integers(1, 4)), elements=st.floats(-1e3, 1e3))


def assert_equal(found: Moments, rows: np.ndarray) -> None:
    size = 1 + np.abs(rows).max() ** 2
    assert found.rows == len(rows)
    assert found.mean == pytest.approx(rows.mean(axis=0), abs=1e-12 * size)
    expected = np.cov(rows.T, bias=True).reshape(rows.shape[1], -1) * len(rows)
    assert found.squares == pytest.approx(expected.diagonal(), abs=1e-11 * size)
    if found.has_pairs:
        assert found.products == pytest.approx(expected, abs=1e-11 * size)
    assert (found.minimum == rows.min(axis=0)).all()
    assert (found.maximum == rows.max(axis=0)).all()


@given(ROWS, st.data(), st.booleans())
def test_merged_moments_are_those_of_all_rows_in_any_order_and_grouping(
    rows: np.ndarray, data: st.DataObject, pairs: bool
) -> None:
    first, second = sorted(data.draw(st.lists(st.integers(1, len(rows) - 1), min_size=2, max_size=2, unique=True)))
    a, b, c = (Moments.of(part, pairs=pairs) for part in np.split(rows, [first, second]))

    assert_equal(a.merge(b).merge(c), rows)
    assert_equal(c.merge(a.merge(b)), rows)


@given(ROWS)
def test_moments_without_pairs_merge_with_moments_that_have_them(rows: np.ndarray) -> None:
    with_pairs, without = Moments.of(rows), Moments.of(rows, pairs=False)

    merged = with_pairs.merge(without)

    assert not merged.has_pairs
    assert_equal(merged, np.vstack([rows, rows]))


def test_a_sample_counts_as_the_rows_that_it_stands_for() -> None:
    random = np.random.default_rng(0)
    few, many = random.normal(3, 1, (50, 2)), random.normal(0, 2, (80, 2))

    merged = Moments.of(few).merge(Moments.of(many, weight=5.0))

    weights = np.repeat([1.0, 5.0], [50, 80])
    rows = np.vstack([few, many])
    assert (merged.rows, merged.weight) == (130, 450)
    assert merged.mean == pytest.approx(np.average(rows, axis=0, weights=weights))
    assert merged.products / merged.weight == pytest.approx(np.cov(rows.T, aweights=weights, bias=True))
    assert merged.effective_rows == pytest.approx(450**2 / (50 + 80 * 25))
    assert Moments.of(many, weight=5.0).covariance == pytest.approx(np.cov(many.T))


def test_a_mean_far_from_zero_costs_no_digits_of_the_variance() -> None:
    rows = np.random.default_rng(0).normal(1e9, 1e-3, (4000, 2))
    merged = Moments.of(rows[:1])
    for part in np.array_split(rows[1:], 97):
        merged = merged.merge(Moments.of(part))

    assert merged.squares / len(rows) == pytest.approx(rows.var(axis=0), rel=1e-4)
