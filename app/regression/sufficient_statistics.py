"""The exact, tiny, mergeable summary of the rows a linear model is trained on."""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidInput, ValuesTooLarge

Array: TypeAlias = NDArray[np.float64]

# What a row's weight means: `frequency`, the row was observed so many times; `precision`, the inverse of the variance
# of its error, up to a common factor.
WeightKind: TypeAlias = Literal["precision", "frequency"]

EPSILON = float(np.finfo(float).eps)
# Rounding error of a factor, relative to the norm of each column. The largest one observed, over up to 67,000,000 rows
# with outliers, drift and near collinearity, is a fifth of this.
FACTOR_ERROR = 32 * EPSILON
# The error that each merge, downdate or further QR decomposition may add: that of rounding each value, and the norm of
# its column. Over thousands of operations the errors partly cancel. At most a tenth of this is observed.
OPERATION_ERROR = 2 * EPSILON
# Powers of two between the scale and the size of the deviations, up to which squares are in the range of numbers.
MAX_REACH = 400
SAFE_SQUARES = (1e-200, 1e200)  # sums of squares whose terms cannot have left the range of numbers unseen
PART = 128  # rows, at least, of a QR decomposition that is part of another one


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """What least squares needs to know of n rows z = [x, y] with p features and k targets.

    `factor` is the upper-triangular R of the QR decomposition of the n rows sqrt(weight) [1, (z - shift) / scale], so
    that R'R is their Gram matrix. It is updated by tall-skinny QR (Demmel, Grigori, Hoemmen and Langou, 2012) and
    never by adding up products, which would square the condition number. `shift` is a value of each column, so that a
    constant column has deviations of exactly zero, and `scale` is a power of two, so that scaling rounds nothing.

    Rows of weight 0 are not in the statistics. `removed` is the factor, in the same coordinates, of all rows that were
    taken out again. `untracked` says that rows were taken out before `removed` was recorded.
    """

    features: int
    rows: int  # or observations, if weights are their frequencies
    effective_rows: (
        float  # n that degrees of freedom are taken from: rows, or the sum of frequency weights; discounted by decay
    )
    shift: Array  # (p + k,)
    scale: Array  # (p + k,), powers of two
    factor: Array  # (1 + p + k, 1 + p + k), upper triangular
    minimum: Array  # (p,)
    maximum: Array  # (p,)
    removed: Array | None = None  # (1 + p + k, 1 + p + k), upper triangular; None if no row was ever taken out
    untracked: bool = False
    weight_kind: WeightKind = "precision"
    log_weights: float = 0.0  # sum of the logarithms of precision weights
    discounted: bool = False  # whether decay ever reduced a weight
    operations: int = 0  # merges, downdates and further QR decompositions that led here, each of which rounds

    @classmethod
    def from_rows(cls, x: Array, y: Array) -> Self:
        """Return the statistics of rows in memory, by their definition: x is (n, p), y is (n, k), n at least 1.

        `app.regression.streaming_qr` finds those of many rows faster.
        """
        z = np.hstack([x, y])
        shift, scale = shift_and_scale(z)
        rows = np.column_stack([np.ones(len(z)), (z - shift) / scale])
        n = len(z)
        return cls(x.shape[1], n, float(n), shift, scale, r_factor(rows), x.min(axis=0), x.max(axis=0))

    def merge(self, other: "SufficientStatistics") -> Self:
        """Return the statistics of both sets of rows together, exact up to rounding.

        Raises InvalidInput if their weights are of different kinds, ValuesTooLarge if the range of 64-bit numbers does
        not hold their differences.
        """
        if self.weight_kind != other.weight_kind:
            raise InvalidInput(
                f"The rows have {other.weight_kind} weights, and the version has {self.weight_kind} weights."
            )
        scale = self._scale_with(other)
        removed = [
            part.transform(part.removed, self.shift, scale) for part in (self, other) if part.removed is not None
        ]
        return replace(
            self,
            rows=self.rows + other.rows,
            effective_rows=self.effective_rows + other.effective_rows,
            scale=scale,
            factor=r_factor(np.vstack([part.rescaled_factor(self.shift, scale) for part in (self, other)])),
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
            removed=r_factor(np.vstack(removed)) if removed else None,
            untracked=self.untracked or other.untracked,
            log_weights=self.log_weights + other.log_weights,
            discounted=self.discounted or other.discounted,
            operations=self.operations + other.operations + 1,
        )

    def _scale_with(self, other: "SufficientStatistics") -> Array:
        """Return the scale; another one for columns whose deviations would leave the range of numbers in it."""
        with np.errstate(over="ignore", divide="ignore"):
            distance = np.abs(self.shift - other.shift)
            parts = [np.log2(column_norms(part.factor[:, 1:])) + np.log2(part.scale) for part in (self, other)]
            size = np.maximum.reduce([*parts, np.log2(distance)])
        if (size == np.inf).any():
            raise ValuesTooLarge(int(np.argmax(size)))
        far = np.isfinite(size) & (np.abs(size - np.log2(self.scale)) > MAX_REACH)
        return np.where(far, np.exp2(np.clip(np.ceil(np.where(far, size, 0.0)), -1000, 1000)), self.scale)

    def discounted_by(self, share: float) -> Self:
        """Return the same rows, each with this share of its weight, in (0, 1]."""
        root = math.sqrt(share)
        return replace(
            self,
            factor=self.factor * root,
            effective_rows=self.effective_rows * share,
            removed=None if self.removed is None else self.removed * root,
            discounted=self.discounted or share < 1,
        )

    def rescaled_factor(self, shift: Array, scale: Array) -> Array:
        """Return R of the same rows in other coordinates, [1, (z - shift) / scale]."""
        return self.transform(self.factor, shift, scale)

    def transform(self, factor: Array, shift: Array, scale: Array) -> Array:
        """Return a factor in the coordinates of these statistics, such as `removed`, in other coordinates."""
        # [1, (z - s2)/c2] = [1, (z - s1)/c1] T with T upper triangular, so R T is the factor in the other coordinates.
        change: Array = np.diag(np.concatenate([[1.0], self.scale / scale]))
        change[0, 1:] = (self.shift - shift) / scale
        return np.asarray(factor @ change, dtype=np.float64)

    @property
    def targets(self) -> int:
        return len(self.shift) - self.features

    @property
    def total_weight(self) -> float:
        """Sum of the rows' weights: their number, if each weighs 1."""
        return float(self.factor[0, 0] ** 2)

    @property
    def mean_weight(self) -> float:
        """Weight of the observation that residual deviations and prediction intervals are given for.

        The mean of precision weights. Frequency weights count observations that weigh 1 each.
        """
        return 1.0 if self.weight_kind == "frequency" else self.total_weight / self.effective_rows

    @property
    def offset(self) -> Array:
        """Mean of every column less its shift, (p + k,). The shift is near the mean, so nothing large cancels."""
        return np.asarray(self.scale * (self.factor[0, 1:] / self.factor[0, 0]))

    @property
    def mean(self) -> Array:
        """Mean of every column, features first: (p + k,)."""
        return np.asarray(self.shift + self.offset)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Return which features do not vary, (p,): their minimum equals their maximum.

        Ranges are not split_wide when rows are taken out. After that, a feature is constant too if what remains of its
        variation is within the rounding error of the variation that was ever held.
        """
        same: NDArray[np.bool_] = self.minimum == self.maximum
        if self.removed is None:
            return same
        columns = slice(1, self.features + 1)
        remaining = column_norms(self.factor[1:, columns])
        return np.asarray(
            same | (remaining**2 <= 2 * self.factor_error * column_norms(self.cumulative_factor[:, columns]) ** 2)
        )

    @property
    def factor_error(self) -> float:
        """Bound of the factor's rounding error, relative to the norm of each column of `held`."""
        return FACTOR_ERROR + OPERATION_ERROR * self.operations

    @property
    def cumulative_factor(self) -> Array:
        """Factor of all rows that were ever held, those taken out among them, in these coordinates.

        Its Gram matrix bounds every Gram matrix that was ever held, from above.
        """
        return self.factor if self.removed is None else r_factor(np.vstack([self.factor, self.removed]))

    @property
    def centred_factor(self) -> Array:
        """Upper-triangular S, (p + k, p + k), with S'S the cross products of the deviations from the means."""
        return self.factor[1:, 1:] * self.scale

    @property
    def factor_about_zero(self) -> Array:
        """R, (1 + p + k, 1 + p + k), of the rows [1, z / scale], for models without an intercept."""
        return self.rescaled_factor(np.zeros_like(self.shift), self.scale)

    @property
    def raw_factor(self) -> Array:
        """Upper-triangular R, (1 + p + k, 1 + p + k), of the rows [1, z] in their own units."""
        return self.rescaled_factor(np.zeros_like(self.shift), np.ones_like(self.scale))

    def residual_norms(self, weights: Array, intercept: Array, centre: Array | None = None) -> Array:
        """Return the square root of the sum of squared residuals for each target, (k,), without the rows.

        The predictions are weights (x - centre) + intercept, with weights (k, p), intercept (k,) and centre (p,), zero
        by default. With the shift as the centre, nothing large cancels.
        """
        p = self.features
        start = -self.shift[:p] if centre is None else centre - self.shift[:p]
        return self.residual_norms_at_shift(weights, intercept - self.shift[p:] - start @ weights.T)

    def residual_norms_at_shift(self, weights: Array, offset: Array) -> Array:
        """Return the same for predictions that exceed the targets' shift by `offset`, (k,), at the features' shift.

        For the optimum, adding the shift would round the offset to the spacing of the targets.
        """
        p, unit = self.features, self.scale[self.features :]
        # One target a column, in the shifted and scaled coordinates.
        predictions = self.factor[:, 1 : p + 1] @ (self.scale[:p, np.newaxis] * weights.T / unit)
        predictions += self.factor[:, :1] * (offset / unit)
        return np.asarray(column_norms(self.factor[:, p + 1 :] - predictions) * unit)

    def total_norms(self, *, centred: bool = True) -> Array:
        """Return the square root of the sum of squared deviations of each target from its mean, (k,).

        Not centred, the square root of the plain sum of its squares.
        """
        if centred:
            return np.asarray(column_norms(self.factor[1:, self.features + 1 :]) * self.scale[self.features :])
        return column_norms(self.raw_factor[:, self.features + 1 :])


def shift_and_scale(z: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Return the shift and scale of the columns of z (n, d), (d,) each.

    The shift is the value nearest to the column's mean, the scale the power of two above its largest deviation.
    """
    share = np.full(len(z), 1 / len(z)) if weights is None else weights / weights.max()
    share /= share.sum()
    with np.errstate(over="ignore"):  # a deviation that overflows is refused where the columns are summed up
        nearest = np.abs(z - share @ z).argmin(axis=0)
        shift = z[nearest, np.arange(z.shape[1])]
        return shift, power_of_two(np.abs(z - shift).max(axis=0), shift)


def power_of_two(spread: Array, otherwise: Array) -> Array:
    """Return the power of two above each value, or above the other one if it is zero; 1 if both are."""
    size = np.where(spread > 0, spread, np.abs(otherwise))
    exponents = np.frexp(np.where((size > 0) & np.isfinite(size), size, 0.5))[1]
    return np.asarray(np.ldexp(1.0, np.minimum(np.maximum(exponents, -1000), 1000)))


def column_norms(matrix: Array) -> Array:
    """Return the Euclidean norm of each column, without overflow or underflow of its squares."""
    squares = np.einsum("ij,ij->j", matrix, matrix)
    if ((squares > SAFE_SQUARES[0]) & (squares < SAFE_SQUARES[1])).all():
        return np.asarray(np.sqrt(squares))
    largest = np.abs(matrix).max(axis=0, initial=0.0)
    size = np.where(largest > 0, largest, 1.0)
    return np.asarray(largest * np.sqrt(((matrix / size) ** 2).sum(axis=0)))


def r_factor(rows: Array) -> Array:
    """Return the square upper-triangular factor of the QR decomposition of any number of rows.

    Many rows are decomposed in parts, and the factors of the parts again. The rounding errors of one decomposition
    grow with its rows.
    """
    width = rows.shape[1]
    part = max(PART, 4 * width)
    while len(rows) > 2 * part:
        whole = len(rows) // part * part
        factors = np.asarray(np.linalg.qr(rows[:whole].reshape(-1, part, width), mode="r"))
        rows = np.vstack([factors.reshape(-1, width), rows[whole:]])
    factor = np.asarray(np.linalg.qr(rows, mode="r"), dtype=np.float64)
    missing = width - len(factor)
    return np.vstack([factor, np.zeros((missing, width))]) if missing > 0 else factor
