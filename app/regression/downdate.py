"""Take rows out of sufficient statistics again: the inverse of a merge."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from app.regression.column_changes import rebased, selected, spread
from app.regression.design import RANK_TOLERANCE
from app.regression.errors import InvalidData, NotIncluded
from app.regression.precision import GramError, pivoted_factor
from app.regression.sufficient_statistics import Array, SufficientStatistics, column_norms, r_factor

# Largest part of a row outside the span of all rows that counts as rounding, in columns at unit norm, per dimension.
_DIRECTION_TOLERANCE = 1e-10
_COUNT_TOLERANCE = 1e-9  # Relative rounding error of a row count that decay has reduced.

TOO_FEW = (
    "Without these rows, too few remain to determine the coefficients, or not accurately enough. "
    "Train the model again from the rows that remain."
)
NOT_AMONG = "These rows are not among those the version was trained on"


def downdate(
    whole: SufficientStatistics,
    part: SufficientStatistics,
    share: float = 1.0,
    *,
    fit_intercept: bool = True,
    blocks: Sequence[slice] = (),
) -> SufficientStatistics:
    """Return the statistics of the rows of `whole` that remain without those of `part`.

    `share` is the share of the part's weights that decay has left. Minimum and maximum of the features are kept,
    because the next extreme value is unknown. The remaining rows have to determine all coefficients that the whole
    determined, with or without an intercept, except those of levels without remaining rows. `blocks` are the places of
    the indicators of each category. The column of a level without rows is exactly 0. If a reference level has no rows,
    the sum of the block's indicators is 1.

    Raises InvalidData if too few rows would remain, and NotIncluded if the part's rows cannot be in the whole. Rows
    that were never added but agree with the sums are not detected.
    """
    part = part.discounted_by(share) if share < 1 else part
    _check_counts(whole, part)
    counts = _remaining_indicator_rows(whole, part)
    if counts is None:
        return _downdated(whole, part, fit_intercept=fit_intercept)
    # Leave out columns that depend on the others because a level has no rows.
    lost = counts == 0
    rebuilt = _without_reference(counts, blocks, whole.rows - part.rows) if fit_intercept else []
    for block, place in rebuilt:
        lost[block][place] = True
    kept = np.flatnonzero(~lost)
    if not len(kept) and not fit_intercept:
        raise InvalidData(TOO_FEW)
    if lost.any():
        remaining = _downdated(selected(whole, kept), selected(part, kept), fit_intercept=fit_intercept)
        remaining = spread(remaining, kept, whole.features)
    else:
        remaining = _downdated(whole, part, fit_intercept=fit_intercept)
    remaining = replace(
        remaining,
        minimum=np.where(counts == remaining.rows, 1.0, remaining.minimum),
        indicator_rows=np.where(lost, 0, counts),
    )
    for block, place in rebuilt:
        remaining = rebased(remaining, block, place)
    return remaining


def _remaining_indicator_rows(whole: SufficientStatistics, part: SufficientStatistics) -> NDArray[np.int64] | None:
    """Return `indicator_rows` of the remaining rows. Raises NotIncluded if the part has more rows of a level."""
    if whole.indicator_rows is None or part.indicator_rows is None:
        return None
    counts = whole.indicator_rows - part.indicator_rows
    if (counts < 0).any():
        raise NotIncluded(f"{NOT_AMONG}: they have more rows of a level than the version has.")
    return np.where(whole.indicator_rows < 0, -1, counts)


def _without_reference(counts: NDArray[np.int64], blocks: Sequence[slice], rows: int) -> list[tuple[slice, int]]:
    """Return the blocks whose reference level has no rows, each with the place of its most frequent level."""
    return [(block, int(counts[block].argmax())) for block in blocks if counts[block].sum() == rows]


def _downdated(whole: SufficientStatistics, part: SufficientStatistics, *, fit_intercept: bool) -> SufficientStatistics:
    """Return the statistics of the rows of `whole` without those of `part`, with the same rank.

    With R the factor of the whole and P that of the part, the remaining factor is chol(I - T'T) R with T = P R^-1
    (Golub and Van Loan, Matrix Computations, 4th ed., 6.5.4).
    """
    subtracted = part.rescaled_factor(whole.shift, whole.scale)
    inputs = r_factor(_input_columns(whole, whole.factor, fit_intercept=fit_intercept))
    _check_values(whole, part, inputs)
    error = whole.factor_error + part.factor_error
    input_difference = _Difference.of(
        inputs,
        _input_columns(whole, subtracted, fit_intercept=fit_intercept),
        _input_columns(whole, whole.cumulative_factor, fit_intercept=fit_intercept),
        error,
    )
    if (input_difference.eigenvalues <= input_difference.bounds).any():
        raise InvalidData(TOO_FEW)
    difference = _Difference.of(whole.factor, subtracted, whole.cumulative_factor, error)
    relative = whole.factor_error
    # Errors of the factor enter every bound: they are divided by the relative error and added to the removed rows.
    removed = [subtracted, difference.clipped() / math.sqrt(relative), difference.unexplained / relative]
    if whole.removed is not None:
        removed.append(whole.removed)
    remaining = replace(
        whole,
        rows=whole.rows - part.rows,
        effective_rows=whole.effective_rows - part.effective_rows,
        factor=difference.factor(),
        removed=r_factor(np.vstack(removed)),
        log_weights=whole.log_weights - part.log_weights,
        operations=whole.operations + part.operations + 1,
    )
    if fit_intercept and (remaining.constant & ~whole.constant).any():
        raise InvalidData(TOO_FEW)
    return remaining


def _input_columns(whole: SufficientStatistics, factor: Array, *, fit_intercept: bool) -> Array:
    """Return the columns of a factor that have coefficients: [1, x], or x about zero."""
    if fit_intercept:
        return factor[:, : whole.features + 1]
    return whole.transform(factor, np.zeros_like(whole.shift), whole.scale)[:, 1 : whole.features + 1]


@dataclass(frozen=True, eq=False)
class _Difference:
    """R'R - P'P as B'(I - T'T)B, from the eigenvalues of I - T'T, with B the independent rows of R.

    T solves T B = P by substitution, whose error is small relative to each column. The inverse of R, which squares
    the condition number, is never formed.
    """

    basis: Array  # B, (r, d)
    eigenvalues: Array  # (r,), share of the sum of squares that remains in each direction, ascending
    bounds: Array  # (r,), bound of the error of each eigenvalue
    vectors: Array  # (r, r), one direction in each column
    unexplained: Array  # (m, d), part of P in directions that R has lost, which is not subtracted

    @classmethod
    def of(cls, whole: Array, part: Array, cumulative: Array, error: float) -> "_Difference":
        """Return the difference of factors whose columns have this error relative to those of `cumulative`.

        Raises NotIncluded if the part cannot be in the whole.
        """
        norms = column_norms(whole)
        norms = np.where(norms > 0, norms, 1.0)
        pivoted, order, rank = pivoted_factor(whole / norms)
        independent, dependent = order[:rank], order[rank:]
        leading = pivoted[:rank, :rank]
        part, cumulative = part / norms, cumulative / norms
        gram_error = GramError(cumulative, column_norms(cumulative), error)
        # Directions in which the whole has only rounding errors.
        empty = np.zeros((len(norms), len(dependent)))
        empty[dependent] = np.eye(len(dependent))
        empty[independent] = -solve_triangular(leading, pivoted[:rank, rank:])
        outside = part @ empty
        sizes = column_norms(outside)
        if (sizes > _DIRECTION_TOLERANCE * rank + np.sqrt(gram_error.squares(empty))).any():
            raise NotIncluded(f"{NOT_AMONG}: they vary in a direction in which the version's rows do not.")
        shares = solve_triangular(leading, part[:, independent].T, trans="T").T
        eigenvalues, vectors = np.linalg.eigh(np.eye(rank) - shares.T @ shares)
        directions = np.zeros((len(norms), rank))
        directions[independent] = solve_triangular(leading, vectors)
        bounds = gram_error.squares(directions)
        if (eigenvalues < -bounds).any():
            raise NotIncluded(f"{NOT_AMONG}: a sum of squares would fall below zero.")
        basis = np.empty((rank, len(norms)))
        basis[:, order] = pivoted[:rank]
        unexplained = np.zeros_like(part)
        unexplained[:, dependent] = np.where(sizes > RANK_TOLERANCE * len(norms), outside, 0.0)
        return cls(basis * norms, eigenvalues, bounds, vectors, unexplained * norms)

    def factor(self) -> Array:
        """Return the triangular factor of the difference, with negative eigenvalues replaced by zero."""
        return r_factor(self._rows(self.eigenvalues))

    def clipped(self) -> Array:
        """Return rows whose Gram matrix is the change that replacing negative eigenvalues by zero makes."""
        return self._rows(-self.eigenvalues)

    def _rows(self, eigenvalues: Array) -> Array:
        return np.asarray(np.sqrt(np.maximum(eigenvalues, 0.0))[:, np.newaxis] * self.vectors.T @ self.basis)


def _check_counts(whole: SufficientStatistics, part: SufficientStatistics) -> None:
    """Check the kinds of weights and the numbers of rows. Raises InvalidData or NotIncluded."""
    whole.check_weight_kind(part)
    if part.rows > whole.rows:
        raise NotIncluded(f"{NOT_AMONG}: they are {part.rows} rows, and the version has {whole.rows}.")
    most = whole.effective_rows + _COUNT_TOLERANCE * max(whole.effective_rows, 1.0)
    if whole.discounted and part.effective_rows > most:
        raise NotIncluded(
            f"{NOT_AMONG}: with their weights they count as {part.effective_rows:g} rows, and the version's as "
            f"{whole.effective_rows:g}."
        )
    if part.rows == whole.rows or part.effective_rows >= whole.effective_rows:
        raise InvalidData("These rows are all of them: at least as many rows as coefficients must remain.")


def _check_values(whole: SufficientStatistics, part: SufficientStatistics, inputs: Array) -> None:
    """Check the ranges of the features, and that enough rows remain for the rank of `inputs`.

    Raises InvalidData or NotIncluded.
    """
    if (part.minimum < whole.minimum).any() or (part.maximum > whole.maximum).any():
        raise NotIncluded(f"{NOT_AMONG}: a value lies outside the range of its feature.")
    norms = column_norms(inputs)
    s = np.linalg.svd(inputs / np.where(norms > 0, norms, 1.0), compute_uv=False)
    rank = int((s > RANK_TOLERANCE * len(s) * s[0]).sum())
    remaining = whole.rows - part.rows
    if remaining < rank:
        raise InvalidData(f"Without these rows, too few remain: {remaining} rows cannot determine {rank} coefficients.")
