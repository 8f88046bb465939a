"""Statistics with other columns, compared with those of rows that are encoded with these columns."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from regression.categories import block_of, encoded, gram_about, rows_of, summary

from app.regression.column_changes import aligned, rebased
from app.regression.downdate import downdate
from app.regression.least_squares import fit
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics

seeds = st.integers(0, 10**6)


def names(levels: list[int]) -> list[str]:
    return ["first", *(f"level[{level}]" for level in levels[1:]), "second"]


def assert_same(found: SufficientStatistics, expected: SufficientStatistics) -> None:
    """Compare the cross products, relative to the norms of the columns, and everything else exactly."""
    products, others = gram_about(found, expected.shift), gram_about(expected, expected.shift)
    # A column's deviations from a shift that is not its own are rounded to the spacing of its values.
    norms = np.sqrt(np.maximum(np.diag(others), 1))
    assert_allclose(products / norms / norms[:, np.newaxis], others / norms / norms[:, np.newaxis], atol=1e-11)
    assert (found.rows, found.effective_rows) == (expected.rows, expected.effective_rows)
    assert_array_equal(found.minimum, expected.minimum)
    assert_array_equal(found.maximum, expected.maximum)
    assert found.indicator_rows is not None
    assert expected.indicator_rows is not None
    assert_array_equal(found.indicator_rows, expected.indicator_rows)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 6), st.data())
def test_statistics_with_columns_for_new_levels_are_those_of_rows_encoded_with_them(
    seed: int, count: int, data: st.DataObject
) -> None:
    x, codes, y = rows_of(seed, 50, count)
    found_levels = sorted(set(codes.tolist()))
    levels = data.draw(st.permutations(range(count)))
    old = [levels[0], *(level for level in found_levels if level != levels[0])]

    found = aligned(summary(encoded(x, codes, old), y, block_of(old)), names(old), names(levels))

    assert_same(found, summary(encoded(x, codes, levels), y, block_of(levels)))


@given(seeds)
def test_columns_are_added_without_rounding(seed: int) -> None:
    x, codes, y = rows_of(seed, 30, 4)
    statistics = summary(encoded(x, codes, [0, 1, 3]), y, block_of([0, 1, 3]))

    found = aligned(statistics, names([0, 1, 3]), names([0, 1, 2, 3]))

    kept = np.array([0, 1, 2, 4, 5, 6, 7])  # the column of ones, then all but the new one
    assert_array_equal(found.factor[np.ix_(kept, kept)], statistics.factor)
    assert not found.factor[3].any()
    assert not found.factor[:, 3].any()
    assert found.operations == statistics.operations


def test_statistics_whose_columns_do_not_change_are_the_same_object() -> None:
    x, codes, y = rows_of(0, 30, 3)
    statistics = summary(encoded(x, codes, [0, 1, 2]), y, block_of([0, 1, 2]))

    assert aligned(statistics, ["a", "b", "c", "d"], ("a", "b", "c", "d")) is statistics


def test_the_first_indicators_of_a_category_are_counted() -> None:
    x, _, y = rows_of(0, 30, 1)
    numbers = SufficientStatistics.from_rows(x, y)

    found = aligned(numbers, ["first", "second"], ["first", "level[1]", "second"])

    assert numbers.indicator_rows is None
    assert found.indicator_rows is not None
    assert found.indicator_rows.tolist() == [-1, 0, -1]


def test_rows_taken_out_keep_their_columns() -> None:
    x, codes, y = rows_of(3, 60, 3)
    columns, block = encoded(x, codes, [0, 1, 2]), block_of([0, 1, 2])
    whole = summary(columns, y, block)
    remaining = downdate(whole, summary(columns[:5], y[:5], block), blocks=[block])

    found = aligned(remaining, names([0, 1, 2]), names([0, 2, 5, 1]))

    assert remaining.removed is not None
    assert found.removed is not None
    before, after = remaining.removed.T @ remaining.removed, found.removed.T @ found.removed
    kept = np.array([0, 1, 4, 2, 5, 6, 7])
    assert_allclose(after[np.ix_(kept, kept)], before, rtol=1e-10, atol=1e-12)
    assert_array_equal(after[3], 0)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 6), st.data())
def test_a_change_of_the_reference_level_equals_another_encoding(seed: int, count: int, data: st.DataObject) -> None:
    x, codes, y = rows_of(seed, 50, count)
    levels = data.draw(st.permutations(range(count)))
    reference = data.draw(st.integers(0, count - 2))
    swapped = levels.copy()
    swapped[0], swapped[reference + 1] = levels[reference + 1], levels[0]
    block = block_of(levels)

    found = rebased(summary(encoded(x, codes, levels), y, block), block, reference)

    assert_same(found, summary(encoded(x, codes, swapped), y, block))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_frequency_weights_count_observations(seed: int) -> None:
    x, codes, y = rows_of(seed, 50, 3)
    weights = np.random.default_rng(seed).integers(0, 4, 50).astype(np.float64)
    weights[0] = 1
    block = block_of([0, 1, 2])

    found = summary(encoded(x, codes, [0, 1, 2]), y, block, weights, "frequency")

    repeated = np.repeat(np.arange(50), weights.astype(int))
    expected = summary(encoded(x, codes, [0, 1, 2])[repeated], y[repeated], block)
    assert_same(replace(found, weight_kind="precision"), expected)
    assert_same(
        replace(rebased(found, block, 1), weight_kind="precision"),
        rebased(expected, block, 1),
    )


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 6), st.integers(1, 49))
def test_an_update_with_new_levels_equals_a_fit_to_all_rows(seed: int, count: int, first: int) -> None:
    x, codes, y = rows_of(seed, 50, count)
    reference = int(codes[0])
    old = [reference, *sorted(set(codes[:first].tolist()) - {reference})]
    levels = [*old, *sorted(set(codes.tolist()) - set(old))]
    columns, block = encoded(x, codes, levels), block_of(levels)
    base = summary(encoded(x[:first], codes[:first], old), y[:first], block_of(old))

    found = aligned(base, names(old), names(levels)).merge(summary(columns[first:], y[first:], block))

    if len(levels) > 1:
        assert_same(found, summary(columns, y, block))
    updated, afresh = fit(found, Exact()), fit(summary(columns, y, block), Exact())
    assert_allclose(columns @ updated.coef.T + updated.intercept, columns @ afresh.coef.T + afresh.intercept, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 6), st.integers(1, 49))
def test_versions_with_other_levels_and_another_reference_level_can_be_merged(seed: int, count: int, n: int) -> None:
    x, codes, y = rows_of(seed, 50, count)
    first, second = (sorted(set(part.tolist())) for part in (codes[:n], codes[n:]))
    levels = [*first, *sorted(set(second) - set(first))]

    # The other version gets all levels first, its own reference level in front, then the reference of this one.
    own = [*second, *sorted(set(levels) - set(second))]
    other = aligned(summary(encoded(x[n:], codes[n:], second), y[n:], block_of(second)), names(second), names(own))
    if own[0] != levels[0]:
        place = own.index(levels[0])
        other = rebased(other, block_of(own), place - 1)
        own[0], own[place] = own[place], own[0]
    this = aligned(summary(encoded(x[:n], codes[:n], first), y[:n], block_of(first)), names(first), names(levels))
    found = this.merge(aligned(other, names(own), names(levels)))

    if len(levels) > 1:
        assert_same(found, summary(encoded(x, codes, levels), y, block_of(levels)))
