"""Differences between served rows and training rows: means, covariances and frequencies of levels.

Served rows are `Moments` of the model's columns in the coordinates (x - shift) / scale of the training statistics.
"""

import numpy as np
from numpy.typing import NDArray

from app.regression.moments import Moments
from app.regression.sufficient_statistics import Array, SufficientStatistics, column_norms

# Rows below which there is no verdict. The standard error of a mean difference is then 0.1 training deviations, half of
# MEAN_LIMIT.
MIN_ROWS = 100
# Difference of means, in training deviations, that counts as drift: a small effect (Cohen, Statistical Power Analysis,
# 2nd ed., 1988, 2.2).
MEAN_LIMIT = 0.2
# Standard errors by which a mean may differ by chance. A larger difference is found in 1 of 160 models of 100 columns.
MEAN_ERRORS = 4.0
# Population stability index that counts as drift. Siddiqi (Credit Risk Scorecards, 2006) calls less than 0.1 stable
# and more than 0.25 a shift.
PSI_LIMIT = 0.2
# Normal quantile up to which the index may differ by chance. The chi-squared distribution has a shorter tail than the
# index of rare levels, for which one in 30,000 is about one in 1,000.
PSI_ERRORS = 4.0
# Smallest share of a level in the index, because the logarithm of an empty cell is infinite.
PSI_FLOOR = 1e-4
# Root mean square of the logarithms of variance ratios that counts as drift: variances doubled or halved everywhere.
COVARIANCE_LIMIT = float(np.log(2))
ROWS_PER_DIRECTION = 10  # Served rows for each direction without which a covariance is mostly noise.
# Deviations in a direction, relative to those of unit-norm columns, below which cross products do not resolve it.
RESOLVED = 1e-6


def training_deviations(statistics: SufficientStatistics) -> Array:
    """Return the standard deviation of each column, (p,), in the units of `scale`; 0 for a constant column."""
    p, n = statistics.features, statistics.effective_rows
    if n <= 1:
        return np.zeros(p)
    norms = column_norms(statistics.factor[1:, 1 : p + 1])
    deviations = norms / np.sqrt(statistics.total_weight * (1 - 1 / n))
    return np.where(statistics.constant, 0.0, deviations)


def mean_differences(statistics: SufficientStatistics, served: Moments) -> Array:
    """Return (mean served - mean in training) / training standard deviation, (p,); NaN for a constant column.

    This is Glass's Delta (Glass, Educational Researcher 5(10), 1976). The training deviation is the unit, so that a
    change of the served variance does not change the unit.
    """
    distance = served.mean - _offset(statistics)
    deviations = training_deviations(statistics)
    known = deviations > 0
    return np.where(known, distance, np.nan) / np.where(known, deviations, 1.0)


def mean_limit(rows: int, training_rows: float) -> float:
    """Return the mean difference above which a column has drifted: MEAN_LIMIT, or more than chance explains."""
    return max(MEAN_LIMIT, MEAN_ERRORS * _error(rows, training_rows))


def constants_moved(statistics: SufficientStatistics, served: Moments) -> NDArray[np.bool_]:
    """Return which columns, (p,), were constant in training and have another value in served rows."""
    p = statistics.features
    value = _offset(statistics)
    tolerance = 1e-9 * np.maximum(np.abs(value), np.abs(statistics.shift[:p] / statistics.scale[:p]))
    moved = np.maximum(np.abs(served.minimum - value), np.abs(served.maximum - value)) > tolerance
    return np.asarray(moved & (training_deviations(statistics) == 0))


def covariance_distance(
    statistics: SufficientStatistics, served: Moments, columns: NDArray[np.intp]
) -> tuple[float, int]:
    """Return the affine-invariant distance of two covariance matrices, and the number of directions r.

    It is sqrt(sum ln^2 l_i) over the eigenvalues l of S_training^-1 S_served (Förstner and Moonen, A metric for
    covariance matrices, 1999): 0 if the covariances are equal, and the same in all units. Columns with an index in
    `columns` are compared, in the r directions in which the training rows vary. It is infinite if the served rows do
    not vary in one of them. `served` needs pairs, and more than one row.
    """
    columns = columns[training_deviations(statistics)[columns] > 0]
    if not len(columns):
        return 0.0, 0
    factor = statistics.factor[1:, 1 + columns]
    norms = column_norms(factor)
    _, sizes, axes = np.linalg.svd(factor / norms, full_matrices=False)
    kept = sizes > RESOLVED * sizes[0]
    whiten = axes[kept].T / sizes[kept] / norms[:, np.newaxis]
    n = statistics.effective_rows
    whiten *= np.sqrt(statistics.total_weight * (1 - 1 / n))
    covariance = served.products[np.ix_(columns, columns)] / (served.rows - 1)
    ratios = np.linalg.eigvalsh(whiten.T @ covariance @ whiten)
    if ratios[0] <= RESOLVED**2 * ratios[-1]:
        return float("inf"), len(ratios)
    return float(np.sqrt((np.log(ratios) ** 2).sum())), len(ratios)


def covariance_limit(directions: int, rows: int, training_rows: float) -> float:
    """Return the distance above which covariances have drifted.

    By chance, the distance of normal rows is about sqrt(r (r + 1) (1/m + 1/n)), from the variances of the elements of
    a Wishart matrix (Anderson, Multivariate Statistical Analysis, 3rd ed., 7.3). Twice that is allowed.
    """
    chance = np.sqrt(directions * (directions + 1)) * _error(rows, training_rows)
    return float(max(COVARIANCE_LIMIT * np.sqrt(directions), 2 * chance))


def stability_index(training: Array, served: Array) -> float:
    """Return the population stability index, sum (s_i - t_i) ln(s_i / t_i), of shares t and s of levels, (c,).

    Shares below PSI_FLOOR count as PSI_FLOOR.
    """
    expected, found = np.maximum(training, PSI_FLOOR), np.maximum(served, PSI_FLOOR)
    return float(((found - expected) * np.log(found / expected)).sum())


def stability_limit(cells: int, rows: int, training_rows: float) -> float:
    """Return the index above which frequencies have drifted: PSI_LIMIT, or more than chance explains.

    By chance, the index of c cells is (1/m + 1/n) times a chi-squared variable with c - 1 degrees of freedom
    (Yurdakul and Naranjo, Journal of Risk Model Validation 14(4), 2020). Its quantile is approximated as by Wilson and
    Hilferty (1931).
    """
    freedom = max(1, cells - 1)
    quantile = freedom * (1 - 2 / (9 * freedom) + PSI_ERRORS * np.sqrt(2 / (9 * freedom))) ** 3
    return max(PSI_LIMIT, float(quantile) * _error(rows, training_rows) ** 2)


def _offset(statistics: SufficientStatistics) -> Array:
    """Return the training means in the units of `scale`, from the shift, (p,)."""
    return np.asarray(statistics.factor[0, 1 : statistics.features + 1] / statistics.factor[0, 0])


def _error(rows: int, training_rows: float) -> float:
    """Return the standard error of the difference of two means of unit variance."""
    return float(np.sqrt(1 / rows + 1 / training_rows))
