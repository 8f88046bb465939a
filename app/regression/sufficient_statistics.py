"""The exact, tiny, mergeable summary of the rows a linear model is trained on."""

import math
from dataclasses import dataclass, replace
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidInput

Array: TypeAlias = NDArray[np.float64]

ROUNDING = 1e-13  # of singular values, beside the largest


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """What least squares needs to know of n rows z = [x, y] with p features and k targets.

    `factor` is the upper-triangular R of the QR decomposition of the n rows [1, (z - shift) / scale], so that
    R'R is their Gram matrix. It is updated by tall-skinny QR (Demmel, Grigori, Hoemmen and Langou, 2012) and
    never by adding up products, which would square the condition number. Shift and scale come from the first block.
    """

    features: int
    rows: int
    count: float  # of rows, each counted with what decay has left of it: what degrees of freedom are taken from
    shift: Array  # (p + k,)
    scale: Array  # (p + k,), positive
    factor: Array  # (1 + p + k, 1 + p + k), upper triangular
    minimum: Array  # (p,)
    maximum: Array  # (p,)

    @classmethod
    def from_block(cls, x: Array, y: Array) -> Self:
        """The statistics of rows that lie together, as they are defined: x is (n, p), y is (n, k), n at least 1.

        `app.regression.accumulator` finds those of many rows faster.
        """
        z = np.hstack([x, y])
        shift, scale = centre(z)
        rows = np.column_stack([np.ones(len(z)), (z - shift) / scale])
        n = len(z)
        return cls(x.shape[1], n, float(n), shift, scale, triangle(rows), x.min(axis=0), x.max(axis=0))

    def merge(self, other: "SufficientStatistics") -> Self:
        """The statistics of both sets of rows together, exact up to rounding."""
        return type(self)(
            features=self.features,
            rows=self.rows + other.rows,
            count=self.count + other.count,
            shift=self.shift,
            scale=self.scale,
            factor=triangle(np.vstack([self.factor, other.factor_in(self.shift, self.scale)])),
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
        )

    def decayed(self, share: float) -> Self:
        """The same rows, each with this share of its weight, in (0, 1]."""
        return replace(self, factor=self.factor * math.sqrt(share), count=self.count * share)

    def without(self, other: "SufficientStatistics") -> Self:
        """The statistics of the rows that remain when the other's are taken out: merge, undone.

        A downdate: with R = U S V' and P the other's factor in the coordinates of U, the remaining rows' factor is
        chol(I - P'P) S V' (Golub and Van Loan, 6.5.4). The ranges stay, since they cannot be narrowed.

        Raises InvalidInput where the other's rows cannot be among these, or where too few would remain.
        """
        p = self.features
        if other.rows >= self.rows or (other.minimum < self.minimum).any() or (other.maximum > self.maximum).any():
            raise InvalidInput("These rows are not among those the version was trained on, or they are all of them.")
        norms = np.sqrt((self.factor**2).sum(axis=0))
        norms = np.where(norms > 0, norms, 1.0)
        _, s, vt = np.linalg.svd(self.factor / norms)
        kept = s > ROUNDING * s[0]
        theirs = other.factor_in(self.shift, self.scale) / norms @ vt.T
        if np.abs(theirs[:, ~kept]).max(initial=0.0) > math.sqrt(ROUNDING) * s[0]:
            raise InvalidInput("These rows are not among those the version was trained on.")
        inside = theirs[:, kept] / s[kept]
        left = np.eye(kept.sum()) - inside.T @ inside
        eigenvalues, vectors = np.linalg.eigh(left)
        if eigenvalues[0] < -math.sqrt(ROUNDING):
            raise InvalidInput("These rows are not among those the version was trained on.")
        root = np.sqrt(np.maximum(eigenvalues, 0.0))[:, np.newaxis] * vectors.T
        factor = triangle(root @ (s[kept, np.newaxis] * vt[kept]))
        if _rank(factor[:, : p + 1]) < _rank((self.factor / norms)[:, : p + 1]):
            raise InvalidInput("Without these rows, too few remain to determine the coefficients.")
        return replace(self, rows=self.rows - other.rows, count=self.count - other.count, factor=factor * norms)

    def factor_in(self, shift: Array, scale: Array) -> Array:
        """R of the same rows in other coordinates, [1, (z - shift) / scale]."""
        # [1, (z - s2)/c2] = [1, (z - s1)/c1] T with T upper triangular, so R T is the factor in the other coordinates.
        change: Array = np.diag(np.concatenate([[1.0], self.scale / scale]))
        change[0, 1:] = (self.shift - shift) / scale
        return np.asarray(self.factor @ change, dtype=np.float64)

    @property
    def targets(self) -> int:
        return len(self.shift) - self.features

    @property
    def weight(self) -> float:
        """Sum of the rows' weights: their number, where each weighs 1."""
        return float(self.factor[0, 0] ** 2)

    @property
    def mean(self) -> Array:
        """Mean of every column, features first: (p + k,)."""
        return np.asarray(self.shift + self.scale * (self.factor[0, 1:] / self.factor[0, 0]))

    @property
    def centred_factor(self) -> Array:
        """Upper-triangular S, (p + k, p + k), with S'S the cross products of the deviations from the means."""
        return self.factor[1:, 1:] * self.scale

    @property
    def raw_factor(self) -> Array:
        """Upper-triangular R, (1 + p + k, 1 + p + k), of the rows [1, z] in their own units."""
        return self.factor_in(np.zeros_like(self.shift), np.ones_like(self.scale))

    def residual_sums(self, weights: Array, intercept: Array) -> Array:
        """Sum of squared residuals for each target, (k,), of weights (k, p) and intercept (k,), without the rows."""
        # y - x B' - b in the shifted and scaled coordinates, where nothing large cancels.
        p = self.features
        coefficients = np.vstack(
            [
                self.shift[p:] - self.shift[:p] @ weights.T - intercept,
                -(self.scale[:p, np.newaxis] * weights.T),
                np.diag(self.scale[p:]),
            ]
        )
        return np.asarray(((self.factor @ coefficients) ** 2).sum(axis=0))

    def total_sums(self, *, centred: bool = True) -> Array:
        """Sum of squared deviations of each target from its mean, (k,); 0 where they are but the mean's rounding.

        Not centred, the plain sum of its squares.
        """
        if not centred:
            return np.asarray((self.raw_factor[:, self.features + 1 :] ** 2).sum(axis=0))
        total = (self.centred_factor[:, self.features :] ** 2).sum(axis=0)
        noise = 4 * np.finfo(float).eps * np.abs(self.mean[self.features :])
        return np.where(total > self.weight * noise**2, total, 0.0)


def _rank(factor: Array) -> int:
    s = np.linalg.svd(factor, compute_uv=False)
    return int((s > math.sqrt(ROUNDING) * s[0]).sum())


def centre(z: Array) -> tuple[Array, Array]:
    """Shift and scale of columns, (d,) each: their mean, and their deviation where they have one."""
    shift = z.mean(axis=0)
    deviation = np.sqrt(((z - shift) ** 2).mean(axis=0))
    return shift, np.where(deviation > 0, deviation, np.maximum(np.abs(shift), 1.0))


def triangle(rows: Array) -> Array:
    """The square upper-triangular factor of the QR decomposition of any number of rows."""
    factor = np.asarray(np.linalg.qr(rows, mode="r"), dtype=np.float64)
    missing = factor.shape[1] - factor.shape[0]
    return np.vstack([factor, np.zeros((missing, factor.shape[1]))]) if missing > 0 else factor
