"""Rows taken out of the statistics again."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from regression.exact import ExactFit
from regression.sequences import publish

from app.regression.downdate import downdate
from app.regression.errors import InvalidData
from app.regression.least_squares import fit
from app.regression.precision import FAILED_FROM, WITHHELD_FROM, precision_bounds, precision_loss
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch


def some_rows(seed: int, rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 3)) * [1, 10, 0.1] + [0, 50, 3]
    return x, x @ random.normal(size=(3, 2)) + random.normal(size=(rows, 2))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_forgetting_equals_a_fit_from_scratch_on_the_rows_that_remain(seed: int, forgotten: int) -> None:
    x, y = some_rows(seed, 60)
    whole, part = SufficientStatistics.from_rows(x, y), SufficientStatistics.from_rows(x[:forgotten], y[:forgotten])

    found, expected = downdate(whole, part), SufficientStatistics.from_rows(x[forgotten:], y[forgotten:])

    assert (found.rows, found.effective_rows) == (expected.rows, expected.effective_rows)
    assert found.total_weight == pytest.approx(expected.total_weight, rel=1e-9)
    assert_allclose(fit(found, Exact()).coef, fit(expected, Exact()).coef, rtol=1e-9, atol=1e-9)
    assert_allclose(fit(found, Exact()).residual_norms ** 2, fit(expected, Exact()).residual_norms ** 2, rtol=1e-7)


def test_updating_and_forgetting_again_changes_nothing() -> None:
    x, y = some_rows(1, 80)
    first, second = SufficientStatistics.from_rows(x[:50], y[:50]), SufficientStatistics.from_rows(x[50:], y[50:])

    found = downdate(first.merge(second), second)

    assert_allclose(fit(found, Exact()).coef, fit(first, Exact()).coef, rtol=1e-9)


def test_rows_of_a_perfect_fit_can_be_forgotten() -> None:
    x, _ = some_rows(2, 20)
    y = x[:, :1] + 1

    found = downdate(SufficientStatistics.from_rows(x, y), SufficientStatistics.from_rows(x[:9], y[:9]))

    assert_allclose(fit(found, Exact()).coef, [[1, 0, 0]], atol=1e-9)


def test_rows_that_were_never_there_are_refused() -> None:
    x, y = some_rows(3, 40)
    whole = SufficientStatistics.from_rows(x, y)

    with pytest.raises(InvalidData, match="not among"):
        downdate(whole, SufficientStatistics.from_rows(x[:3] + 1000, y[:3]))  # outside the ranges
    with pytest.raises(InvalidData, match="not among"):
        downdate(whole, SufficientStatistics.from_rows(x[:3], y[:3] + 1000))  # squares would be negative


def test_rows_without_which_the_rank_falls_are_refused() -> None:
    x, y = some_rows(4, 10)
    whole = SufficientStatistics.from_rows(x, y)

    with pytest.raises(InvalidData, match="too few remain"):
        downdate(whole, SufficientStatistics.from_rows(x[:7], y[:7]))
    with pytest.raises(InvalidData, match="all of them"):
        downdate(whole, whole)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.01, 1))
def test_decay_is_a_weight_on_every_row(seed: int, share: float) -> None:
    x, y = some_rows(seed, 30)

    found = SufficientStatistics.from_rows(x, y).discounted_by(share)

    weighted = summarise([TrainingBatch(x, y, np.full(30, share))])
    assert_allclose(np.abs(found.raw_factor), np.abs(weighted.raw_factor), rtol=1e-9, atol=1e-9)
    assert found.total_weight == pytest.approx(30 * share)
    assert found.rows == 30
    assert found.effective_rows == pytest.approx(30 * share)


def summed(x: NDArray[np.float64], y: NDArray[np.float64]) -> SufficientStatistics:
    return summarise([TrainingBatch(x, y)])


def exact_errors(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the true standard errors of one target, the intercept first."""
    exact = ExactFit.of(x, y, [Fraction(1)] * len(x), shift=np.zeros(x.shape[1] + 1))
    variances = exact.rss[0] / (len(x) - exact.rank) * exact.variances
    return np.asarray(np.sqrt(variances.astype(np.float64)))


def straight_line(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(50, 1))
    return x, 2 * x + 1 + 0.9 * random.normal(size=(50, 1))


@pytest.mark.parametrize("size", [10.0**power for power in range(8, 15)])
def test_standard_errors_after_an_outlier_is_forgotten_are_right_or_not_published(size: float) -> None:
    x, y = straight_line(1)
    outlier = np.array([[0.3]]), np.array([[size]])
    whole = summed(np.vstack([x, outlier[0]]), np.vstack([y, outlier[1]]))

    remaining = downdate(whole, summed(*outlier))

    assert precision_loss(remaining) > 1e12
    with pytest.raises(InvalidData, match="Too many digits were lost"):
        publish(remaining, Exact(), None)


@pytest.mark.parametrize("size", [1e1, 1e2, 1e3])
def test_standard_errors_after_a_small_outlier_is_forgotten_are_published_and_right(size: float) -> None:
    x, y = straight_line(1)
    outlier = np.array([[0.3]]), np.array([[size]])
    whole = summed(np.vstack([x, outlier[0]]), np.vstack([y, outlier[1]]))

    published = publish(downdate(whole, summed(*outlier)), Exact(), None)

    assert published.inference is not None
    assert_allclose(published.inference.standard_errors[0], exact_errors(x, y), rtol=WITHHELD_FROM)


def test_the_loss_of_precision_is_that_of_the_worst_direction_not_of_the_worst_column() -> None:
    random = np.random.default_rng(5)
    first = random.normal(size=50)
    x = np.column_stack([first, first + 1e-6 * random.normal(size=50)])
    y = x @ [[1.0], [1.0]] + random.normal(size=(50, 1))
    separating = np.array([[1.0, -1.0]]), np.array([[0.0]])
    whole = summed(np.vstack([x, separating[0]]), np.vstack([y, separating[1]]))

    remaining = downdate(whole, summed(*separating))

    difference = x[:, 1] - x[:, 0]
    assert precision_loss(remaining) == pytest.approx(4 / ((difference - difference.mean()) ** 2).sum(), rel=0.1)
    published = publish(remaining, Exact(), None)
    assert published.withheld is not None
    exact = ExactFit.of(x, y, [Fraction(1)] * 50, shift=np.zeros(3))
    error = np.abs(published.model.coef - exact.slopes.T.astype(float)) / exact_errors(x, y)[1:]
    assert 1e-6 < error.max() < FAILED_FROM


def test_a_coefficient_that_may_be_off_by_a_thousandth_of_its_standard_error_fails() -> None:
    random = np.random.default_rng(5)
    first = random.normal(size=50)
    x = np.column_stack([first, first + 1e-6 * random.normal(size=50)])
    y = x @ [[1.0], [1.0]] + random.normal(size=(50, 1))
    separating = np.array([[3.0, -3.0]]), np.array([[0.0]])
    remaining = downdate(summed(np.vstack([x, separating[0]]), np.vstack([y, separating[1]])), summed(*separating))

    with pytest.raises(InvalidData, match="Train the model again from the rows that remain"):
        publish(remaining, Exact(), None)


def test_adding_rows_lowers_the_loss_of_precision_and_decay_does_not_change_it() -> None:
    x, y = straight_line(2)
    outlier = np.array([[0.3]]), np.array([[1e5]])
    lost = downdate(summed(np.vstack([x, outlier[0]]), np.vstack([y, outlier[1]])), summed(*outlier))
    more = straight_line(3)

    assert precision_loss(lost) == pytest.approx(1e10 / fit(summed(x, y), Exact()).residual_norms[0] ** 2, rel=0.1)
    assert precision_loss(lost.discounted_by(0.01)) == pytest.approx(precision_loss(lost), rel=1e-6)
    assert precision_loss(lost.merge(summed(*more))) == pytest.approx(precision_loss(lost) / 2, rel=0.3)
    assert precision_loss(summed(x, y)) == 1


def forget_one_by_one(seed: int) -> None:
    """Forget single rows of small random sets until it is refused."""
    random = np.random.default_rng(seed)
    p, n = int(random.integers(1, 4)), int(random.integers(5, 12))
    x = random.normal(size=(n, p)) * 10.0 ** random.integers(-3, 4, p) + 10.0 ** random.integers(0, 6)
    y = x @ random.normal(size=(p, 1)) + 10.0 ** random.integers(-3, 2) * random.normal(size=(n, 1))
    statistics = summed(x, y)
    for row in range(n):
        part = summed(x[row : row + 1], y[row : row + 1])
        if statistics.rows == p + 1:
            with pytest.raises(InvalidData, match="too few"):
                downdate(statistics, part)
            return
        statistics = downdate(statistics, part)
        assert fit(statistics, Exact()).design.rank == p + 1 <= statistics.rows == n - row - 1


@pytest.mark.slow
def test_rows_forgotten_one_at_a_time_are_refused_when_fewer_rows_than_coefficients_would_remain() -> None:
    for seed in range(60):
        forget_one_by_one(seed)


def test_rows_that_add_up_to_more_than_there_is_are_refused() -> None:
    x, y = some_rows(5, 40)
    whole = SufficientStatistics.from_rows(x, y)

    with pytest.raises(InvalidData, match="a sum of squares would fall below zero"):
        downdate(whole, SufficientStatistics.from_rows(np.repeat(x[:1], 30, axis=0), np.repeat(y[:1], 30, axis=0)))


def test_rows_with_a_direction_that_the_sum_does_not_have_are_refused() -> None:
    x, y = some_rows(6, 40)
    x[:, 2] = x[:, 0] - x[:, 1]
    whole = SufficientStatistics.from_rows(x, y)
    other = x[:3].copy()
    other[:, 2] = np.median(x[:, 2])

    with pytest.raises(InvalidData, match="they vary in a direction in which the version's rows do not"):
        downdate(whole, SufficientStatistics.from_rows(other, y[:3]))


def test_more_rows_than_there_are_are_refused() -> None:
    x, y = some_rows(7, 20)
    whole = SufficientStatistics.from_rows(x, y)

    with pytest.raises(InvalidData, match="they are 21 rows, and the version has 20"):
        downdate(whole, SufficientStatistics.from_rows(np.vstack([x, x[:1]]), np.vstack([y, y[:1]])))


def test_rows_that_were_never_added_but_fit_into_the_sum_are_not_detected() -> None:
    x, y = some_rows(8, 40)
    whole = SufficientStatistics.from_rows(x, y)
    middle = x.mean(axis=0, keepdims=True), y.mean(axis=0, keepdims=True)

    assert downdate(whole, SufficientStatistics.from_rows(*middle)).rows == 39


def test_a_part_of_a_frequency_weight_can_be_forgotten() -> None:
    x, y = some_rows(9, 8)
    weights = np.array([3.0, 1, 1, 1, 2, 1, 4, 1])
    lost = np.array([2.0, 0, 0, 0, 1, 0, 3, 0])
    whole = summarise([TrainingBatch(x, y, weights)], weight_kind="frequency")
    part = summarise([TrainingBatch(x, y, lost)], weight_kind="frequency")

    found = downdate(whole, part)

    assert found.effective_rows == 8
    assert_allclose(fit(found, Exact()).coef, fit(summed(x, y), Exact()).coef, rtol=1e-9)
    assert_allclose(fit(found, Exact()).residual_norms, fit(summed(x, y), Exact()).residual_norms, rtol=1e-9)


def test_the_rank_does_not_exceed_the_rows_that_parts_of_frequency_weights_leave() -> None:
    x, y = some_rows(10, 6)
    whole = summarise([TrainingBatch(x, y, np.full(6, 2.0))], weight_kind="frequency")

    found = downdate(whole, summarise([TrainingBatch(x[:5], y[:5], np.ones(5))], weight_kind="frequency"))

    assert found.effective_rows == 7
    assert fit(found, Exact()).design.rank == 4
    assert found.rows == 7


def test_a_forget_after_a_larger_one_has_the_error_of_the_largest_sum() -> None:
    # The errors that the first forget left exceed those of the sum that remains after it.
    x, y = straight_line(4)
    huge, large = (np.array([[0.1]]), np.array([[5e13]])), (np.array([[0.2]]), np.array([[9e9]]))
    whole = summed(np.vstack([x, huge[0], large[0]]), np.vstack([y, huge[1], large[1]]))
    whole = downdate(whole, summed(*huge))

    with pytest.raises(InvalidData, match="Too many digits were lost"):
        publish(downdate(whole, summed(*large)), Exact(), None)


def test_residual_sums_about_zero_after_a_forget_are_within_their_bound() -> None:
    # Far from zero, rounding the columns about zero costs more than the sums about their shift have lost.
    random = np.random.default_rng(6)
    x = 1e9 + random.normal(size=(30, 2)) ** 5
    y = x @ [[1.0], [0.5]] + 1e11 + random.normal(size=(30, 1))
    remaining = downdate(summed(x, y), summed(x[:3], y[:3]))

    fitted = fit(remaining, Exact(fit_intercept=False))

    exact = ExactFit.of(x[3:], y[3:], [Fraction(1)] * 27, shift=np.zeros(3), intercept=False)
    bounds = precision_bounds(remaining, fitted)
    assert bounds is not None
    error = abs(float(fitted.residual_norms[0] ** 2 / exact.rss[0] - 1))
    assert error <= bounds.rss[0]


def test_inference_is_withheld_if_only_standard_errors_lost_their_digits() -> None:
    # A later outlier of the target hides in the residual sums what an earlier one of the feature cost.
    x, y = straight_line(7)
    far, outlier = (np.array([[1e5]]), np.array([[2e5]])), (np.array([[0.5]]), np.array([[1e9]]))
    remaining = downdate(summed(np.vstack([x, far[0]]), np.vstack([y, far[1]])), summed(*far)).merge(summed(*outlier))

    bounds = precision_bounds(remaining, fit(remaining, Exact()))
    published = publish(remaining, Exact(), None)

    assert bounds is not None
    assert bounds.rss[0] < WITHHELD_FROM < bounds.standard_errors[1]
    assert np.nanmax(bounds.coefficients) < FAILED_FROM
    assert published.inference is None


def test_rows_that_count_more_than_decay_has_left_are_refused() -> None:
    x, y = some_rows(11, 40)
    whole = summed(x, y).discounted_by(0.01)
    middle = np.repeat(x.mean(axis=0, keepdims=True), 2, axis=0), np.repeat(y.mean(axis=0, keepdims=True), 2, axis=0)

    with pytest.raises(InvalidData, match="with their weights they count as 2 rows"):
        downdate(whole, summed(*middle))


def test_a_part_of_frequency_weights_can_be_forgotten_after_decay() -> None:
    x, y = some_rows(12, 20)
    old = summarise([TrainingBatch(x[:14], y[:14], np.full(14, 3.0))], weight_kind="frequency").discounted_by(0.25)
    new = summarise([TrainingBatch(x[14:], y[14:], np.ones(6))], weight_kind="frequency")
    part = summarise([TrainingBatch(x[:14], y[:14], np.ones(14))], weight_kind="frequency")

    once = downdate(old.merge(new), part, 0.25)
    twice = downdate(once, part, 0.25)

    weights = np.array([*np.full(14, 0.25), *np.ones(6)])
    expected = summarise([TrainingBatch(x, y, weights)])
    assert twice.effective_rows == pytest.approx(9.5)
    assert_allclose(fit(twice, Exact()).coef, fit(expected, Exact()).coef, rtol=1e-9)


def test_rows_whose_residuals_the_sum_has_lost_are_among_the_rows() -> None:
    # Next to an outlier that was added and forgotten, the residuals of the other rows are below all digits.
    x, y = straight_line(8)
    y = 2 * x + 1e-4 * (y - 2 * x)
    outlier = np.array([[0.3]]), np.array([[1e14]])
    remaining = downdate(summed(np.vstack([x, outlier[0]]), np.vstack([y, outlier[1]])), summed(*outlier))

    again = downdate(remaining, summed(x[:2], y[:2]))

    with pytest.raises(InvalidData, match="Too many digits were lost"):
        publish(again, Exact(), None)


@pytest.mark.parametrize("l2", [1e-6, 1.0, 1e3])
def test_the_residual_sum_of_a_ridge_after_a_forget_is_within_its_bound(l2: float) -> None:
    x, y = straight_line(9)
    outlier = np.array([[1e4]]), np.array([[1e5]])
    remaining = downdate(summed(np.vstack([x, outlier[0]]), np.vstack([y, outlier[1]])), summed(*outlier))
    fitted = fit(remaining, Exact(l2=l2))

    bounds = precision_bounds(remaining, fitted, l2=l2)

    exact = ExactFit.of(x, y, [Fraction(1)] * 50, shift=np.zeros(2), penalty=l2 / 50)
    assert bounds is not None
    assert abs(float(fitted.residual_norms[0] ** 2 / exact.rss[0] - 1)) <= bounds.rss[0]


def frequencies(rows: slice, times: list[int]) -> SufficientStatistics:
    x, y = some_rows(5, 12)
    block = TrainingBatch(x[rows], y[rows], np.array(times, dtype=float))
    return summarise([block], weight_kind="frequency")


def test_row_counts_and_weights_are_taken_out_too() -> None:
    x, y = some_rows(6, 20)
    weights = np.random.default_rng(6).uniform(0.5, 2, 20)
    whole, part = summarise([TrainingBatch(x, y, weights)]), summarise([TrainingBatch(x[15:], y[15:], weights[15:])])

    found = downdate(replace(whole, operations=3), replace(part, operations=2))

    assert (found.rows, found.effective_rows, found.operations) == (15, 15.0, 6)
    assert found.log_weights == pytest.approx(np.log(weights[:15]).sum())
    assert found.total_weight == pytest.approx(weights[:15].sum())


def test_rows_that_decayed_are_taken_out_with_the_share_that_is_left() -> None:
    x, y = some_rows(7, 30)
    old, new = SufficientStatistics.from_rows(x[:10], y[:10]), SufficientStatistics.from_rows(x[10:], y[10:])

    found = downdate(old.discounted_by(0.25).merge(new), SufficientStatistics.from_rows(x[:4], y[:4]), 0.25)

    weights = np.where(np.arange(4, 30) < 10, 0.25, 1.0)
    expected = summarise([TrainingBatch(x[4:], y[4:], weights)])
    assert found.effective_rows == pytest.approx(21.5)
    assert_allclose(fit(found, Exact()).coef, fit(expected, Exact()).coef, rtol=1e-9)
    assert_allclose(fit(found, Exact()).residual_norms, fit(expected, Exact()).residual_norms, rtol=1e-9)


def test_without_an_intercept_a_column_may_become_constant() -> None:
    x, y = some_rows(12, 22)
    x[:, 0] = np.where(np.arange(22) < 20, 1.0, 0.0)
    whole, part = summed(x, y), summed(x[20:], y[20:])

    found = fit(downdate(whole, part, fit_intercept=False), Exact(fit_intercept=False))

    expected = np.linalg.lstsq(x[:20], y[:20])[0].T
    assert_allclose(found.coef, expected, rtol=1e-9)
    assert found.design.full_rank
    with pytest.raises(InvalidData, match="too few"):
        downdate(whole, part)


def test_part_of_the_observations_of_a_row_can_be_taken_out() -> None:
    whole = frequencies(slice(0, 12), [3] * 12)

    one_each = downdate(whole, frequencies(slice(0, 12), [1] * 12))
    all_of_two = downdate(whole, frequencies(slice(0, 2), [3, 3]))
    down_to_few = downdate(whole, frequencies(slice(0, 11), [2] * 11))

    assert (one_each.rows, one_each.effective_rows) == (24, 24.0)
    assert (all_of_two.rows, all_of_two.effective_rows) == (30, 30.0)
    assert (down_to_few.rows, down_to_few.effective_rows) == (14, 14.0)
    with pytest.raises(InvalidData, match="they are 39 rows, and the version has 36"):
        downdate(whole, frequencies(slice(0, 12), [4, 4, 4, *[3] * 9]))


def test_no_more_rows_remain_than_observations() -> None:
    x, y = some_rows(5, 12)
    x[1], y[1] = x[0], y[0]
    whole = summarise([TrainingBatch(x, y, np.ones(12))], weight_kind="frequency")

    found = downdate(whole, summarise([TrainingBatch(x[:1], y[:1], np.array([2.0]))], weight_kind="frequency"))

    assert (found.rows, found.effective_rows) == (10, 10.0)


def test_frequencies_that_decayed_keep_their_observations() -> None:
    whole = frequencies(slice(0, 12), [3] * 12).discounted_by(0.5)

    found = downdate(whole, frequencies(slice(0, 7), [3] * 7), 0.5)

    assert (found.rows, found.effective_rows) == (15, 7.5)


def test_rows_of_another_kind_of_weights_or_more_rows_than_there_are_are_refused() -> None:
    x, y = some_rows(8, 12)
    whole = SufficientStatistics.from_rows(x, y)

    with pytest.raises(InvalidData, match="frequency weights, and the version has precision weights"):
        downdate(whole, frequencies(slice(0, 2), [1, 1]))
    with pytest.raises(InvalidData, match="they are 24 rows, and the version has 12"):
        downdate(whole, SufficientStatistics.from_rows(np.tile(x, (2, 1)), np.tile(y, (2, 1))))


@pytest.mark.parametrize("beyond", [-1000.0, 1000.0])
@pytest.mark.parametrize("feature", [0, 2])
def test_a_value_outside_the_range_of_one_feature_is_refused(beyond: float, feature: int) -> None:
    x, y = some_rows(9, 40)
    row = x[:1].copy()
    row[0, feature] = beyond

    with pytest.raises(InvalidData, match="a value lies outside the range of its feature"):
        downdate(SufficientStatistics.from_rows(x, y), SufficientStatistics.from_rows(row, y[:1]))


def test_as_many_rows_as_coefficients_may_remain_and_no_fewer() -> None:
    x, y = some_rows(10, 12)
    whole = SufficientStatistics.from_rows(x, y)

    assert downdate(whole, SufficientStatistics.from_rows(x[:8], y[:8])).rows == 4
    with pytest.raises(InvalidData, match="3 rows cannot determine 4 coefficients"):
        downdate(whole, SufficientStatistics.from_rows(x[:9], y[:9]))


def test_a_feature_that_becomes_constant_is_refused() -> None:
    x, y = some_rows(11, 30)
    x[:, 1] = 5.0
    x[:4, 1] = [0.0, 1.0, 2.0, 3.0]

    with pytest.raises(InvalidData, match="too few remain to determine the coefficients"):
        downdate(SufficientStatistics.from_rows(x, y), SufficientStatistics.from_rows(x[:4], y[:4]))


def test_rows_can_be_taken_out_if_columns_are_constant_or_dependent() -> None:
    x, y = some_rows(12, 30)
    x = np.column_stack([x, x[:, 0] + x[:, 2], np.full(30, 3.0)])

    found = downdate(SufficientStatistics.from_rows(x, y), SufficientStatistics.from_rows(x[:5], y[:5]))

    expected = fit(SufficientStatistics.from_rows(x[5:], y[5:]), Exact())
    assert_allclose(fit(found, Exact()).coef, expected.coef, rtol=1e-8, atol=1e-9)
    assert fit(found, Exact()).design.rank == 4


@pytest.mark.parametrize("noise", [1e-15, 1e-14, 3e-14, 1e-13, 1e-12])
def test_residuals_near_rounding_errors_are_withheld_after_a_forget(noise: float) -> None:
    random = np.random.default_rng(13)
    x = random.normal(size=(30, 1))
    y = 2 * x + 1 + noise * random.normal(size=(30, 1))
    remaining = downdate(summed(x, y), summed(x[:1], y[:1]))

    published = publish(remaining, Exact(), None)

    assert published.withheld is not None
    assert np.isnan(published.model.residual_norms).all()
