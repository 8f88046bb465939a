"""Each threshold that decides whether digits are trusted, on both of its sides, with the error that it guards against.

Rows are made of orthogonal columns of 1 and -1, so that what a threshold is compared with is known beforehand. The
errors are differences from rational arithmetic.
"""

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pytest
from exact import exact_fit, rational, worst
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.linalg import hadamard

from app.regression import cross_products, extended_precision, streaming_qr
from app.regression.downdate import NOT_AMONG, TOO_FEW, downdate
from app.regression.errors import InvalidData
from app.regression.extended_precision import refine, should_refine
from app.regression.least_squares import Fit, fit, is_essentially_perfect, is_optimal
from app.regression.precision import (
    PRECISION_LOST,
    RESIDUALS_UNKNOWN,
    PrecisionBounds,
    check_precision,
    precision_bounds,
)
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import EPSILON, SufficientStatistics, r_factor
from app.regression.summaries import summarise
from app.regression.training_batch import TrainingBatch
from app.regression.triangular import whiten

Array: TypeAlias = NDArray[np.float64]

# Columns of 8 rows, the first of them all 1.
A, B, C, D = hadamard(8).astype(float).T[1:5]


def column(values: Any) -> Array:
    return np.asarray(values, dtype=float).reshape(-1, 1)


def statistics_of(x: Array, y: Array) -> SufficientStatistics:
    return summarise([TrainingBatch(x, y)])


class TestRankTolerance:
    """64 units of rounding for each of two columns and the intercept: 4.3e-14, here a half of the gap."""

    def fit(self, gap: float) -> tuple[Array, Array, Fit]:
        x, y = np.column_stack([A, A + gap * B]), column(A + 3 * gap * B + 0.5 * gap * C)
        return x, y, fit(statistics_of(x, y), Exact())

    def test_above_it_a_coefficient_has_a_digit(self) -> None:
        x, y, found = self.fit(2.0**-43)

        assert found.design.rank == 3
        assert worst(found.coef, exact_fit(x, y).coefficients[1:].T) < 0.2

    def test_below_it_columns_count_as_dependent(self) -> None:
        _, _, found = self.fit(2.0**-44)

        assert found.design.rank == 2
        assert_allclose(found.coef, [[0.5, 0.5]], rtol=1e-12)

    def test_a_sum_of_columns_that_is_rounded_counts_as_dependent(self) -> None:
        for seed in range(20):
            random = np.random.default_rng(seed)
            x = random.normal(size=(50, 3)) + 100
            x[:, 2] = 0.1 * x[:, 0] + 0.7 * x[:, 1]
            y = column(x[:, 0] + random.normal(size=50))

            found = fit(statistics_of(x, y), Exact())

            # The solution of the rounded rows is made of rounding errors.
            assert np.abs(exact_fit(x, y).coef).max() > 1e9
            assert found.design.rank == 3
            assert np.abs(found.coef).max() < 2


class TestIdentifiable:
    """The part of a unit vector outside the row space, here 0.707 times the gap: of x1 if x3 = x2 + gap x1."""

    def fit(self, gap: float) -> Fit:
        x = np.column_stack([A, B, B + gap * A])
        return fit(statistics_of(x, column(2 * A + 3 * B + C)), Exact())

    def test_above_it_a_coefficient_has_no_standard_error(self) -> None:
        assert np.isnan(self.fit(2.0**-26).unscaled_errors[1:]).all()

    def test_below_it_the_coefficient_is_the_same_without_either_dependent_column(self) -> None:
        found = self.fit(2.0**-27)

        assert np.isnan(found.unscaled_errors[2:]).all()
        assert found.unscaled_errors[1] == pytest.approx(8**-0.5, rel=1e-7)
        for others in (B, B + 2.0**-27 * A):
            expected = exact_fit(np.column_stack([A, others]), column(2 * A + 3 * B + C))
            assert_allclose(found.coef[0, 0], expected.coef[0, 0], rtol=0, atol=3e-8)


class TestPerfect:
    """32 units of rounding of the terms: the target's root mean square is 1, and the column's 1.41 about its shift."""

    def fit(self, residual: float) -> tuple[SufficientStatistics, Fit, float]:
        x, y = column(A), column(A + residual * B)
        statistics = statistics_of(x, y)
        found = fit(statistics, Exact())
        return statistics, found, worst(found.residual_norms, exact_fit(x, y).residual_norms)

    def test_above_it_residuals_have_a_digit(self) -> None:
        statistics, found, error = self.fit(2.0**-45)

        assert not is_essentially_perfect(statistics, found).any()
        assert error < 0.1

    def test_below_it_residuals_are_rounding_errors(self) -> None:
        statistics, found, _ = self.fit(2.0**-46)

        assert is_essentially_perfect(statistics, found).all()

    def test_decimal_fractions_on_a_line_are_below_it(self) -> None:
        for seed in range(20):
            x = column(np.random.default_rng(seed).integers(0, 10_000, 100) / 100)
            y = 0.1 * x + 0.3
            statistics = statistics_of(x, y)

            assert is_essentially_perfect(statistics, fit(statistics, Exact())).all()


class TestMostExcess:
    """A hundredth of a standard error is the most that a prediction may differ from the optimum's."""

    @pytest.mark.parametrize(("distance", "optimal"), [(0.009, True), (0.011, False)])
    def test_a_descent_is_optimal_up_to_a_hundredth_of_a_standard_error(self, distance: float, optimal: bool) -> None:
        x, y = np.column_stack([A + 0.5 * B, B + 2]), column(A - B + C + 0.25 * D)
        statistics, exact = statistics_of(x, y), exact_fit(x, y)
        design = np.hstack([rational(np.ones((8, 1))), rational(x)])
        # Towards the change that moves the prediction of the first row most, for a change of the residual sum.
        direction = exact.inverse @ design[0]
        error = exact.residual_norms[0] / np.sqrt(5)
        lengths = np.sqrt(((design @ exact.inverse) * design).sum(axis=1).astype(float))
        moved = exact.coefficients + rational(np.array(distance * error / lengths[0])) * direction[:, np.newaxis]
        differences = np.abs((design @ (moved - exact.coefficients))[:, 0].astype(float)) / (error * lengths)
        assert differences.max() == pytest.approx(distance)

        norms = statistics.residual_norms(moved[1:].T.astype(float), moved[0].astype(float))

        assert is_optimal(norms, statistics, fit(statistics, Exact())) is optimal


class TestRefusedDowndates:
    """Remainder of a direction, against 128 units of rounding (2.8e-14) if both parts come from one reading."""

    def sums(self, far: float) -> tuple[SufficientStatistics, SufficientStatistics]:
        """Eight rows and two distant ones. Without these, 4 / far^2 of the column's sum of squares remain."""
        x = column([*A, far, -far])
        y = column([*(A + B), far, -far])
        return statistics_of(x, y), statistics_of(x[8:], y[8:])

    def test_above_the_bound_what_remains_is_known(self) -> None:
        found = downdate(*self.sums(2.0**23))

        error = found.factor[1, 1] ** 2 * found.scale[0] ** 2 / 8 - 1
        # The bound is half of the remainder.
        assert abs(error) < 0.5

    def test_below_the_bound_nothing_remains(self) -> None:
        with pytest.raises(InvalidData) as refused:
            downdate(*self.sums(2.0**24))
        assert refused.value.message == TOO_FEW

    def test_a_direction_of_two_columns_is_refused_too(self) -> None:
        x = np.column_stack([[*A, 0, 0], [*A, 1, -1]])
        y = column([*B, 0, 0])

        with pytest.raises(InvalidData) as refused:
            downdate(statistics_of(x, y), statistics_of(x[8:], y[8:]))
        assert refused.value.message == TOO_FEW

    def test_the_remainder_is_compared_with_the_largest_sum_ever_held(self) -> None:
        """0.08 of 3.5e13, in two removals, neither of which takes out more than it may."""
        far = 2.0**22
        x = column([*(0.1 * A), *A, far, -far])
        y = column([*B, *B, far, -far])
        without_far = downdate(statistics_of(x, y), statistics_of(x[16:], y[16:]))

        with pytest.raises(InvalidData) as refused:
            downdate(without_far, statistics_of(x[8:16], y[8:16]))
        assert refused.value.message == TOO_FEW

    @pytest.mark.parametrize("operations", [1000])
    def test_each_operation_raises_the_bound(self, operations: int) -> None:
        """1000 of them to 32 times as much, so that 2^21 here corresponds to 2^23 and 2^22 to 2^24."""

        def sums(far: float) -> tuple[SufficientStatistics, SufficientStatistics]:
            whole, part = self.sums(far)
            return replace(whole, operations=operations), part

        assert downdate(*sums(2.0**20)).rows == 8
        with pytest.raises(InvalidData) as refused:
            downdate(*sums(2.0**22))
        assert refused.value.message == TOO_FEW

    @pytest.mark.parametrize(("excess", "refused"), [(2.0**-47, False), (2.0**-45, True)])
    def test_a_sum_of_squares_may_fall_below_zero_by_its_bound(self, excess: float, refused: bool) -> None:
        """Rows whose squares are larger than the version's by twice the excess."""
        far = 2.0**30
        x = column([*A, 0, 0])
        y = column([*(A + B), far, -far])
        theirs = column([far, -far]) * (1 + excess)
        whole, part = statistics_of(x, y), statistics_of(x[8:], theirs)

        if refused:
            with pytest.raises(InvalidData, match=NOT_AMONG):
                downdate(whole, part)
        else:
            found = downdate(whole, part)
            assert found.rows == 8
            assert found.removed is not None
            # The change, 2^-46, counts by its ratio to the error of the whole, 2^-47.
            squares = (found.removed[:, 2] ** 2).sum() * found.scale[1] ** 2
            assert squares / (2 * far**2) == pytest.approx(1 + 2.0**-46 / whole.factor_error, rel=0.1)


class TestDirectionTolerance:
    """1e-10 for each of two independent columns; the dependent one has the norm 4 about its shift."""

    def sums(self, gap: float) -> tuple[SufficientStatistics, SufficientStatistics]:
        """A version whose columns are equal, and a row in which they are not."""
        x = np.column_stack([A, A])
        return statistics_of(x, column(A + B)), statistics_of(np.array([[0.0, gap]]), column([0.0]))

    def test_above_it_a_row_cannot_be_in_the_version(self) -> None:
        with pytest.raises(InvalidData, match="they vary in a direction"):
            downdate(*self.sums(2.0**-30))

    def test_below_it_the_row_is_taken_as_one_in_the_span(self) -> None:
        found, expected = downdate(*self.sums(2.0**-31)), downdate(*self.sums(0.0))

        assert_allclose(fit(found, Exact()).coef, fit(expected, Exact()).coef, rtol=0, atol=1e-9)


def without_far_rows(
    far_x: float, far_y: float, *, noise: float = 1.0
) -> tuple[SufficientStatistics, Fit, PrecisionBounds]:
    """Eight rows y = x + noise, from which two distant rows were taken out again."""
    x, y = column([*A, far_x, -far_x]), column([*(A + noise * B), far_y, -far_y])
    found = downdate(statistics_of(x, y), statistics_of(x[8:], y[8:]))
    fitted = fit(found, Exact())
    bounds = precision_bounds(found, fitted)
    assert bounds is not None
    return found, fitted, bounds


class TestWithheldFrom:
    """One part in a million of a residual sum."""

    @pytest.mark.parametrize(("far", "reason"), [(2.0**13, None), (2.0**15, RESIDUALS_UNKNOWN)])
    def test_residual_sums_are_withheld_from_a_millionth_on(self, far: float, reason: str | None) -> None:
        # At x = 0 and on both sides of the line, so that only the residual sum has to do with them.
        found, fitted, bounds = without_far_rows(0.0, far)

        assert check_precision(found, precision_bounds(found, fitted)) == reason
        assert abs(fitted.residual_norms[0] ** 2 / 8 - 1) <= bounds.rss[0]
        assert 1e-7 < bounds.rss[0] < 1e-5

    @pytest.mark.parametrize(("far", "withheld"), [(2.0**13, False), (2.0**15, True)])
    def test_the_total_sum_counts_too(self, far: float, withheld: bool) -> None:
        _, _, bounds = without_far_rows(0.0, far)

        only_totals = replace(bounds, rss=np.zeros(1), tss=bounds.rss)
        assert only_totals.withheld is withheld

    def test_one_target_withholds_all(self) -> None:
        _, _, bounds = without_far_rows(0.0, 2.0**13)

        assert replace(bounds, rss=np.array([1e-9, 1e-5]), tss=np.zeros(2)).withheld
        assert not replace(bounds, rss=np.array([1e-9, 1e-7]), tss=np.zeros(2)).withheld


class TestFailedFrom:
    """A thousandth of a standard error."""

    @pytest.mark.parametrize(("far", "fails"), [(2.0**17, False), (2.0**19, True)])
    def test_a_fit_fails_if_a_coefficient_may_be_off_by_a_thousandth_of_its_error(
        self, far: float, fails: bool
    ) -> None:
        found, fitted, bounds = without_far_rows(far, far)
        exact = exact_fit(column(A), column(A + B))
        standard_error = exact.residual_norms[0] / np.sqrt(6) * exact.unscaled_errors[1]

        assert abs(fitted.coef[0, 0] - 1) <= bounds.coefficients[0, 1] * standard_error
        assert 1e-4 < bounds.coefficients[0, 1] < 1e-2
        if fails:
            with pytest.raises(InvalidData) as failed:
                check_precision(found, precision_bounds(found, fitted))
            assert failed.value.message == PRECISION_LOST
        else:
            assert check_precision(found, precision_bounds(found, fitted)) == RESIDUALS_UNKNOWN


def test_the_sign_of_the_factors_rows_does_not_matter_to_the_bounds() -> None:
    found, fitted, bounds = without_far_rows(100.0, 100.0, noise=0.0)

    other = precision_bounds(replace(found, factor=-found.factor), fitted)

    assert other is not None
    assert other.unusable is bounds.unusable is False
    assert_allclose(other.tss, bounds.tss)


class TestNegligible:
    """A billionth of the target's deviation per deviation of the feature, whatever the standard error is."""

    @pytest.mark.parametrize(("far", "fails"), [(2.0**8, False), (2.0**10, True)])
    def test_a_perfect_fit_fails_if_a_coefficient_may_be_off_by_a_billionth(self, far: float, fails: bool) -> None:
        found, fitted, bounds = without_far_rows(far, far, noise=0.0)

        assert bounds.unusable is fails
        assert abs(fitted.coef[0, 0] - 1) < 1e-9 * (4 if fails else 1)
        if fails:
            with pytest.raises(InvalidData) as failed:
                check_precision(found, precision_bounds(found, fitted))
            assert failed.value.message == PRECISION_LOST
        else:
            assert check_precision(found, precision_bounds(found, fitted)) == RESIDUALS_UNKNOWN

    @pytest.mark.parametrize(("offset", "fails"), [(16.0, False), (256.0, True)])
    def test_the_intercept_counts_in_deviations_of_the_target(self, offset: float, fails: bool) -> None:
        """Its error is that of the slope times the offset, whatever the weights and the unit of the target are."""
        x, y = column([*A, 64, -64]) + offset, column([*A, 64, -64]) * 2.0**10
        weights = np.full(10, 64.0)
        found = downdate(
            summarise([TrainingBatch(x, y, weights)]), summarise([TrainingBatch(x[8:], y[8:], weights[8:])])
        )

        bounds = precision_bounds(found, fit(found, Exact()))

        assert bounds is not None
        assert bounds.unusable is fails


@pytest.fixture
def chunks_of_8_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many rows as columns, the fewest that there can be."""
    monkeypatch.setattr(streaming_qr, "CHUNK_BYTES", 0)


@pytest.fixture
def chunks_of_100_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_qr, "CHUNK_BYTES", 100 * 8 * 4)


@pytest.fixture
def whitenings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each chunk that is whitened."""
    found: list[int] = []

    def noted(columns: Array, factor: Array) -> None:
        found.append(columns.shape[1])
        whiten(columns, factor)

    monkeypatch.setattr(cross_products, "whiten", noted)
    return found


@pytest.fixture
def decompositions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each QR decomposition of a chunk."""
    found: list[int] = []

    def decomposed(rows: Array) -> Array:
        found.append(len(rows))
        return r_factor(rows)

    monkeypatch.setattr(streaming_qr, "r_factor", decomposed)
    return found


def errors_of_rows(x: Array, y: Array) -> tuple[float, float]:
    """Errors, in units of rounding, of the coefficients relative to the largest one, and of the residual norms."""
    found, exact = fit(statistics_of(x, y), Exact()), exact_fit(x, y)
    differences = np.abs((rational(found.coef.T) - exact.coefficients[1:]).astype(float))
    of_norms = worst(found.residual_norms, exact.residual_norms)
    return float(differences.max() / np.abs(exact.coef).max()) / EPSILON, of_norms / EPSILON


@pytest.mark.usefixtures("chunks_of_100_rows")
class TestPlainCondition:
    """Condition numbers of 10 and 100, at which a Gram matrix loses 100 and 10,000 units of rounding."""

    def rows(self, seed: int, condition: float, noise: float = 1.0) -> tuple[Array, Array]:
        random = np.random.default_rng(seed)
        a, b = random.normal(size=(2, 400))
        x = np.column_stack([a + b / condition, a - b / condition])
        return x, column(x @ [1.0, 2.0] + noise * random.normal(size=400))

    def test_below_it_the_gram_matrix_of_the_features_is_exact_enough(self, whitenings: list[int]) -> None:
        errors = [errors_of_rows(*self.rows(seed, 6))[0] for seed in range(6)]

        assert not whitenings
        assert max(errors) < 100

    def test_above_it_whitened_rows_lose_no_more_than_the_condition(self, whitenings: list[int]) -> None:
        errors = [errors_of_rows(*self.rows(seed, 60))[0] for seed in range(6)]

        assert whitenings
        assert max(errors) < 300  # a Gram matrix: 1,000 to 2,000

    def test_below_that_with_targets_residual_sums_are_exact_enough(self, whitenings: list[int]) -> None:
        errors = [errors_of_rows(*self.rows(seed, 1, 0.15))[1] for seed in range(6)]

        assert not whitenings
        assert max(errors) < 10_000

    def test_above_that_with_targets_rows_are_whitened(self, whitenings: list[int]) -> None:
        errors = [errors_of_rows(*self.rows(seed, 1, 0.01))[1] for seed in range(6)]

        assert whitenings
        assert max(errors) < 100  # a Gram matrix: 10,000 to 40,000


@pytest.mark.usefixtures("chunks_of_8_rows")
class TestMostGrowth:
    """A hundredfold growth of the Gram matrix of whitened rows, which loses as many units of rounding."""

    def rows(self, seed: int, growth: float) -> tuple[Array, Array]:
        """Nearly collinear rows, of which the 21st has a whitened length of the root of the growth in each column."""
        random = np.random.default_rng(seed)
        a, b, e = random.normal(size=(3, 64))
        x = np.column_stack([a + b / 30, a - b / 30])
        z = np.column_stack([x, x @ [1.0, 2.0] + 0.1 * e])
        factor = r_factor(np.column_stack([np.ones(16), z[:16]]))
        factor *= np.sign(factor.diagonal())[:, np.newaxis]
        whitened = np.array([1 / factor[0, 0], *np.full(3, np.sqrt(growth))])
        z[20] = (whitened @ factor)[1:]
        return z[:, :2], z[:, 2:]

    @pytest.mark.parametrize(("growth", "decomposed"), [(70.0, 1), (130.0, 2)])
    def test_rows_that_outweigh_those_before_go_through_a_qr_decomposition(
        self, decompositions: list[int], growth: float, decomposed: int
    ) -> None:
        x, y = self.rows(0, growth)

        of_weights, of_norms = errors_of_rows(x, y)

        assert len(decompositions) == decomposed
        assert max(of_weights, of_norms) < 1000

    def test_rows_far_out_lose_half_the_digits_that_a_gram_matrix_loses(self) -> None:
        errors = [errors_of_rows(*self.rows(seed, 1e10))[1] for seed in range(6)]

        assert max(errors) < 1e7  # a Gram matrix: 1e9


@pytest.mark.usefixtures("chunks_of_100_rows")
class TestMostCondition:
    """A condition number of 1e8, up to which whitening is as accurate as QR in theory; in practice it is beyond too."""

    def rows(self, gap: float) -> tuple[Array, Array]:
        random = np.random.default_rng(1)
        a, b, e = random.normal(size=(3, 400))
        return np.column_stack([a, a + gap * b]), column(3 * a + 2 * gap * b + gap * e)

    @pytest.mark.parametrize(("gap", "whitened"), [(2e-7, True), (2e-8, False)])
    def test_rows_too_near_to_singular_go_through_qr_decompositions(
        self, whitenings: list[int], decompositions: list[int], gap: float, whitened: bool
    ) -> None:
        x, y = self.rows(gap)

        of_weights, of_norms = errors_of_rows(x, y)

        assert len(decompositions) == (1 if whitened else 4)
        assert bool(whitenings) is whitened
        assert max(of_weights, of_norms) < 10 / gap


class TestOrdinary:
    """Sizes of 2^-300 and 2^300, outside which columns are scaled. Squares overflow at 2^512, so that 2^300 does not
    limit accuracy: it leaves room for sums of squares of rows that come later.
    """

    @pytest.mark.parametrize("power", [-800, -520, -480, -301, -299, 299, 301, 480, 520, 800])
    @pytest.mark.parametrize("of_target", [False, True])
    def test_a_column_of_any_size_keeps_its_digits(self, power: int, of_target: bool) -> None:
        random = np.random.default_rng(1)
        x = random.normal(size=(50, 2))
        y = column(x @ [1.0, 2.0] + random.normal(size=50))
        expected = fit(statistics_of(x, y), Exact())
        unit = np.array([1.0, 1.0]) if of_target else np.array([2.0**power, 1.0])
        target = 2.0**power if of_target else 1.0

        found = fit(statistics_of(x * unit, y * target), Exact())

        assert_allclose(found.coef * unit / target, expected.coef, rtol=1e-14)
        assert_allclose(found.residual_norms / target, expected.residual_norms, rtol=1e-14)

    @pytest.mark.parametrize("first", [1e-300, 1e300])
    def test_a_column_may_begin_with_another_size_than_it_has(self, first: float) -> None:
        x = np.concatenate([[0.0, first], np.arange(1.0, 9.0)])[:, np.newaxis]
        blocks = [TrainingBatch(x[:2], x[:2]), TrainingBatch(x[2:], x[2:])]

        found = summarise(blocks)

        deviations = x / max(1.0, first) - (x / max(1.0, first)).mean()
        norm = np.linalg.norm(found.centred_factor[:, 0] / max(1.0, first))
        assert norm == pytest.approx(np.linalg.norm(deviations), rel=1e-12)

    @pytest.mark.parametrize("power", [-250, -100, 100, 250])
    def test_columns_of_ordinary_size_are_not_scaled(self, power: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streaming_qr, "CHUNK_BYTES", 0)
        random = np.random.default_rng(1)
        x = random.normal(size=(50, 2)) * 2.0**power
        y = column(random.normal(size=50))
        made = streaming_qr.StreamingQR(TrainingBatch(x, y))

        made.add(TrainingBatch(x, y))

        assert not made._exponents.any()

    def test_a_column_that_grows_by_many_sizes_keeps_its_digits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streaming_qr, "CHUNK_BYTES", 0)
        random = np.random.default_rng(1)
        x = random.normal(size=(50, 1)) * np.where(np.arange(50) < 30, 2.0**-299, 2.0**299)[:, np.newaxis]
        y = column(random.normal(size=50))

        found = fit(statistics_of(x, y), Exact())

        assert worst(found.coef, exact_fit(x, y).coefficients[1:].T) < 1e-13


class TestNoise:
    """A residual sum of 1e-28 of the target's, below which it is taken as zero."""

    @pytest.fixture(params=[np.inf, 0.0], ids=["fixed point", "double-double"], autouse=True)
    def in_fixed_point(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
        monkeypatch.setattr(extended_precision, "LITTLE_WORK", request.param)
        return bool(request.param)

    def norm(self, residual: float) -> float:
        rows = [TrainingBatch(column(A), column(A + residual * B))]
        return float(refine(rows, summarise(rows), fit_intercept=True).residual_norms[0])

    def test_above_it_residuals_have_their_digits_or_are_not_known(self, in_fixed_point: bool) -> None:
        found = self.norm(2.0**-46) * 2.0**46
        assert found == pytest.approx(8**0.5, rel=1e-3) if in_fixed_point else np.isnan(found)

    def test_residuals_are_known_to_one_part_in_a_million_or_not_at_all(self, in_fixed_point: bool) -> None:
        known = [np.isfinite(self.norm(2.0**-power)) for power in range(34, 47)]
        assert known[0]
        assert all(known) == in_fixed_point
        for power in range(34, 47):
            found = self.norm(2.0**-power) * 2.0**power
            assert np.isnan(found) or found == pytest.approx(8**0.5, rel=1e-6)

    def test_below_it_there_are_none(self) -> None:
        assert self.norm(2.0**-47) == 0

    def test_the_errors_of_a_perfect_fit_are_below_it(self) -> None:
        for seed in range(20):
            random = np.random.default_rng(seed)
            x = random.integers(-(2**20), 2**20, (300, 3)).astype(float)
            rows = [TrainingBatch(x, column(x @ [1.0, 3.0, 0.25]))]

            assert refine(rows, summarise(rows), fit_intercept=True).residual_norms[0] == 0


class TestWorthwhile:
    """A second reading of the rows: for condition numbers from 10 on, up to an amount of work."""

    def worthwhile(self, condition: float, work: float) -> bool:
        """Two columns of this condition number, with the number of rows that gives this work."""
        cosine = (condition**2 - 1) / (condition**2 + 1)
        sine = 2 * condition / (condition**2 + 1)
        x = np.column_stack([A, cosine * A + sine * B])
        statistics = statistics_of(x, column(A + C))
        found = fit(statistics, Exact())
        assert found.design.condition_number == pytest.approx(condition)
        return should_refine(replace(statistics, rows=int(work / 16)), found)

    @pytest.mark.parametrize(
        ("condition", "work", "expected"),
        [
            (9.0, 0.9e5, True),
            (9.0, 1.1e5, False),
            (11.0, 1.1e5, True),
            (11.0, 1.9e8, True),
            (11.0, 2.1e8, False),
            (1e6, 2.1e8, False),
        ],
    )
    def test_rows_are_read_again_if_digits_are_lost_or_the_work_is_little(
        self, condition: float, work: float, expected: bool
    ) -> None:
        assert self.worthwhile(condition, work) is expected

    @pytest.mark.parametrize(("rows", "exactly"), [(6_000, True), (6_400, False)])
    def test_few_rows_are_summed_in_fixed_point(
        self, rows: int, exactly: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        called: list[int] = []

        def gram(parts: Any, size: int) -> Any:
            called.append(size)
            return extended_precision._double_double_gram(parts, size)

        monkeypatch.setattr(extended_precision, "_fixed_point_gram", gram)
        random = np.random.default_rng(1)
        x = random.normal(size=(rows, 2))
        block = [TrainingBatch(x, column(x @ [1.0, 2.0] + random.normal(size=rows)))]

        refine(block, summarise(block), fit_intercept=True)

        assert bool(called) is exactly

    def test_up_to_a_condition_of_10_a_fit_that_is_read_once_has_15_digits(self) -> None:
        for seed in range(6):
            random = np.random.default_rng(seed)
            a, b = random.normal(size=(2, 500))
            x = np.column_stack([a + b / 9, a - b / 9])
            y = column(x @ [1.0, 2.0] + random.normal(size=500))

            assert errors_of_rows(x, y)[0] * EPSILON < 1e-14
