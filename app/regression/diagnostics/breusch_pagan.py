"""The Breusch-Pagan test in the studentised form of Koenker: whether the columns explain the variance of the errors.

The squared residuals are regressed on an intercept and the columns. LM = n R^2 of that regression has a chi-squared
distribution if the errors all have one variance (Koenker, Journal of Econometrics 17, 1981; Breusch and Pagan,
Econometrica 47, 1979). The F test of the same regression is an alternative for few rows. This is the default of
statsmodels' het_breuschpagan, and of lmtest's bptest in R.
"""

from typing import Any

import numpy as np
from scipy.special import chdtrc, fdtrc

from app.regression.diagnostics.chunk import RowChunk
from app.regression.diagnostics.withheld import (
    NO_FREEDOM,
    NO_VARIANCE,
    NOTHING_VARIES,
    UNCERTAIN_RANK,
    WITHOUT_ERROR,
    Withheld,
)
from app.regression.sufficient_statistics import Array

# Largest share of a cross-product matrix's eigenvalues that counts as zero, and the smallest that does not. Between
# them, the rank is not certain.
ZERO, NONZERO = 1e-12, 1e-7
# Smallest variance of the squared residuals, relative to the square of their mean, that is not rounding.
LEAST_VARIANCE = 1e-16


class BreuschPagan:
    """Adds up the products of the auxiliary regressions, for all targets."""

    def __init__(self, targets: int, rank: int, *, orthonormal: bool) -> None:
        """Prepare for whitened columns of this rank.

        `orthonormal` means that over all observations, each counted once, they are orthonormal and have mean zero.
        """
        self._orthonormal = orthonormal
        self._rows = 0.0
        self._sums, self._squares = np.zeros(targets), np.zeros(targets)
        self._products = np.zeros((rank, targets))
        self._gram, self._totals = np.zeros((rank, rank)), np.zeros(rank)

    def add(self, rows: RowChunk) -> None:
        # The mean of the squares is 1 over all rows, so that nothing large cancels.
        values, counts = rows.scaled**2 - 1, rows.counts
        counted = values if counts is None else values * counts[:, np.newaxis]
        self._rows += len(values) if counts is None else float(counts.sum())
        self._sums += counted.sum(axis=0)
        self._squares += np.einsum("ij,ij->j", counted, values)
        self._products += rows.whitened.T @ counted
        if not self._orthonormal:
            columns = rows.whitened if counts is None else rows.whitened * counts[:, np.newaxis]
            self._gram += columns.T @ rows.whitened
            self._totals += columns.sum(axis=0)

    def result(self, target: int) -> dict[str, Any] | Withheld:
        """Return the test of a target, or why it is withheld."""
        total = self._squares[target] - self._sums[target] ** 2 / self._rows
        explained, columns = self._explained(target)
        left = self._rows - 1 - columns
        with np.errstate(divide="ignore", invalid="ignore"):
            share = min(explained / total, 1.0)
            ratio = float(share / columns * left / (1 - share)) if columns and share < 1 else np.inf
        checks = {
            NO_VARIANCE: total <= LEAST_VARIANCE * self._rows,
            NOTHING_VARIES: not columns,
            NO_FREEDOM: left <= 0,
            UNCERTAIN_RANK: bool(np.isnan(explained)),
            WITHOUT_ERROR: np.isinf(ratio),
        }
        if reason := next((reason for reason, applies in checks.items() if applies), None):
            return Withheld(reason)
        statistic = float(self._rows * share)
        return {
            "lm": statistic,
            "df": columns,
            "p_value": float(chdtrc(columns, statistic)),
            "f": ratio,
            "f_p_value": float(fdtrc(columns, left, ratio)),
        }

    def _explained(self, target: int) -> tuple[float, int]:
        """Return the explained sum of squares and the number of independent columns; NaN if it is not certain."""
        products: Array = self._products[:, target]
        if self._orthonormal:
            return float(products @ products), len(products)
        gram = self._gram - np.outer(self._totals, self._totals) / self._rows
        products = products - self._totals * (self._sums[target] / self._rows)
        sizes = np.sqrt(np.maximum(self._gram.diagonal(), 0.0))
        sizes = np.where(sizes > 0, sizes, 1.0)
        values, vectors = np.linalg.eigh(gram / np.outer(sizes, sizes))
        largest = values.max(initial=0.0)
        kept = values > NONZERO * largest
        if (~kept & (values > ZERO * max(largest, 1.0))).any():
            return np.nan, int(kept.sum())
        parts = vectors[:, kept].T @ (products / sizes)
        return float((parts**2 / values[kept]).sum()), int(kept.sum())
