"""A decomposition that reveals the rank of a wide design, in a tenth of the time of its singular values.

There is no decomposition if a singular value may be between the bounds, so the rank is always that of `Design`.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal, lapack, qr, solve_triangular

from app.regression.sufficient_statistics import Array

MAX_STEPS = 100  # Largest number of steps of an iteration.
LANCZOS_CHANGE = 1e-14  # Relative change of a squared singular value in one step at which an iteration ends.


@dataclass(frozen=True, eq=False)
class RankRevealing:
    """A P = Q [R S; 0 0] to rounding, with R triangular, (r, r), for an upper-triangular A, (p, p).

    Source: Golub and Van Loan, Matrix Computations, 4th ed., 5.4.2 and 5.5.2.
    """

    factor: Array  # A
    order: NDArray[np.intp]  # the first r columns of A P
    inverse: Array  # (r, r), inverse of R
    reflectors: tuple[Array, Array] | None  # Q as LAPACK stores it; None if Q is the identity
    null_space: Array  # (p, p - r), orthonormal columns v with A v = 0

    @classmethod
    def of(cls, factor: Array, *, zero: float, nonzero: float) -> "RankRevealing | None":
        """Return the decomposition if each singular value is proved to be at most `zero`, or at least `nonzero`."""
        p = len(factor)
        if np.abs(factor.diagonal()).min() >= nonzero:
            inverse, _ = lapack.dtrtri(factor)
            if _is_least(inverse, nonzero):
                return cls(factor, np.arange(p), inverse, None, np.zeros((p, 0)))
        reflectors, triangular, order = qr(factor, mode="raw", pivoting=True, check_finite=False)
        rank = int((np.abs(triangular.diagonal()) >= nonzero).sum())
        # The norm of the remaining rows bounds the other singular values.
        if rank == 0 or np.linalg.norm(triangular[rank:, rank:]) > zero:
            return None
        inverse, _ = lapack.dtrtri(triangular[:rank, :rank])
        if not _is_least(inverse, nonzero):
            return None
        null = np.empty((p, p - rank))
        null[order[:rank]] = -inverse @ triangular[:rank, rank:]
        null[order[rank:]] = np.eye(p - rank)
        return cls(factor, order[:rank], inverse, reflectors, np.linalg.qr(null)[0])

    @property
    def rank(self) -> int:
        return len(self.order)

    @cached_property
    def root(self) -> Array:
        """L, (p, r), with LL' the pseudo-inverse of A'A. The pseudo-inverse of A is L times r rows of Q'."""
        root = np.zeros((len(self.factor), self.rank))
        root[self.order] = self.inverse
        return self._projected(root)

    def solve(self, right: Array, penalty: float = 0.0) -> Array:
        """Return the B that minimises |A B - right|^2 + penalty |B|^2, for right (p, k).

        If there are several, return the one with the smallest norm.
        """
        if penalty > 0:
            triangular = self._penalised(right, penalty)
            p = len(self.factor)
            return self._projected(solve_triangular(triangular[:p, :p], triangular[:p, p:], check_finite=False))
        if self.reflectors is None:
            return np.asarray(solve_triangular(self.factor, right, check_finite=False))
        rotated, _, _ = lapack.dormqr("L", "T", *self.reflectors, right, lwork=64 * len(right))
        solution = np.zeros_like(right)
        solution[self.order] = self.inverse @ rotated[: self.rank]
        return self._projected(solution)

    def effective_rank(self, penalty: float) -> float:
        """Return the trace of A (A'A + penalty I)^-1 A', which is the rank without a penalty."""
        if penalty == 0:
            return float(self.rank)
        triangular = self._penalised(self.factor[:, :0], penalty)
        shares = solve_triangular(triangular, self.factor.T, trans="T", check_finite=False)
        return float((shares**2).sum())

    def _penalised(self, right: Array, penalty: float) -> Array:
        """Return the triangular factor of the rows [A, right; root of the penalty, 0]."""
        below = np.eye(len(right), len(right) + right.shape[1]) * np.sqrt(penalty)
        return np.asarray(np.linalg.qr(np.vstack([np.hstack([self.factor, right]), below]), mode="r"))

    def _projected(self, columns: Array) -> Array:
        """Return the columns, (p, k), without their part in the null space."""
        return np.asarray(columns - self.null_space @ (self.null_space.T @ columns))

    @cached_property
    def extremes(self) -> Array:
        """Largest and smallest nonzero singular value, (2,)."""
        return np.array([_norm(self.factor), 1 / _norm(self.root)])


def _is_least(inverse: Array, bound: float) -> bool:
    """Return True if the singular values of a matrix with this inverse are proved to be at least `bound`."""
    return bool(np.linalg.norm(inverse) * bound <= 1)


def _norm(matrix: Array) -> float:
    """Return the largest singular value of a matrix, (p, n), by Lanczos iteration with reorthogonalisation.

    It usually has 12 digits. If many others are nearly as large, it may be too small by a part in 1,000. Source: Golub
    and Van Loan, Matrix Computations, 4th ed., 10.1 and 10.3.
    """
    vector = np.random.default_rng(0).standard_normal(len(matrix))  # the same for each call
    basis = np.zeros((min(MAX_STEPS, len(matrix)), len(matrix)))
    diagonal, below, largest = [], [float(np.linalg.norm(vector))], 0.0
    for step, row in enumerate(basis):
        row[:] = vector / below[-1]
        vector = matrix @ (matrix.T @ row)
        diagonal.append(float(row @ vector))
        for _ in range(2):
            vector -= (basis[: step + 1] @ vector) @ basis[: step + 1]
        found = float(eigvalsh_tridiagonal(diagonal, below[1:])[-1])
        if found <= largest * (1 + LANCZOS_CHANGE):
            break
        largest = found
        below.append(float(np.linalg.norm(vector)))
    return math.sqrt(largest)
