"""Double-double arithmetic: unevaluated sums of two float64 numbers, about 32 digits.

Sources: Dekker, Numerische Mathematik 18, 1971; Knuth, The Art of Computer Programming, vol. 2, 3rd ed., 4.2.2; Ogita,
Rump and Oishi, SIAM J. Sci. Comput. 26, 2005.
"""

from typing import TypeAlias

import numpy as np

from app.regression.sufficient_statistics import Array

DoubleDouble: TypeAlias = tuple[Array, Array]  # high and low part, of equal shape


def two_sum(a: Array, b: Array) -> DoubleDouble:
    """Return a + b and its rounding error, exactly (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Array, b: Array) -> DoubleDouble:
    """Return a * b and its rounding error, exactly (Dekker)."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(a: Array) -> DoubleDouble:
    """Split the digits of a in two halves (Veltkamp)."""
    big = 134217729.0 * a  # 2^27 + 1
    high = big - (big - a)
    return high, a - high


def multiply(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    product, error = _two_product(a[0], b[0])
    return two_sum(product, error + (a[0] * b[1] + a[1] * b[0]))


def add(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    total, error = two_sum(a[0], b[0])
    return two_sum(total, error + (a[1] + b[1]))


def pairwise_sum(values: DoubleDouble) -> DoubleDouble:
    """Return the sum over the last axis."""
    high, low = values
    while (count := high.shape[-1]) > 1:
        half = count // 2
        first, second, rest = slice(0, half), slice(half, 2 * half), slice(2 * half, count)
        sums = add((high[..., first], low[..., first]), (high[..., second], low[..., second]))
        high = np.concatenate([sums[0], high[..., rest]], axis=-1)
        low = np.concatenate([sums[1], low[..., rest]], axis=-1)
    return high[..., 0], low[..., 0]
