"""Means, cross products and ranges of rows: small, mergeable in any order, and free of the rows.

They describe rows that are only looked at. Fits need `SufficientStatistics`, which keep more digits.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from app.regression.sufficient_statistics import Array


@dataclass(frozen=True, eq=False)
class Moments:
    """Summary of n rows of q columns.

    `products` are sums of products of deviations from the means: (q, q), or (q,) if only those of each column with
    itself are kept. Batches are summed about their own mean, and two sets are merged by the pairwise update of Chan,
    Golub and LeVeque (The American Statistician 37, 1983), so that a mean far from 0 costs no digits.

    All rows of a batch have one weight: the number of rows that each stands for, if it is a sample.
    """

    rows: int
    mean: Array  # (q,)
    products: Array  # (q, q) or (q,)
    minimum: Array  # (q,)
    maximum: Array  # (q,)
    weight: float  # sum of the weights
    weight_squares: float  # sum of their squares

    @classmethod
    def of(cls, rows: Array, *, weight: float = 1.0, pairs: bool = True) -> Self:
        """Return the moments of rows, (n, q), with n at least 1. Without `pairs`, products have the shape (q,)."""
        mean = rows.mean(axis=0)
        deviations = rows - mean
        # The mean is rounded, so the deviations have a small sum. Its square is taken off (Chan et al., 1.8).
        residue = deviations.sum(axis=0)
        if pairs:
            products = deviations.T @ deviations - np.outer(residue, residue) / len(rows)
        else:
            products = np.einsum("ij,ij->j", deviations, deviations) - residue**2 / len(rows)
        n = len(rows)
        return cls(n, mean, weight * products, rows.min(axis=0), rows.max(axis=0), n * weight, n * weight**2)

    @property
    def has_pairs(self) -> bool:
        return self.products.ndim > 1

    @property
    def squares(self) -> Array:
        """Sum of squared deviations of each column, (q,)."""
        return np.asarray(self.products.diagonal() if self.has_pairs else self.products)

    @property
    def effective_rows(self) -> float:
        """Number of rows of equal weight whose mean has the same variance (Kish, Survey Sampling, 1965, 11.7)."""
        return self.weight**2 / self.weight_squares

    @property
    def covariance(self) -> Array:
        """The products divided by the weight and the degrees of freedom: covariances, or variances without pairs."""
        n = self.effective_rows
        return np.asarray(self.products / self.weight * (n / max(1.0, n - 1)))

    @property
    def nbytes(self) -> int:
        return self.mean.nbytes + self.products.nbytes + self.minimum.nbytes + self.maximum.nbytes

    def without_pairs(self) -> Self:
        """Return the same moments without the products of two different columns."""
        return replace(self, products=self.squares.copy())

    def merge(self, other: "Moments") -> Self:
        """Return the moments of both sets of rows together. They have pairs only if both have them."""
        weight = self.weight + other.weight
        distance, share = other.mean - self.mean, other.weight / weight
        if self.has_pairs and other.has_pairs:
            products = self.products + other.products + np.outer(distance, distance) * (self.weight * share)
        else:
            products = self.squares + other.squares + distance**2 * (self.weight * share)
        return replace(
            self,
            rows=self.rows + other.rows,
            mean=self.mean + distance * share,
            products=products,
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
            weight=weight,
            weight_squares=self.weight_squares + other.weight_squares,
        )
