"""Least squares in exact integers and 600 bits, as a reference for published numbers.

Sums of squares of 64-bit numbers are exact here, whatever their offsets, units and weights, and so is the rank.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import mpmath
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Objects: TypeAlias = NDArray[np.object_]

BITS = 600
# Penalty on unit-norm columns that approximates the limit of small penalties, the minimum-norm solution.
VANISHING = mpmath.mpf(10) ** -40
LEAST = 1e-14  # smallest singular value for which 600 bits are enough to solve without a penalty


@dataclass(frozen=True, eq=False)
class ExactFit:
    """The least-squares solution of the rows [x - shift, y - shift] with weights, in numbers of mpmath.

    Without an intercept the shift is zero. If several solutions exist, this is the one with the smallest
    standardised coefficients.
    """

    rank: int  # rank of the inputs, [1, x] or x
    gram: Objects  # (d, d), cross products of [1, x - shift, y - shift]
    at_shift: Objects  # (k,), prediction at the features' shift less the targets' shift
    slopes: Objects  # (p, k)
    rss: Objects  # (k,)
    tss: Objects  # (k,), about the mean, or about zero if there is no intercept
    variances: Objects  # (1 + p,), diagonal of (X'WX)^-1 at zero, the intercept first; only of full rank
    penalties: Objects  # (p,), l2 / n times the sum of squared deviations
    # Smallest singular value that is not zero, of the inputs about the shift at unit norm, and with the penalties among
    # their rows.
    least_of_rows: float
    least: float
    intercept: bool
    norms: Objects  # (p,), of the features about their means, or about zero
    spreads: Objects  # (p,), norms of the features' deviations from their means
    target_spreads: Objects  # (k,), the same of the targets

    @classmethod
    def of(
        cls,
        x: Array,
        y: Array,
        weights: list[Fraction],
        *,
        shift: Array,
        intercept: bool = True,
        penalty: float = 0.0,
    ) -> "ExactFit":
        """Solve for all targets. `penalty` is l2 / n."""
        p = x.shape[1]
        shift = shift if intercept else np.zeros_like(shift)
        integers, exponents = _integers(np.hstack([x, y]), shift, weights)
        with mpmath.workprec(BITS):
            unit = np.array([mpmath.ldexp(1, exponent) for exponent in exponents[1:]], dtype=object)
            gram = _rational(integers, 1, unit, exponents[0])
            used = [*range(0 if intercept else 1, len(gram))]
            inputs = len(used) - y.shape[1]
            rows, rest = _eliminate(integers[np.ix_(used, used)], inputs)
            centred = gram[1:, 1:]
            if intercept:
                products = integers[0, 0] * integers[1:, 1:] - np.outer(integers[1:, 0], integers[0, 1:])
                centred = _rational(products, integers[0, 0], unit[1:], exponents[0])
            norms = np.array([mpmath.sqrt(centred[j, j]) for j in range(p)], dtype=object)
            varying = [j for j in range(p) if centred[j, j] > 0]
            least_of_rows = _least(rows, inputs, integers[np.ix_(used, used)], gram, np.full(p, mpmath.mpf(0)))
            full = len(rows) == inputs and least_of_rows > LEAST
            lam = mpmath.mpf(penalty) if full or penalty > VANISHING else VANISHING
            slopes, inverse = _solve(centred, norms, varying, p, lam)
            means = gram[0, 1:] / gram[0, 0] if intercept else np.full(len(gram) - 1, mpmath.mpf(0))
            total = np.diag(centred)[p:]
            residual = _rational(rest, 1, unit[-y.shape[1] :], exponents[0]) if penalty == 0 else None
            if residual is None:
                directions = np.vstack([-slopes, np.eye(y.shape[1], dtype=int)])
                residual = directions.T @ centred @ directions
            origin = means[:p] + [mpmath.mpf(value) for value in shift[:p]]
            at_zero = 1 / gram[0, 0] + origin @ inverse @ origin if intercept else mpmath.mpf(0)
            penalties = mpmath.mpf(penalty) * norms**2
            squares = np.diag(gram)[1:] - gram[0, 1:] ** 2 / gram[0, 0]
            spreads = np.array([mpmath.sqrt(abs(value)) for value in squares], dtype=object)
            return cls(
                rank=len(rows),
                gram=gram,
                at_shift=means[p:] - means[:p] @ slopes,
                slopes=slopes,
                rss=np.diag(residual),
                tss=total,
                variances=np.array([at_zero, *np.diag(inverse)], dtype=object),
                penalties=penalties,
                least_of_rows=least_of_rows,
                least=_least(rows, inputs, integers[np.ix_(used, used)], gram, penalties),
                intercept=intercept,
                norms=norms,
                spreads=spreads[:p],
                target_spreads=spreads[p:],
            )


def _integers(z: Array, shift: Array, weights: list[Fraction]) -> tuple[Objects, list[int]]:
    """Return the cross products of [1, z - shift] in integers, and exponents of 2: of the weights and each column."""
    columns: list[list[int]] = [[1] * len(z)]
    exponents = [0, 0]
    for values in np.vstack([z, shift]).T:
        mantissas, powers = np.frexp(values)
        least = int(powers[mantissas != 0].min(initial=2000))
        whole = [int(m * 2**53) << int(e - least) if m else 0 for m, e in zip(mantissas, powers, strict=True)]
        columns.append([value - whole[-1] for value in whole[:-1]])
        exponents.append(least - 53)
    denominator = max(weight.denominator for weight in weights)  # powers of two, all of them
    scaled = [int(weight * denominator) for weight in weights]
    exponents[0] = -(denominator.bit_length() - 1)
    table = np.array(columns, dtype=object)
    return (table * np.array(scaled, dtype=object)) @ table.T, exponents


def _rational(integers: Objects, divisor: int, unit: Objects, exponent: int) -> Objects:
    found = [[mpmath.mpf(value) for value in row] for row in integers]
    factor = mpmath.ldexp(1, exponent) / divisor
    return np.asarray(np.array(found, dtype=object).reshape(integers.shape) * factor * np.outer(unit, unit))


def _eliminate(matrix: Objects, inputs: int) -> tuple[list[Objects], Objects]:
    """Eliminate the inputs from a Gram matrix of integers (Bareiss, 1968).

    Return the rows of its factor, and the remaining products of the targets. A row whose pivot is zero is left out,
    because in a Gram matrix the whole row is then zero.
    """
    rows, previous = [], 1
    for column in range(inputs):
        pivot = matrix[column, column]
        if pivot == 0:
            continue
        rows.append(
            np.array([Fraction(int(value) ** 2, int(pivot * previous)) * _sign(value) for value in matrix[column]])
        )
        matrix = (pivot * matrix - np.outer(matrix[:, column], matrix[column])) // previous
        previous = pivot
    rest = matrix[inputs:, inputs:]
    return rows, np.array([[mpmath.mpf(int(value)) / previous for value in row] for row in rest], dtype=object)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _solve(centred: Objects, norms: Objects, varying: list[int], p: int, penalty: Any) -> tuple[Objects, Objects]:
    """Return the slopes (p, k) and the inverse (p, p) in the columns' own units; zero for constant columns."""
    slopes = np.full((p, len(centred) - p), mpmath.mpf(0))
    inverse = np.full((p, p), mpmath.mpf(0))
    if varying:
        size = norms[varying]
        unit = centred[np.ix_(varying, varying)] / np.outer(size, size)
        unit = unit + penalty * np.eye(len(varying), dtype=int)
        found = np.array(mpmath.inverse(mpmath.matrix(unit.tolist())).tolist(), dtype=object)
        inverse[np.ix_(varying, varying)] = found / np.outer(size, size)
        slopes[varying] = inverse[np.ix_(varying, varying)] @ centred[varying, p:]
    return slopes, inverse


def _least(rows: list[Objects], inputs: int, integers: Objects, gram: Objects, penalties: Objects) -> float:
    if not rows:
        return 1.0
    sizes = [int(integers[j, j]) for j in range(inputs)]
    factor = np.array([[_root(row[j] / sizes[j]) if sizes[j] else 0.0 for j in range(inputs)] for row in rows])
    offset = inputs - len(penalties)
    squares = [gram[j + 1, j + 1] for j in range(len(penalties))]
    added = [
        float(mpmath.sqrt(pen / square)) if square else 0.0 for pen, square in zip(penalties, squares, strict=True)
    ]
    stacked = np.vstack([factor, np.diag([0.0] * offset + added)])
    return float(np.linalg.svd(stacked, compute_uv=False)[len(rows) - 1])


def _root(square: Fraction) -> float:
    """Return the root of `square`, which is at most 1 and has the sign of the root."""
    return math.copysign(math.sqrt(float(abs(square))), float(square))
