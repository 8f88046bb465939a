"""Which columns depend on each other linearly, and whether they contain a constant.

A rank alone does not tell a reader which columns to leave out.
"""

from typing import NamedTuple

import numpy as np

from app.regression.design import IDENTIFIABLE, RANK_TOLERANCE, Design
from app.regression.sufficient_statistics import EPSILON, Array, SufficientStatistics


class Dependency(NamedTuple):
    """Columns with a weighted sum that is zero in all rows, or constant if the intercept takes part."""

    columns: tuple[int, ...]
    intercept: bool = False


def linear_dependencies(statistics: SufficientStatistics, design: Design) -> list[Dependency]:
    """Return one dependency for each rank that the columns lack.

    Each has the fewest columns possible: without any one of them, the others are independent. They come from the null
    space of the columns at unit norm, brought to reduced echelon form by QR with column pivoting (Golub and Van Loan,
    Matrix Computations, 4th ed., 5.4.2). In a model with an intercept a constant column depends on the intercept.
    """
    null = design.null_space.T
    if not len(null):
        return []
    from scipy.linalg import qr, solve_triangular  # a quarter of a second and 25 MB, if a rank is missing

    triangular, pivots = qr(null, mode="r", pivoting=True, check_finite=False)
    count, p = null.shape
    echelon = np.zeros((count, p))
    echelon[:, pivots[:count]] = np.eye(count)
    echelon[:, pivots[count:]] = solve_triangular(triangular[:, :count], triangular[:, count:], check_finite=False)
    # Rounding mixes the direction of the smallest singular value that counts into the null space (Golub and Van Loan,
    # 8.6.1).
    noise = max(RANK_TOLERANCE * (p + 1), 4 * EPSILON * design.condition_number)
    echelon[np.abs(echelon) <= max(IDENTIFIABLE, noise)] = 0.0
    constant = _constant_part(echelon, statistics, design, noise) if design.intercept else np.zeros(count, dtype=bool)
    found = [
        Dependency(tuple(np.flatnonzero(row).tolist()), bool(held)) for row, held in zip(echelon, constant, strict=True)
    ]
    return sorted(found)


def _constant_part(echelon: Array, statistics: SufficientStatistics, design: Design, noise: float) -> Array:
    """Return for each dependency of the centred columns, (d, p), whether its weighted sum is not zero."""
    mean = statistics.mean[: statistics.features]
    unit = np.where(design.norms > 0, design.norms, 1.0)
    with np.errstate(over="ignore"):
        means = mean / unit
    # The root mean square of each column in these units: below its rounding error, a sum is zero.
    sizes = np.hypot(means, np.where(design.norms > 0, 1 / np.sqrt(statistics.total_weight), 0.0))
    return np.asarray(np.abs(echelon @ means) > noise * (np.abs(echelon) @ sizes))


def implicit_constant(statistics: SufficientStatistics) -> tuple[int, ...]:
    """Return the fewest columns with a weighted sum that is constant and not zero; none if there are no such columns.

    A model without an intercept then has one all the same (statsmodels calls it an implicit constant).
    """
    centred = Design.of(statistics)
    holding = [found.columns for found in linear_dependencies(statistics, centred) if found.intercept]
    return min(holding, key=len, default=())
