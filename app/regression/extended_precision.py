"""Refine a fit to about full precision by solving its normal equations in higher precision.

Householder QR loses about as many digits as the condition number has. Here the rows are read a second time. Their cross
products are summed in double-double, about 32 digits, or for few rows in fixed point of 200 bits. The small system of
normal equations is solved with 400 bits. Its condition number is squared, which these digits can afford.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple, TypeAlias

import mpmath
import numpy as np
from numpy.typing import NDArray

from app.regression import double_double
from app.regression.design import Design
from app.regression.double_double import DoubleDouble
from app.regression.least_squares import Fit
from app.regression.sufficient_statistics import Array, SufficientStatistics, column_norms
from app.regression.training_batch import TrainingBatch

LOST_FROM = 10.0  # Condition number from which QR loses a digit.
MAX_WORK = 2e8  # Rows times columns squared, a few seconds of work.
LITTLE_WORK = 1e5  # The same for a few milliseconds, which are spent on every fit.
MAX_FEATURES = 60  # Features whose system takes a second to invert in 400 bits.
NOISE = 1e-28  # Residual sum of squares, relative to the target's, that counts as zero.
# Relative error of a residual sum in double-double, relative to the square of the norms of its terms. The largest error
# observed is half of this.
DOUBLE_DOUBLE_ERROR = 1e-31
KNOWN_TO = 1e-6  # Relative error of a residual sum above which it is withheld.
POINT = 200  # Bits after the point in fixed point.
BITS = 400  # Bits of the arithmetic that solves the small system.
ROWS = 4096  # Rows processed at once.

Objects: TypeAlias = NDArray[np.object_]  # integers, or numbers of mpmath


def should_refine(statistics: SufficientStatistics, fitted: Fit) -> bool:
    """Return True if the fit has lost digits that a second reading of the rows restores within MAX_WORK."""
    if not fitted.design.full_rank or statistics.features > MAX_FEATURES:
        return False
    work = statistics.rows * len(statistics.factor) ** 2
    return work <= (MAX_WORK if fitted.design.condition_number >= LOST_FROM else LITTLE_WORK)


class _Units(NamedTuple):
    """Coordinates [1, (z - shift) / 2^exponent] in which columns and weights are about 1. Powers of two are exact."""

    shift: Array  # (p + k,)
    exponents: NDArray[np.integer]  # (1 + p + k,)
    weight_exponent: int  # even; weights are divided by two to this power

    @classmethod
    def of(cls, statistics: SufficientStatistics, *, fit_intercept: bool) -> "_Units":
        # Rows minus any number are known exactly. With the mean, the system has the smallest condition number.
        shift = statistics.mean if fit_intercept else np.zeros_like(statistics.shift)
        deviations = statistics.rescaled_factor(shift, statistics.scale)[:, 1:]
        sizes = column_norms(deviations) * statistics.scale / math.sqrt(statistics.total_weight)
        exponents = np.concatenate([[0], np.frexp(np.where(sizes > 0, sizes, 0.5))[1]])
        return cls(shift, exponents, 2 * (math.frexp(statistics.total_weight / statistics.rows)[1] // 2))


def refine(batches: Iterable[TrainingBatch], statistics: SufficientStatistics, *, fit_intercept: bool) -> Fit:
    """Solve the normal equations of the rows, which are read again, to about full precision.

    `statistics` are those of the rows, and of full rank. A residual norm is NaN if it is not known to KNOWN_TO.
    """
    p = statistics.features
    units = _Units.of(statistics, fit_intercept=fit_intercept)
    shift = units.shift
    used = slice(0, p + 1) if fit_intercept else slice(1, p + 1)
    with mpmath.workprec(BITS):
        gram, error = _gram(batches, units)
        unit = np.array([mpmath.ldexp(1, int(exponent)) for exponent in units.exponents], dtype=object)
        inverse = _inverse(gram[used, used])
        solution = inverse @ gram[used, p + 1 :]
        rss = _residual_sums(gram, solution, used, error)
        # Back to the columns' own units: y / u_y = B_0 + sum of B_j (x_j - shift_j) / u_j.
        coef = (solution[-p:] / unit[1 : p + 1, np.newaxis] * unit[p + 1 :]).T
        variances = np.diag(inverse)[-p:] / unit[1 : p + 1] ** 2
        if fit_intercept:
            origin = np.array([mpmath.mpf(1), *(-shift[:p] / unit[1 : p + 1])])
            intercept = shift[p:] + origin @ solution * unit[p + 1 :]
            at_mean = shift[p:] + solution[0] * unit[p + 1 :]
            # With all digits: the coefficients of nearly collinear columns multiply the rounding of a difference.
            distance = np.array([mpmath.mpf(value) for value in statistics.shift[:p]]) - shift[:p]
            centre_prediction = at_mean + coef @ distance
            intercept_variance = origin @ inverse @ origin
        else:
            intercept, intercept_variance = np.full(len(coef), mpmath.mpf(0)), mpmath.mpf(0)
            centre_prediction = coef @ statistics.shift[:p]
        root = mpmath.ldexp(1, units.weight_exponent // 2)
        residual_norms = _roots(rss) * unit[p + 1 :] * root
        errors = _roots(np.array([intercept_variance, *variances])) / root
        return Fit(
            coef.astype(np.float64),
            intercept.astype(np.float64),
            centre_prediction.astype(np.float64),
            residual_norms.astype(np.float64),
            errors.astype(np.float64),
            Design.of(statistics, fit_intercept=fit_intercept),
        )


def _residual_sums(gram: Objects, solution: Objects, used: slice, error: float) -> Objects:
    """Return the residual sums of squares, (k,), of a solution, (p or 1 + p, k); NaN if not known to KNOWN_TO.

    A residual sum is a difference of cross products that have this relative error. If the error is below NOISE, it is
    zero to rounding.
    """
    first_target = len(gram) - solution.shape[1]
    explained = (solution * gram[used, first_target:]).sum(axis=0)
    total = np.diag(gram)[first_target:]
    rss = np.where(total - explained > NOISE * total, total - explained, mpmath.mpf(0))
    norms = _roots(np.diag(gram))
    bound = error * (norms[used] @ np.abs(solution) + norms[first_target:]) ** 2
    is_zero = (rss == 0) & (bound <= NOISE * total)
    rss[(rss < bound / KNOWN_TO) & ~is_zero] = mpmath.nan
    return np.asarray(rss)


def _roots(values: Objects) -> Objects:
    return np.array([mpmath.sqrt(value) for value in values], dtype=object)


def _inverse(matrix: Objects) -> Objects:
    return np.array(mpmath.inverse(mpmath.matrix(matrix.tolist())).tolist(), dtype=object)


def _gram(batches: Iterable[TrainingBatch], units: _Units) -> tuple[Objects, float]:
    """Return the cross products, (d, d), of the rows in these units, and their relative error.

    Few rows are summed in fixed point. Rows are counted as they are read, since `statistics.rows` of frequency weights
    is their sum.
    """
    size = len(units.exponents)
    read: list[TrainingBatch] = []
    rest = iter(batches)
    for batch in rest:
        read.append(batch)
        if sum(len(earlier.x) for earlier in read) * size**2 > LITTLE_WORK:
            return _double_double_gram(_chunks(chain(read, rest), units), size), DOUBLE_DOUBLE_ERROR
    return _fixed_point_gram(_chunks(read, units), size), 0.0


def _chunks(batches: Iterable[TrainingBatch], units: _Units) -> Iterator[tuple[DoubleDouble, Array | None]]:
    """Yield columns, (d, n), of some rows at a time in these units, and their weights."""
    for batch in batches:
        for start in range(0, len(batch.x), ROWS):
            chunk = batch.select(slice(start, start + ROWS))
            weights = chunk.sample_weight
            if weights is not None:
                weights = np.ldexp(weights, -units.weight_exponent)
            yield _columns(np.hstack([chunk.x, chunk.y]), units), weights


def _columns(z: Array, units: _Units) -> DoubleDouble:
    """Return the columns, (d, n), of rows z, (n, d - 1), in these units, exactly."""
    exponents = -units.exponents[1:, np.newaxis]
    high, low = double_double.two_sum(z, np.broadcast_to(-units.shift, z.shape))
    ones = np.ones(len(z))
    return np.vstack([ones, np.ldexp(high.T, exponents)]), np.vstack([0 * ones, np.ldexp(low.T, exponents)])


def _fixed_point_gram(chunks: Iterable[tuple[DoubleDouble, Array | None]], size: int) -> Objects:
    """Return cross products, (d, d), in integers: exact except for bits of the columns below 2^-POINT."""
    gram = np.full((size, size), mpmath.mpf(0), dtype=object)
    for (high, low), weights in chunks:
        columns = _fixed(high) + _fixed(low)
        times, exponent = _integers(np.ones(high.shape[1]) if weights is None else weights)
        products = columns @ (columns * times).T
        gram += np.array([[mpmath.ldexp(mpmath.mpf(v), exponent - 2 * POINT) for v in row] for row in products])
    return gram


def _fixed(values: Array) -> Objects:
    return np.asarray(np.frompyfunc(int, 1, 1)(np.ldexp(values, POINT)))


def _integers(values: Array) -> tuple[Objects, int]:
    """Return integers m and an exponent e with m * 2^e equal to the values, for values of any range."""
    mantissas, exponents = np.frexp(values)
    least = int(exponents[mantissas != 0].min(initial=1024))
    shifts = np.maximum(exponents - least, 0).astype(object)
    return np.asarray(np.ldexp(mantissas, 53).astype(np.int64).astype(object) << shifts), least - 53


def _double_double_gram(chunks: Iterable[tuple[DoubleDouble, Array | None]], size: int) -> Objects:
    """Return cross products, (d, d), summed in double-double."""
    high, low = np.zeros((size, size)), np.zeros((size, size))
    for columns, weights in chunks:
        weighted = columns if weights is None else double_double.multiply(columns, (weights, np.zeros_like(weights)))
        for i in range(size):
            products = double_double.multiply((columns[0][i], columns[1][i]), (weighted[0][i:], weighted[1][i:]))
            sums = double_double.pairwise_sum(products)
            high[i, i:], low[i, i:] = double_double.add((high[i, i:], low[i, i:]), sums)
    upper = np.triu(np.ones_like(high, dtype=bool))
    symmetric = np.where(upper, high, high.T), np.where(upper, low, low.T)
    return np.asarray(np.vectorize(lambda a, b: mpmath.mpf(a) + mpmath.mpf(b), otypes=[object])(*symmetric))
