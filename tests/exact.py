"""Least squares in exact rational arithmetic, as a reference for other fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import mpmath
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Rational: TypeAlias = NDArray[np.object_]  # fractions


@dataclass(frozen=True, eq=False)
class ExactFit:
    """The solution of the normal equations, without any rounding."""

    coefficients: Rational  # (1 + p, k), the intercept first; 0 if there is none
    inverse: Rational  # (1 + p, 1 + p), inverse of X'WX; zero in the row and column of an intercept that is not fitted
    rss: Rational  # (k,)

    @property
    def coef(self) -> Array:
        return np.asarray(self.coefficients[1:].T, dtype=float)

    @property
    def intercept(self) -> Array:
        return np.asarray(self.coefficients[0], dtype=float)

    @property
    def residual_norms(self) -> Array:
        return roots(self.rss)

    @property
    def unscaled_errors(self) -> Array:
        return roots(self.inverse.diagonal())

    def predict(self, x: Array) -> Rational:
        """Return predictions (m, k) for rows x (m, p)."""
        return np.asarray(self.coefficients[0] + rational(x) @ self.coefficients[1:])


def rational(values: Array) -> Rational:
    """Return the same values as fractions."""
    return np.asarray(np.frompyfunc(Fraction, 1, 1)(np.asarray(values, dtype=object)), dtype=object)


def roots(values: Rational) -> Array:
    """Return square roots, rounded once."""
    with mpmath.workprec(400):
        return np.array([float(mpmath.sqrt(mpmath.mpf(v.numerator) / v.denominator)) for v in values])


def exact_fit(x: Array, y: Array, weights: Array | None = None, *, intercept: bool = True) -> ExactFit:
    """Return the least-squares fit of rows whose columns are independent."""
    design, targets = rational(x), rational(y)
    if intercept:
        design = np.hstack([rational(np.ones((len(x), 1))), design])
    weighted = design if weights is None else design * rational(weights)[:, np.newaxis]
    inverse = inverted(weighted.T @ design)
    solution = inverse @ (weighted.T @ targets)
    residuals = targets - design @ solution
    squares = residuals**2 if weights is None else residuals**2 * rational(weights)[:, np.newaxis]
    if not intercept:
        solution = np.vstack([rational(np.zeros((1, y.shape[1]))), solution])
        p = x.shape[1]
        padded = rational(np.zeros((1 + p, 1 + p)))
        padded[1:, 1:] = inverse
        inverse = padded
    return ExactFit(solution, inverse, squares.sum(axis=0))


def inverted(matrix: Rational) -> Rational:
    """Return the inverse of a regular matrix by Gauss and Jordan's elimination."""
    size = len(matrix)
    rows = np.hstack([matrix, rational(np.eye(size))])
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row, column] != 0)
        rows[[column, pivot]] = rows[[pivot, column]]
        rows[column] /= rows[column, column]
        for row in range(size):
            if row != column:
                rows[row] = rows[row] - rows[row, column] * rows[column]
    return np.asarray(rows[:, size:])


def worst(found: Array, expected: Array | Rational | Sequence[Fraction]) -> float:
    """Return the largest relative error of the values."""
    pairs = zip(np.ravel(found).tolist(), np.ravel(np.asarray(expected, dtype=object)), strict=True)
    errors = [abs(Fraction(a) - Fraction(b)) / abs(Fraction(b)) if b else abs(Fraction(a)) for a, b in pairs]
    return float(max(errors))
