"""Levels of a category that lose their last row when rows are taken out."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from regression.categories import block_of, encoded, gram_about, rows_of, summary

from app.regression.column_changes import aligned
from app.regression.dependencies import linear_dependencies
from app.regression.downdate import downdate
from app.regression.errors import InvalidData, NotIncluded
from app.regression.fit import ArrayData, Base, fit_model
from app.regression.least_squares import fit
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics

LEVELS = [0, 1, 2, 3, 4]
BLOCK = block_of(LEVELS)


def forget(
    seed: int, emptied: set[int], *, fit_intercept: bool = True, share: float = 1.0
) -> tuple[SufficientStatistics, SufficientStatistics]:
    """Return the statistics after all rows of some levels and three others are taken out, and those of the rest."""
    x, codes, y = rows_of(seed, 100, 5)
    out = np.isin(codes, list(emptied))
    out[:3] = True
    assume((~out).sum() >= 12)  # enough for all coefficients that they determine
    columns = encoded(x, codes, LEVELS)
    whole = summary(columns, y, BLOCK).discounted_by(share)
    part, rest = (summary(columns[rows], y[rows], BLOCK) for rows in (out, ~out))
    return downdate(whole, part, share, fit_intercept=fit_intercept, blocks=[BLOCK]), rest.discounted_by(share)


emptied_levels = st.sets(st.integers(0, 4), max_size=4)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), emptied_levels, st.booleans(), st.sampled_from([1.0, 0.3]))
def test_forgetting_the_last_rows_of_levels_equals_training_on_the_rest(
    seed: int, emptied: set[int], fit_intercept: bool, share: float
) -> None:
    found, expected = forget(seed, emptied, fit_intercept=fit_intercept, share=share)

    assert found.indicator_rows is not None
    assert_array_equal(found.indicator_rows, expected.indicator_rows)
    assert_array_equal(found.maximum[BLOCK], expected.maximum[BLOCK])
    products, others = gram_about(found, expected.shift), gram_about(expected, expected.shift)
    norms = np.sqrt(np.maximum(np.diag(others), 1))
    assert_allclose(products / norms / norms[:, np.newaxis], others / norms / norms[:, np.newaxis], atol=1e-9)
    solver = Exact(fit_intercept=fit_intercept)
    remaining, afresh = fit(found, solver), fit(expected, solver)
    assert remaining.design.rank == afresh.design.rank
    assert_allclose(remaining.residual_norms, afresh.residual_norms, rtol=1e-7)
    assert_allclose(remaining.coef, afresh.coef, rtol=1e-6, atol=1e-6)
    assert_array_equal(np.isnan(remaining.unscaled_errors), np.isnan(afresh.unscaled_errors))
    assert_allclose(remaining.unscaled_errors, afresh.unscaled_errors, rtol=1e-6)


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_the_column_of_a_level_without_rows_is_exactly_zero(seed: int, level: int) -> None:
    found, _ = forget(seed, {level})

    assert not found.factor[:, level + 1].any()
    assert found.shift[level] == found.minimum[level] == found.maximum[level] == 0
    design = fit(found, Exact()).design
    assert ((level,), True) in [(tuple(found), True) for found, _ in linear_dependencies(found, design)]


def test_a_level_can_come_back_after_its_last_row_was_taken_out() -> None:
    x, codes, y = rows_of(1, 100, 5)
    columns, out = encoded(x, codes, LEVELS), codes == 2
    whole, part = summary(columns, y, BLOCK), summary(columns[out], y[out], BLOCK)

    found = downdate(whole, part, blocks=[BLOCK]).merge(part)

    assert_array_equal(found.indicator_rows, whole.indicator_rows)
    assert_allclose(fit(found, Exact()).coef, fit(whole, Exact()).coef, rtol=1e-7)


@pytest.mark.parametrize("emptied", [(0, 1, 3), (1, 0, 3), (3, 1, 0)])
def test_levels_can_be_emptied_one_forget_after_the_other(emptied: tuple[int, ...]) -> None:
    x, codes, y = rows_of(1, 100, 5)
    columns = encoded(x, codes, LEVELS)
    statistics = summary(columns, y, BLOCK)

    for level in emptied:
        out = codes == level
        statistics = downdate(statistics, summary(columns[out], y[out], BLOCK), blocks=[BLOCK])

    rest = np.isin(codes, [2, 4])
    expected = fit(summary(columns[rest], y[rest], BLOCK), Exact())
    assert fit(statistics, Exact()).design.rank == expected.design.rank
    assert_allclose(fit(statistics, Exact()).residual_norms, expected.residual_norms, rtol=1e-8)


def test_more_rows_of_a_level_than_there_are_are_refused() -> None:
    x, codes, y = rows_of(1, 100, 5)
    columns, chosen = encoded(x, codes, LEVELS), np.flatnonzero(codes == 2)
    rows = np.append(chosen, chosen[0])

    with pytest.raises(NotIncluded, match="more rows of a level"):
        downdate(summary(columns, y, BLOCK), summary(columns[rows], y[rows], BLOCK), blocks=[BLOCK])


def test_another_column_that_the_rest_does_not_determine_is_still_refused() -> None:
    x, codes, y = rows_of(1, 100, 5)
    x[:, 1] = codes == 2  # a number that only the rows of one level have
    columns, out = encoded(x, codes, LEVELS), codes == 2
    whole, part = summary(columns, y, BLOCK), summary(columns[out], y[out], BLOCK)

    with pytest.raises(InvalidData, match="too few remain"):
        downdate(whole, part, blocks=[BLOCK])


def test_a_category_alone_without_an_intercept_keeps_one_level() -> None:
    _, codes, y = rows_of(1, 100, 2)
    columns, block, out = codes[:, np.newaxis].astype(np.float64), slice(0, 1), codes == 1
    whole, part = summary(columns, y, block), summary(columns[out], y[out], block)

    assert fit(downdate(whole, part, blocks=[block]), Exact()).design.rank == 1
    with pytest.raises(InvalidData, match="too few remain"):
        downdate(whole, part, fit_intercept=False, blocks=[block])


def test_a_fit_counts_the_rows_of_levels_updates_and_forgets_them() -> None:
    x, codes, y = rows_of(1, 100, 5)
    names = ("first", *(f"level[{level}]" for level in LEVELS[1:]), "second")

    def data(rows: np.ndarray, levels: list[int]) -> ArrayData:
        features = tuple(name for name in names if not name.startswith("level") or int(name[6]) in levels)
        columns = encoded(x[rows], codes[rows], levels)
        return ArrayData(columns, y[rows], features, ("a", "b"), blocks=(block_of(levels),))

    old, new = codes != 3, codes == 3
    first = fit_model(data(old, [0, 1, 2, 4]), Exact())
    base = aligned(first.statistics, first.model.features, names)
    both = fit_model(data(new, LEVELS), Exact(), base=Base(base))
    again = fit_model(data(new, LEVELS), Exact(), base=Base(both.statistics, "forget"))

    assert_array_equal(both.statistics.indicator_rows, summary(encoded(x, codes, LEVELS), y, BLOCK).indicator_rows)
    assert_array_equal(again.statistics.indicator_rows, base.indicator_rows)
    assert again.model.rank == first.model.rank == both.model.rank - 1
    kept = [0, 1, 2, 4, 5]
    assert_allclose(again.model.coef[:, kept], first.model.coef, rtol=1e-6)
    assert again.model.inference_unavailable is None
