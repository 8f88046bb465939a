"""Sufficient statistics of the rows a linear model is trained on: exact, small and mergeable.

Every fit starts from them, so that updates, forgetting and refits need no rows.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.regression.errors import InvalidData, ValuesTooLarge

Array: TypeAlias = NDArray[np.float64]

# Meaning of a row's weight. `frequency`: the number of times it was observed. `precision`: the inverse of the variance
# of its error, up to a common factor.
WeightKind: TypeAlias = Literal["precision", "frequency"]

EPSILON = float(np.finfo(float).eps)
# Bound of a factor's rounding error, relative to the norm of each column, and of the error that each merge, downdate or
# further QR decomposition adds. The largest errors observed, over up to 67,000,000 rows with outliers, drift and near
# collinearity and over thousands of operations, are a fifth and a tenth of these.
FACTOR_ERROR, OPERATION_ERROR = 32 * EPSILON, 2 * EPSILON
# Largest distance, in powers of two, between a column's scale and its deviations at which squares do not overflow.
MAX_REACH = 400
SAFE_SQUARES = (1e-200, 1e200)  # Range of sums of squares in which no term has overflowed or underflowed.
MIN_QR_ROWS = 128  # Smallest number of rows per QR decomposition when many rows are decomposed in parts.

PRECISION_UNKNOWN = (
    "Rows were taken out of this version or an earlier one before the precision that this costs was recorded, or an "
    "earlier version that could tell is gone. Train the model again from the rows that remain."
)


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """Summary of n rows z = [x, y] with p features and k targets, sufficient for least squares.

    `factor` is the upper-triangular R of the QR decomposition of the n rows sqrt(weight) [1, (z - shift) / scale], so
    that R'R is their Gram matrix. It is updated by tall-skinny QR (Demmel, Grigori, Hoemmen and Langou, SIAM J. Sci.
    Comput. 34, 2012). Adding up products instead would square the condition number. `shift` is a value of each column,
    so that a constant column has deviations of exactly zero. `scale` is a power of two, so that scaling is exact.

    Rows of weight 0 are not included.
    """

    features: int
    rows: int  # number of rows; with frequency weights, their sum
    effective_rows: float  # n of the degrees of freedom: `rows`, reduced by decay
    shift: Array  # (p + k,)
    scale: Array  # (p + k,), powers of two
    factor: Array  # (1 + p + k, 1 + p + k), upper triangular
    minimum: Array  # (p,)
    maximum: Array  # (p,)
    removed: Array | None = None  # factor of all rows taken out, as `factor`; None if there were none
    untracked: bool = False  # True if rows were taken out before `removed` was recorded
    weight_kind: WeightKind = "precision"
    log_weights: float = 0.0  # sum of the logarithms of precision weights; NaN if it was not recorded
    discounted: bool = False  # True if decay ever reduced a weight
    operations: int = 0  # number of merges, downdates and further QR decompositions, each of which rounds
    # (p,), number of rows, counted as `rows`, in which an indicator of a category's level is 1. It is -1 for columns
    # that are not indicators. None if there are no indicators.
    indicator_rows: NDArray[np.int64] | None = None

    @classmethod
    def from_rows(cls, x: Array, y: Array) -> Self:
        """Return the statistics of x, (n, p), and y, (n, k), with n at least 1, straight from the definition.

        `app.regression.summaries.summarise` is faster for many rows.
        """
        z = np.hstack([x, y])
        shift, scale = shift_and_scale(z)
        rows = np.column_stack([np.ones(len(z)), (z - shift) / scale])
        n = len(z)
        return cls(x.shape[1], n, float(n), shift, scale, r_factor(rows), x.min(axis=0), x.max(axis=0))

    def check_weight_kind(self, other: "SufficientStatistics") -> None:
        """Raise InvalidData if the weights of the other rows are of another kind."""
        if self.weight_kind != other.weight_kind:
            raise InvalidData(
                f"The rows have {other.weight_kind} weights, and the version has {self.weight_kind} weights."
            )

    def merge(self, other: "SufficientStatistics") -> Self:
        """Return the statistics of both sets of rows together, exact up to rounding.

        Raises InvalidData if their weights are of different kinds, and ValuesTooLarge if a difference between the two
        exceeds the range of 64-bit numbers.
        """
        self.check_weight_kind(other)
        both, scale = (self, other), self._scale_with(other)
        removed = [side.transform(side.removed, self.shift, scale) for side in both if side.removed is not None]
        return replace(
            self,
            rows=self.rows + other.rows,
            effective_rows=self.effective_rows + other.effective_rows,
            scale=scale,
            factor=r_factor(np.vstack([side.rescaled_factor(self.shift, scale) for side in both])),
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
            removed=r_factor(np.vstack(removed)) if removed else None,
            untracked=self.untracked or other.untracked,
            log_weights=self.log_weights + other.log_weights,
            discounted=self.discounted or other.discounted,
            operations=self.operations + other.operations + 1,
            indicator_rows=self._indicator_rows_with(other),
        )

    def _indicator_rows_with(self, other: "SufficientStatistics") -> NDArray[np.int64] | None:
        if self.indicator_rows is None or other.indicator_rows is None:
            return None
        return np.where(self.indicator_rows < 0, -1, self.indicator_rows + other.indicator_rows)

    def _scale_with(self, other: "SufficientStatistics") -> Array:
        """Return the scale, with another value for columns whose deviations would overflow or underflow."""
        with np.errstate(over="ignore", divide="ignore"):
            distance = np.abs(self.shift - other.shift)
            sizes = [np.log2(column_norms(side.factor[:, 1:])) + np.log2(side.scale) for side in (self, other)]
            size = np.maximum.reduce([*sizes, np.log2(distance)])
        if (size == np.inf).any():
            raise ValuesTooLarge(int(np.argmax(size)))
        far = np.isfinite(size) & (np.abs(size - np.log2(self.scale)) > MAX_REACH)
        return np.where(far, np.exp2(np.clip(np.ceil(np.where(far, size, 0.0)), -1000, 1000)), self.scale)

    def discounted_by(self, share: float) -> Self:
        """Return the statistics of the same rows, each with this share of its weight, in (0, 1]."""
        root = math.sqrt(share)
        return replace(
            self,
            factor=self.factor * root,
            effective_rows=self.effective_rows * share,
            removed=None if self.removed is None else self.removed * root,
            discounted=self.discounted or share < 1,
        )

    def rescaled_factor(self, shift: Array, scale: Array) -> Array:
        """Return the factor of the same rows in the coordinates [1, (z - shift) / scale]."""
        return self.transform(self.factor, shift, scale)

    def transform(self, factor: Array, shift: Array, scale: Array) -> Array:
        """Return a factor that is in the coordinates of these statistics, such as `removed`, in other coordinates."""
        # [1, (z - s2)/c2] = [1, (z - s1)/c1] T with T upper triangular, so R T is the transformed factor.
        change: Array = np.diag(np.concatenate([[1.0], self.scale / scale]))
        change[0, 1:] = (self.shift - shift) / scale
        return np.asarray(factor @ change, dtype=np.float64)

    @property
    def targets(self) -> int:
        return len(self.shift) - self.features

    @property
    def total_weight(self) -> float:
        return float(self.factor[0, 0] ** 2)

    @property
    def mean_weight(self) -> float:
        """Weight of the observation for which residual deviations and prediction intervals are given.

        This is the mean of precision weights. With frequency weights, each observation has weight 1.
        """
        return 1.0 if self.weight_kind == "frequency" else self.total_weight / self.effective_rows

    @property
    def offset(self) -> Array:
        """Mean of each column minus its shift, (p + k,). The shift is near the mean, so nothing large cancels."""
        return np.asarray(self.scale * (self.factor[0, 1:] / self.factor[0, 0]))

    @property
    def mean(self) -> Array:
        """Mean of each column, (p + k,)."""
        return np.asarray(self.shift + self.offset)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Return for each feature, (p,), whether it is constant: its minimum equals its maximum.

        Taking out rows does not narrow the range. A feature is therefore also constant if its remaining variation is
        within the rounding error of the largest variation that the statistics ever held.
        """
        same: NDArray[np.bool_] = self.minimum == self.maximum
        if self.removed is None:
            return same
        columns = slice(1, self.features + 1)
        largest = column_norms(self.cumulative_factor[:, columns])
        return np.asarray(same | (column_norms(self.factor[1:, columns]) ** 2 <= 2 * self.factor_error * largest**2))

    @property
    def factor_error(self) -> float:
        """Bound of the factor's rounding error, relative to the norm of each column of `cumulative_factor`."""
        return FACTOR_ERROR + OPERATION_ERROR * self.operations

    @property
    def cumulative_factor(self) -> Array:
        """Factor of all rows ever added, including those taken out again, in the same coordinates.

        Its Gram matrix is an upper bound of every Gram matrix that the statistics ever held.
        """
        return self.factor if self.removed is None else r_factor(np.vstack([self.factor, self.removed]))

    @property
    def centred_factor(self) -> Array:
        """Upper-triangular S, (p + k, p + k), with S'S the cross products of deviations from the means."""
        return self.factor[1:, 1:] * self.scale

    @property
    def factor_about_zero(self) -> Array:
        """Factor of the rows [1, z / scale], for models without an intercept."""
        return self.rescaled_factor(np.zeros_like(self.shift), self.scale)

    @property
    def raw_factor(self) -> Array:
        """Factor of the rows [1, z] in their own units."""
        return self.rescaled_factor(np.zeros_like(self.shift), np.ones_like(self.scale))

    def residual_norms(self, coef: Array, intercept: Array, centre: Array | None = None) -> Array:
        """Return the square root of the residual sum of squares of each target, (k,).

        The predictions are coef (x - centre) + intercept, with the centre, (p,), by default zero. With the shift as the
        centre, nothing large cancels.
        """
        p = self.features
        start = -self.shift[:p] if centre is None else centre - self.shift[:p]
        return self.residual_norms_at_shift(coef, intercept - self.shift[p:] - start @ coef.T)

    def residual_norms_at_shift(self, coef: Array, offset: Array) -> Array:
        """Return the residual norms of predictions shift_y + offset + coef (x - shift_x).

        The sum of shift_y and offset would be rounded to the spacing of the targets.
        """
        p, unit = self.features, self.scale[self.features :]
        # In shifted and scaled coordinates, with a column for each target.
        predictions = self.factor[:, 1 : p + 1] @ (self.scale[:p, np.newaxis] * coef.T / unit)
        predictions += self.factor[:, :1] * (offset / unit)
        return np.asarray(column_norms(self.factor[:, p + 1 :] - predictions) * unit)

    def total_norms(self, *, centred: bool = True) -> Array:
        """Return the square root of the total sum of squares of each target, (k,), about its mean or about zero."""
        if centred:
            return np.asarray(column_norms(self.factor[1:, self.features + 1 :]) * self.scale[self.features :])
        return column_norms(self.raw_factor[:, self.features + 1 :])


def shift_and_scale(z: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Return the shift and the scale of each column of z, (n, d), whose rows have weights (n,).

    The shift is the column's value nearest to its mean. The scale is the power of two above its largest deviation.
    """
    share = np.full(len(z), 1 / len(z)) if weights is None else weights / weights.max()
    share /= share.sum()
    with np.errstate(over="ignore"):  # a deviation that overflows is rejected when the columns are summed
        nearest = np.abs(z - share @ z).argmin(axis=0)
        shift = z[nearest, np.arange(z.shape[1])]
        return shift, power_of_two(np.abs(z - shift).max(axis=0), shift)


def power_of_two(spread: Array, otherwise: Array) -> Array:
    """Return the power of two above each value of `spread`, or of `otherwise` if it is 0; 1 if both are 0."""
    size = np.where(spread > 0, spread, np.abs(otherwise))
    exponents = np.frexp(np.where((size > 0) & np.isfinite(size), size, 0.5))[1]
    return np.asarray(np.ldexp(1.0, np.minimum(np.maximum(exponents, -1000), 1000)))


def column_norms(matrix: Array) -> Array:
    """Return the Euclidean norm of each column, (d,), without overflow or underflow of its squares."""
    squares = np.einsum("ij,ij->j", matrix, matrix)
    if ((squares > SAFE_SQUARES[0]) & (squares < SAFE_SQUARES[1])).all():
        return np.asarray(np.sqrt(squares))
    largest = np.abs(matrix).max(axis=0, initial=0.0)
    size = np.where(largest > 0, largest, 1.0)
    return np.asarray(largest * np.sqrt(((matrix / size) ** 2).sum(axis=0)))


def condition_number(factor: Array) -> float:
    """Return the condition number of a factor with columns at unit norm; infinite if one is zero or not finite."""
    norms = column_norms(factor)
    if not (np.isfinite(norms).all() and norms.all()):
        return np.inf
    singular: NDArray[np.floating] = np.linalg.svd(factor / norms, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else np.inf


def r_factor(rows: Array) -> Array:
    """Return the upper-triangular factor, (d, d), of the QR decomposition of rows, (n, d).

    Many rows are decomposed in parts, then the factors of the parts, because the rounding errors of one decomposition
    grow with its number of rows.
    """
    width = rows.shape[1]
    size = max(MIN_QR_ROWS, 4 * width)
    while len(rows) > 2 * size:
        end = len(rows) // size * size
        factors = np.asarray(np.linalg.qr(rows[:end].reshape(-1, size, width), mode="r"))
        rows = np.vstack([factors.reshape(-1, width), rows[end:]])
    factor = np.asarray(np.linalg.qr(rows, mode="r"), dtype=np.float64)
    missing = width - len(factor)
    return np.vstack([factor, np.zeros((missing, width))]) if missing > 0 else factor
