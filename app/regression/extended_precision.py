"""The last digits of a fit: its normal equations, from a second reading of the rows in higher precision.

Householder QR loses about as many digits as its condition number has. Here the cross products of the rows are summed in
double-double, as unevaluated sums of two 64-bit numbers that no rounding escapes (Dekker, 1971; Ogita, Rump and Oishi,
2005), about 32 digits, or for few rows in fixed point of 200 bits. The small system they make is solved with more than
that. It has the square of the condition number, which these digits can afford, and there is nothing to iterate.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import mpmath
import numpy as np
from numpy.typing import NDArray

from app.regression.least_squares import Fit
from app.regression.sufficient_statistics import SufficientStatistics, column_norms
from app.regression.training_batch import Array, TrainingBatch

LOST_FROM = 10.0  # condition number from which on a digit is lost
MAX_WORK = 2e8  # rows times columns squared: some seconds
LITTLE_WORK = 1e5  # some milliseconds, which every fit is worth
MAX_FEATURES = 60  # inverting their system in arithmetic of many digits takes a second
NOISE = 1e-28  # of a residual's square beside its target's
DOUBLE_DOUBLE_ERROR = 1e-31  # of a residual sum, relative to the square of the norms of its terms; twice what is seen
KNOWN_TO = 1e-6  # relative error of a residual sum, above which it is not known
POINT = 200  # bits behind the point in fixed point
BITS = 400  # of the small system's arithmetic
ROWS = 4096

Double2: TypeAlias = tuple[Array, Array]  # high and low part, of equal shape


def should_refine(statistics: SufficientStatistics, fitted: Fit) -> bool:
    """Whether digits are being lost that a second reading of the rows can bring back at a bearable price."""
    return (
        fitted.design.full_rank
        and statistics.features <= MAX_FEATURES
        and _work(statistics) <= (MAX_WORK if fitted.design.condition_number >= LOST_FROM else LITTLE_WORK)
    )


def _work(statistics: SufficientStatistics) -> float:
    return float(statistics.rows * (statistics.features + statistics.targets + 1) ** 2)


@dataclass(frozen=True, eq=False)
class Refined:
    """What `Fit` holds, to about full precision."""

    coef: Array  # (k, p)
    intercept: Array  # (k,)
    centre_prediction: Array  # (k,)
    residual_norms: Array  # (k,); NaN if it is not known to KNOWN_TO
    unscaled_errors: Array  # (1 + p,), the intercept first


def refine(blocks: Iterable[TrainingBatch], statistics: SufficientStatistics, *, fit_intercept: bool) -> Refined:
    """Solve the normal equations of the rows, read once more, which statistics summarise and determine in full."""
    p = statistics.features
    # The rows less any number are known exactly; with the mean, the system has the smallest condition number.
    shift = statistics.mean if fit_intercept else np.zeros_like(statistics.shift)
    # Scaling by powers of two rounds nothing: the root mean square of each column, and the mean weight, become about 1.
    centred = statistics.rescaled_factor(shift, statistics.scale)[:, 1:]
    sizes = column_norms(centred) * statistics.scale / math.sqrt(statistics.total_weight)
    exponents = np.concatenate([[0], np.frexp(np.where(sizes > 0, sizes, 0.5))[1]])
    weight_exponent = 2 * (math.frexp(statistics.total_weight / statistics.rows)[1] // 2)
    used = slice(0, p + 1) if fit_intercept else slice(1, p + 1)
    with mpmath.workprec(BITS):
        exact, error = _gram(blocks, shift, exponents, weight_exponent)
        unit = np.array([mpmath.ldexp(1, int(exponent)) for exponent in exponents], dtype=object)
        right = exact[used, p + 1 :]
        inverse = _inverse(exact[used, used])
        solution = inverse @ right
        explained = (solution * right).sum(axis=0)
        total = np.diag(exact)[p + 1 :]
        rss = np.where(total - explained > NOISE * total, total - explained, mpmath.mpf(0))
        # A residual sum is a difference of terms whose cross products are rounded. It is zero to rounding if that error
        # is below the noise.
        norms = _roots(np.diag(exact))
        off = error * (norms[used] @ np.abs(solution) + norms[p + 1 :]) ** 2
        is_zero = (rss == 0) & (off <= NOISE * total)
        rss[(rss < off / KNOWN_TO) & ~is_zero] = mpmath.nan

        # Back from shifted and scaled columns, where y / u_y = B_0 + sum of B_j (x_j - shift_j) / u_j.
        weights = (solution[-p:] / unit[1 : p + 1, np.newaxis] * unit[p + 1 :]).T
        variances = np.diag(inverse)[-p:] / unit[1 : p + 1] ** 2
        origin = np.array([mpmath.mpf(1), *(-shift[:p] / unit[1 : p + 1])])
        if fit_intercept:
            intercept = shift[p:] + origin @ solution * unit[p + 1 :]
            at_mean = shift[p:] + solution[0] * unit[p + 1 :]
            # In many digits: the coefficients of nearly collinear columns multiply the rounding of a difference.
            distance = np.array([mpmath.mpf(value) for value in statistics.shift[:p]]) - shift[:p]
            centre_prediction = at_mean + weights @ distance
            at_zero = origin @ inverse @ origin
        else:
            intercept, at_zero = np.full(len(weights), mpmath.mpf(0)), mpmath.mpf(0)
            centre_prediction = weights @ statistics.shift[:p]
        root = mpmath.ldexp(1, weight_exponent // 2)
        residual_norms = _roots(rss) * unit[p + 1 :] * root
        errors = _roots(np.array([at_zero, *variances])) / root
        found = (weights, intercept, centre_prediction, residual_norms, errors)
    return Refined(*(part.astype(np.float64) for part in found))


def _roots(values: NDArray[np.object_]) -> NDArray[np.object_]:
    return np.array([mpmath.sqrt(value) for value in values], dtype=object)


def _inverse(matrix: NDArray[np.object_]) -> NDArray[np.object_]:
    return np.array(mpmath.inverse(mpmath.matrix(matrix.tolist())).tolist(), dtype=object)


def _gram(
    blocks: Iterable[TrainingBatch], shift: Array, exponents: NDArray[np.integer], weight_exponent: int
) -> tuple[NDArray[np.object_], float]:
    """Cross products (d, d) of the rows [1, (z - shift) / 2^exponent], in fixed point if they are few; and their error.

    They are counted as they come: a row of frequency weight stands for many in the statistics.
    """
    size = len(exponents)
    begun: list[TrainingBatch] = []
    rest = iter(blocks)
    for block in rest:
        begun.append(block)
        if sum(len(part.x) for part in begun) * size**2 > LITTLE_WORK:
            whole = _parts(chain(begun, rest), shift, exponents[1:], weight_exponent)
            return _double_double_gram(whole, size), DOUBLE_DOUBLE_ERROR
    return _fixed_point_gram(_parts(begun, shift, exponents[1:], weight_exponent), size), 0.0


def _parts(
    blocks: Iterable[TrainingBatch], shift: Array, exponents: NDArray[np.integer], weight_exponent: int
) -> Iterator[tuple[Double2, Array | None]]:
    """Columns (d, n) of the rows [1, (z - shift) / 2^exponent], some rows at a time, and their weights.

    Weights are divided by 2^weight_exponent.
    """
    for block in blocks:
        for start in range(0, len(block.x), ROWS):
            part = slice(start, start + ROWS)
            weights = None if block.sample_weight is None else np.ldexp(block.sample_weight[part], -weight_exponent)
            yield _columns(np.hstack([block.x[part], block.y[part]]), shift, exponents), weights


def _fixed_point_gram(parts: Iterable[tuple[Double2, Array | None]], size: int) -> NDArray[np.object_]:
    """Cross products (d, d), in integers: exact except for bits below 2^-POINT of the columns."""
    gram = np.full((size, size), mpmath.mpf(0), dtype=object)
    for (high, low), weights in parts:
        columns = _fixed(high) + _fixed(low)
        times, exponent = _integers(np.ones(high.shape[1]) if weights is None else weights)
        products = columns @ (columns * times).T
        gram += np.array([[mpmath.ldexp(mpmath.mpf(v), exponent - 2 * POINT) for v in row] for row in products])
    return gram


def _fixed(values: Array) -> NDArray[np.object_]:
    return np.asarray(np.frompyfunc(int, 1, 1)(np.ldexp(values, POINT)))


def _integers(values: Array) -> tuple[NDArray[np.object_], int]:
    """Return integers m and an exponent e with m * 2^e equal to the values, whatever their range."""
    mantissas, exponents = np.frexp(values)
    least = int(exponents[mantissas != 0].min(initial=1024))
    shifts = np.maximum(exponents - least, 0).astype(object)
    return np.asarray(np.ldexp(mantissas, 53).astype(np.int64).astype(object) << shifts), least - 53


def _double_double_gram(parts: Iterable[tuple[Double2, Array | None]], size: int) -> NDArray[np.object_]:
    """Cross products (d, d), in double-double."""
    high, low = np.zeros((size, size)), np.zeros((size, size))
    for columns, weights in parts:
        weighted = columns if weights is None else _times(columns, (weights, np.zeros_like(weights)))
        for i in range(size):
            found = _sum(_times((columns[0][i], columns[1][i]), (weighted[0][i:], weighted[1][i:])))
            high[i, i:], low[i, i:] = _plus((high[i, i:], low[i, i:]), found)
    upper = np.triu(np.ones_like(high, dtype=bool))
    whole = np.where(upper, high, high.T), np.where(upper, low, low.T)
    return np.asarray(np.vectorize(lambda a, b: mpmath.mpf(a) + mpmath.mpf(b), otypes=[object])(*whole))


def _columns(z: Array, shift: Array, exponents: NDArray[np.integer]) -> Double2:
    """The columns (d, n) of rows [1, (z - shift) / 2^exponent], exactly."""
    high, low = _two_sum(z, np.broadcast_to(-shift, z.shape))
    ones = np.ones(len(z))
    return (
        np.vstack([ones, np.ldexp(high.T, -exponents[:, np.newaxis])]),
        np.vstack([0 * ones, np.ldexp(low.T, -exponents[:, np.newaxis])]),
    )


def _two_sum(a: Array, b: Array) -> Double2:
    """A + b, and what rounding took from it, exactly (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Array, b: Array) -> Double2:
    """A * b, and what rounding took from it, exactly (Dekker; Veltkamp's splitting)."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a: Array) -> Double2:
    big = 134217729.0 * a  # 2^27 + 1
    high = big - (big - a)
    return high, a - high


def _times(a: Double2, b: Double2) -> Double2:
    product, error = _two_product(a[0], b[0])
    return _two_sum(product, error + (a[0] * b[1] + a[1] * b[0]))


def _plus(a: Double2, b: Double2) -> Double2:
    total, error = _two_sum(a[0], b[0])
    return _two_sum(total, error + (a[1] + b[1]))


def _sum(values: Double2) -> Double2:
    """Sum over the last axis, halves onto halves."""
    high, low = values
    while (count := high.shape[-1]) > 1:
        half = count // 2
        first, second, rest = slice(0, half), slice(half, 2 * half), slice(2 * half, count)
        sums = _plus((high[..., first], low[..., first]), (high[..., second], low[..., second]))
        high = np.concatenate([sums[0], high[..., rest]], axis=-1)
        low = np.concatenate([sums[1], low[..., rest]], axis=-1)
    return high[..., 0], low[..., 0]
