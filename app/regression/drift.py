"""Differences between served rows and training rows: means, covariances and frequencies of levels.

Served rows are `Moments` of the model's columns in the coordinates (x - shift) / scale of the training statistics.
"""

from dataclasses import dataclass
from typing import Self

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
# Logarithm of the variance ratio of one column that counts as drift: doubled or halved.
VARIANCE_LIMIT = float(np.log(2))
# Standard errors by which a variance may differ by chance. They follow from the kurtosis, which a sample of a
# heavy-tailed column underestimates. With 6, samples of lognormal(0, 1.5), Student's t with 3 degrees of freedom and
# columns with 1 % of ones differ in less than 1 of 100 models.
VARIANCE_ERRORS = 6.0
# Negative logarithm of the probability by which a column that varied in training may have one value by chance.
STUCK_LOGARITHM = 9.0
MAX_FOURTH_POWER = 1e200  # Fourth powers of larger deviations count as this, because their sum would overflow.
ROWS_PER_DIRECTION = 10  # Served rows that are needed for each direction. With fewer, a covariance is mostly noise.
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


def variance_ratios(statistics: SufficientStatistics, served: Moments) -> Array:
    """Return served variance / training variance, (p,); NaN for a constant column."""
    deviations = training_deviations(statistics)
    known = deviations > 0
    variances = served.covariance.diagonal() if served.has_pairs else served.covariance
    return np.asarray(np.where(known, variances, np.nan) / np.where(known, deviations, 1.0) ** 2)


def mean_limits(statistics: SufficientStatistics, served: Moments) -> Array:
    """Return the mean differences, (p,), above which columns have drifted: MEAN_LIMIT, or more than chance explains.

    The standard error has the larger of the two variances, because few training rows of a heavy-tailed column
    underestimate it.
    """
    ratios = np.fmax(1.0, variance_ratios(statistics, served))
    return np.maximum(
        MEAN_LIMIT, MEAN_ERRORS * np.sqrt(ratios) * _error(served.effective_rows, statistics.effective_rows)
    )


def variances_moved(statistics: SufficientStatistics, served: Moments, fourths: Array) -> NDArray[np.bool_]:
    """Return which columns, (p,), vary more or less than in training, by more than chance explains.

    `fourths` are the sums of the fourth powers of the deviations in `Axes.fourth_powers`. The logarithm of a variance
    of m rows has the variance (k - 1) / m, with k the kurtosis. A column has one value by chance with the probability
    that training has all its n / z^2 largest deviations z: (1 + m / n)^(-n / z^2).
    """
    ratios, n = variance_ratios(statistics, served), statistics.effective_rows
    known = np.isfinite(ratios)
    kurtosis = np.maximum(_column_kurtosis(statistics, served, fourths), _training_kurtosis(statistics))
    limits = np.maximum(VARIANCE_LIMIT, VARIANCE_ERRORS * np.sqrt(kurtosis - 1) * _error(served.effective_rows, n))
    varies = ratios > RESOLVED**2
    logarithms = np.abs(np.log(np.where(known & varies, ratios, 1.0)))
    largest = np.maximum(1.0, np.fmax.reduce(_extremes(statistics)))
    is_stuck = np.log1p(served.effective_rows / n) * n / largest**2 > STUCK_LOGARITHM
    return np.asarray(known & np.where(varies, logarithms > limits, is_stuck))


def constants_moved(statistics: SufficientStatistics, served: Moments) -> NDArray[np.bool_]:
    """Return which columns, (p,), were constant in training and have another value in served rows."""
    p = statistics.features
    value = _offset(statistics)
    tolerance = 1e-9 * np.maximum(np.abs(value), np.abs(statistics.shift[:p] / statistics.scale[:p]))
    moved = np.maximum(np.abs(served.minimum - value), np.abs(served.maximum - value)) > tolerance
    return np.asarray(moved & (training_deviations(statistics) == 0))


@dataclass(frozen=True, eq=False)
class Axes:
    """Coordinates in r directions in which the training rows have the mean 0 and the covariance matrix I."""

    columns: NDArray[np.intp]  # (c,) columns that are compared
    matrix: Array  # (c, r)
    origin: Array  # (p,) training means, in the units of `scale`, from the shift
    deviations: Array  # (p,) training deviations in these units, and 1 for a constant column

    @classmethod
    def of(cls, statistics: SufficientStatistics, columns: NDArray[np.intp]) -> Self:
        """Return the axes of the columns with these indices that are not constant."""
        deviations = training_deviations(statistics)
        columns = columns[deviations[columns] > 0]
        matrix = np.zeros((0, 0))
        if len(columns):
            factor = statistics.factor[1:, 1 + columns]
            norms = column_norms(factor)
            _, sizes, axes = np.linalg.svd(factor / norms, full_matrices=False)
            kept = sizes > RESOLVED * sizes[0]
            matrix = axes[kept].T / sizes[kept] / norms[:, np.newaxis]
            matrix *= np.sqrt(statistics.total_weight * (1 - 1 / statistics.effective_rows))
        return cls(columns, matrix, _offset(statistics), np.where(deviations > 0, deviations, 1.0))

    @property
    def directions(self) -> int:
        return int(self.matrix.shape[1])

    def fourth_powers(self, rows: Array) -> Array:
        """Return sums over rows (n, p) of fourth powers, (p + 1,): of their deviations, and of their distances.

        The distance of a row from the training mean is the Mahalanobis distance in the r directions.
        """
        with np.errstate(over="ignore"):
            moved = rows - self.origin
            fourths = np.minimum((moved / self.deviations) ** 4, MAX_FOURTH_POWER).sum(axis=0)
            inside = moved[:, self.columns] @ self.matrix
            squares = np.einsum("ij,ij->i", inside, inside)
            return np.append(fourths, np.minimum(squares**2, MAX_FOURTH_POWER).sum())

    def kurtosis(self, served: Moments, fourth: float) -> float:
        """Return the kurtosis of Mardia (Biometrika 57, 1970) of served rows, r^2 E d^4 / (E d^2)^2.

        It is r (r + 2) for normal rows. `fourth` is the sum of d^4. The distances d are those from the training mean.
        """
        distance = (served.mean - self.origin)[self.columns]
        products = served.products[np.ix_(self.columns, self.columns)]
        second = float(np.sum((self.matrix.T @ products) * self.matrix.T))
        second += served.weight * float(np.sum((distance @ self.matrix) ** 2))
        return self.directions**2 * served.weight * fourth / second**2 if second > 0 else 0.0


def covariance_distance(axes: Axes, served: Moments) -> float:
    """Return the affine-invariant distance of the covariance matrices of served and training rows.

    It is sqrt(sum ln^2 l_i) over the eigenvalues l of S_training^-1 S_served (Förstner and Moonen, A metric for
    covariance matrices, 1999), in the directions in which the training rows vary: 0 if the covariances are equal, and
    the same in all units. It is infinite if the served rows do not vary in one of them. `served` needs pairs.
    """
    covariance = served.covariance[np.ix_(axes.columns, axes.columns)]
    ratios = np.linalg.eigvalsh(axes.matrix.T @ covariance @ axes.matrix)
    if not len(ratios):
        return 0.0
    if ratios[0] <= RESOLVED**2 * max(1.0, ratios[-1]):
        return float("inf")
    return float(np.sqrt((np.log(ratios) ** 2).sum()))


def covariance_limit(statistics: SufficientStatistics, axes: Axes, served: Moments, fourth: float) -> float:
    """Return the distance above which covariances have drifted.

    By chance, the distance is about sqrt((b - r) (1/m + 1/n)), with b the kurtosis of Mardia. For normal rows, this is
    sqrt(r (r + 1) (1/m + 1/n)), from the variances of the elements of a Wishart matrix (Anderson, Multivariate
    Statistical Analysis, 3rd ed., 7.3), and twice that is allowed. The kurtosis beyond that of normal rows may be in
    one direction only, and has the larger allowance of one variance.
    """
    r = axes.directions
    normal = r * (r + 2)
    excess = float(np.max(_training_kurtosis(statistics)[axes.columns], initial=3.0)) - 3
    excess = max(excess, axes.kurtosis(served, fourth) - normal)
    allowed = np.sqrt(4 * r * (r + 1) + VARIANCE_ERRORS**2 * excess)
    return float(max(COVARIANCE_LIMIT * np.sqrt(r), allowed * _error(served.effective_rows, statistics.effective_rows)))


def stability_index(training: Array, served: Array) -> float:
    """Return the population stability index, sum (s_i - t_i) ln(s_i / t_i), of shares t and s of levels, (c,).

    Shares below PSI_FLOOR count as PSI_FLOOR.
    """
    expected, found = np.maximum(training, PSI_FLOOR), np.maximum(served, PSI_FLOOR)
    return float(((found - expected) * np.log(found / expected)).sum())


def stability_limit(cells: int, rows: float, training_rows: float) -> float:
    """Return the index above which frequencies have drifted: PSI_LIMIT, or more than chance explains.

    By chance, the index of c cells is (1/m + 1/n) times a chi-squared variable with c - 1 degrees of freedom
    (Yurdakul and Naranjo, Journal of Risk Model Validation 14(4), 2020). Its quantile is approximated as by Wilson and
    Hilferty (1931).
    """
    freedom = max(1, cells - 1)
    quantile = freedom * (1 - 2 / (9 * freedom) + PSI_ERRORS * np.sqrt(2 / (9 * freedom))) ** 3
    return max(PSI_LIMIT, float(quantile) * _error(rows, training_rows) ** 2)


def _column_kurtosis(statistics: SufficientStatistics, served: Moments, fourths: Array) -> Array:
    """Return m sum z^4 / (sum z^2)^2 of the deviations z of m served rows from the training mean, (p,)."""
    deviations = training_deviations(statistics)
    squares = served.squares + served.weight * (served.mean - _offset(statistics)) ** 2
    squares = squares / np.where(deviations > 0, deviations, 1.0) ** 2
    return np.asarray(served.weight * fourths / np.where(squares > 0, squares, np.inf) ** 2)


def _training_kurtosis(statistics: SufficientStatistics) -> Array:
    """Return a lower bound of the kurtosis of each column of the training rows, (p,), and at least 3.

    Their fourth powers are not known, only their ranges. The two extremes alone have the kurtosis (z_1^4 + z_2^4) / n.
    In heavy tails, they are most of it.
    """
    return np.asarray(np.maximum(3.0, np.nansum(_extremes(statistics) ** 4, axis=0) / statistics.effective_rows))


def _extremes(statistics: SufficientStatistics) -> Array:
    """Return the distances of the training range from the mean in training deviations, (2, p); NaN if not known."""
    p = statistics.features
    deviations = training_deviations(statistics) * statistics.scale[:p]
    ends = np.stack([statistics.minimum, statistics.maximum]) - statistics.mean[:p]
    known = deviations > 0
    return np.asarray(np.where(known, np.abs(ends), np.nan) / np.where(known, deviations, 1.0))


def _offset(statistics: SufficientStatistics) -> Array:
    """Return the training means in the units of `scale`, from the shift, (p,)."""
    return np.asarray(statistics.factor[0, 1 : statistics.features + 1] / statistics.factor[0, 0])


def _error(rows: float, training_rows: float) -> float:
    """Return the standard error of the difference of two means of unit variance."""
    return float(np.sqrt(1 / rows + 1 / training_rows))
