"""Linear dependencies among columns: which columns to leave out if the rank is not full."""

from typing import NamedTuple

import numpy as np

from app.regression.design import IDENTIFIABLE, RANK_TOLERANCE, Design
from app.regression.sufficient_statistics import EPSILON, Array, SufficientStatistics


class Dependency(NamedTuple):
    """Indices of columns with a weighted sum that is 0 in all rows, or constant if `intercept` is true."""

    columns: tuple[int, ...]
    intercept: bool = False


def linear_dependencies(statistics: SufficientStatistics, design: Design) -> list[Dependency]:
    """Return one dependency for each missing rank.

    Each has the fewest columns possible: without any one of them, the others are independent. They come from the null
    space of the columns at unit norm, reduced to echelon form by QR with column pivoting (Golub and Van Loan, Matrix
    Computations, 4th ed., 5.4.2). In a model with an intercept, a constant column depends on the intercept.
    """
    null = design.null_space.T
    if not len(null):
        return []
    from scipy.linalg import qr, solve_triangular  # a quarter of a second and 25 MB, only if a rank is missing

    triangular, pivots = qr(null, mode="r", pivoting=True, check_finite=False)
    count, p = null.shape
    echelon = np.zeros((count, p))
    echelon[:, pivots[:count]] = np.eye(count)
    echelon[:, pivots[count:]] = solve_triangular(triangular[:, :count], triangular[:, count:], check_finite=False)
    # Rounding mixes the direction of the smallest nonzero singular value into the null space (ibid., 8.6.1).
    noise = max(RANK_TOLERANCE * (p + 1), 4 * EPSILON * design.condition_number)
    echelon[np.abs(echelon) <= max(IDENTIFIABLE, noise)] = 0.0
    constant = _has_constant(echelon, statistics, design, noise) if design.intercept else np.zeros(count, dtype=bool)
    return sorted(
        Dependency(tuple(np.flatnonzero(row).tolist()), bool(has_constant))
        for row, has_constant in zip(echelon, constant, strict=True)
    )


def _has_constant(echelon: Array, statistics: SufficientStatistics, design: Design, noise: float) -> Array:
    """Return for each dependency of the centred columns, (d, p), whether its weighted sum is constant and not 0."""
    mean = statistics.mean[: statistics.features]
    unit = np.where(design.norms > 0, design.norms, 1.0)
    with np.errstate(over="ignore"):
        means = mean / unit
    # Root mean square of each column in these units. A sum smaller than its rounding error is zero.
    sizes = np.hypot(means, np.where(design.norms > 0, 1 / np.sqrt(statistics.total_weight), 0.0))
    return np.asarray(np.abs(echelon @ means) > noise * (np.abs(echelon) @ sizes))


def implicit_constant(statistics: SufficientStatistics) -> tuple[int, ...]:
    """Return the fewest columns with a weighted sum that is a nonzero constant; empty if there are none.

    A model without an intercept then has one nevertheless (an implicit constant, in statsmodels' words).
    """
    centred = Design.of(statistics)
    constant = [dependency.columns for dependency in linear_dependencies(statistics, centred) if dependency.intercept]
    return min(constant, key=len, default=())
