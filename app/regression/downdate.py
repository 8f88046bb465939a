"""Rows taken out of the statistics again, and the digits that this costs.

A sum from which most was taken away keeps the rounding errors of the large sum. Everything here measures them against
the largest sum that was ever held.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import qr, solve_triangular

from app.errors import InvalidInput
from app.regression.least_squares import PRECISION_UNKNOWN, RANK_TOLERANCE, Fit
from app.regression.sufficient_statistics import (
    Array,
    SufficientStatistics,
    column_norms,
    r_factor,
)

WITHHELD_FROM = 1e-6  # relative error bound of sums of squares and squared standard errors that are withheld
FAILED_FROM = 1e-3  # standard errors that a coefficient may be off by, above which a fit fails
# Deviations of the target per deviation of the feature that a coefficient may always be off by: the standard errors of
# an essentially perfect fit are rounding errors themselves.
NEGLIGIBLE = 1e-9

# Part of a row outside the span of the whole, in columns at unit norm, from which it cannot be in the whole.
_DIRECTION_TOLERANCE = 1e-10
# Relative rounding error of a count that decay has reduced.
_COUNT_TOLERANCE = 1e-9

TOO_FEW = (
    "Without these rows, too few remain to determine the coefficients, or not accurately enough. "
    "Train the model again from the rows that remain."
)
PRECISION_LOST = "Too many digits were lost when rows were forgotten. Train the model again from the rows that remain."
RESIDUALS_UNKNOWN = (
    "So many rows were forgotten that sums of squares or standard errors of this version may be off by more than one "
    "part in a million. Train the model again from the rows that remain."
)
NOT_AMONG = "These rows are not among those the version was trained on"


def downdate(
    whole: SufficientStatistics, part: SufficientStatistics, share: float = 1.0, *, fit_intercept: bool = True
) -> SufficientStatistics:
    """Return the statistics of the rows that remain when the part's are taken out: merge, undone.

    `share` is what decay has left of the part's weights. With R the factor of the whole and P that of the part, the
    remaining factor is chol(I - T'T) R, T = P R^-1 (Golub and Van Loan, Matrix Computations, 4th ed., 6.5.4). The
    ranges stay, since they cannot be split_wide.

    The rows that remain must determine the coefficients that all rows did, of a model with or without an intercept.

    Raises InvalidInput if the part's rows cannot be in the whole, or if too few would remain. Rows that were never
    added, but fit into the sums, cannot be detected.
    """
    part = part.discounted_by(share) if share < 1 else part
    theirs = part.rescaled_factor(whole.shift, whole.scale)

    def inputs(factor: Array) -> Array:
        """The columns that coefficients belong to: [1, x], or x about zero."""
        if fit_intercept:
            return factor[:, : whole.features + 1]
        return whole.transform(factor, np.zeros_like(whole.shift), whole.scale)[:, 1 : whole.features + 1]

    of_whole = r_factor(inputs(whole.factor))
    _check_rows(whole, part, of_whole)
    error = whole.factor_error + part.factor_error
    held = whole.cumulative_factor
    of_inputs = _Difference.of(of_whole, inputs(theirs), inputs(held), error)
    if (of_inputs.eigenvalues <= of_inputs.bounds).any():
        raise InvalidInput(TOO_FEW)
    difference = _Difference.of(whole.factor, theirs, held, error)
    rows = [theirs, difference.clipped() / math.sqrt(whole.factor_error), difference.unexplained / whole.factor_error]
    if whole.removed is not None:
        rows.append(whole.removed)
    remaining = replace(
        whole,
        rows=whole.rows - part.rows,
        effective_rows=whole.effective_rows - part.effective_rows,
        factor=difference.factor(),
        removed=r_factor(np.vstack(rows)),
        log_weights=whole.log_weights - part.log_weights,
        operations=whole.operations + part.operations + 1,
    )
    if fit_intercept and (remaining.constant & ~whole.constant).any():
        raise InvalidInput(TOO_FEW)
    return remaining


@dataclass(frozen=True, eq=False)
class _Difference:
    """R'R - P'P as B'(I - T'T)B, with B the independent rows of R, from the eigenvalues of I - T'T.

    T solves T B = P by substitution, whose error is small relative to each column. The inverse of R, which squares
    the condition number, is never formed.
    """

    basis: Array  # (r, d)
    eigenvalues: Array  # (r,), the share of its sum of squares that remains in each direction, ascending
    bounds: Array  # (r,), of their errors
    vectors: Array  # (r, r), a direction in each column
    # (m, d), what the part has in directions that the whole has lost, so that it is not subtracted: an error of the
    # factor. Among the rows that were removed, divided by the relative error, they enter every bound.
    unexplained: Array

    @classmethod
    def of(cls, whole: Array, part: Array, held: Array, error: float) -> "_Difference":
        """Return the difference of factors whose errors are relative to the columns of `held`.

        Raises InvalidInput if the part cannot be in the whole.
        """
        norms = column_norms(whole)
        norms = np.where(norms > 0, norms, 1.0)
        _, pivoted, order = qr(whole / norms, mode="economic", pivoting=True)
        rank = _leading_rank(pivoted)
        independent, dependent = order[:rank], order[rank:]
        leading = pivoted[:rank, :rank]
        part, held = part / norms, held / norms

        def lost(directions: Array) -> Array:
            """Bound of the error of v'Gv, which is 2 error |Hv| S(v) as in `precision_bounds`, for each column v."""
            return np.asarray(2 * error * column_norms(held @ directions) * (column_norms(held) @ np.abs(directions)))

        # Directions in which the whole has nothing but rounding errors, and the part must not have more.
        empty = np.zeros((len(norms), len(dependent)))
        empty[dependent] = np.eye(len(dependent))
        empty[independent] = -solve_triangular(leading, pivoted[:rank, rank:])
        beyond = part @ empty
        sizes = column_norms(beyond)
        if (sizes > _DIRECTION_TOLERANCE * rank + np.sqrt(lost(empty))).any():
            raise InvalidInput(f"{NOT_AMONG}: they vary in a direction in which the version's rows do not.")
        shares = solve_triangular(leading, part[:, independent].T, trans="T").T
        eigenvalues, vectors = np.linalg.eigh(np.eye(rank) - shares.T @ shares)
        directions = np.zeros((len(norms), rank))
        directions[independent] = solve_triangular(leading, vectors)
        bounds = lost(directions)
        if (eigenvalues < -bounds).any():
            raise InvalidInput(f"{NOT_AMONG}: a sum of squares would fall below zero.")
        basis = np.empty((rank, len(norms)))
        basis[:, order] = pivoted[:rank]
        unexplained = np.zeros_like(part)
        unexplained[:, dependent] = np.where(sizes > RANK_TOLERANCE * len(norms), beyond, 0.0)
        return cls(basis * norms, eigenvalues, bounds, vectors, unexplained * norms)

    def factor(self) -> Array:
        """Return the triangular factor of the difference, negative eigenvalues taken as zero."""
        return r_factor(self._rows(self.eigenvalues))

    def clipped(self) -> Array:
        """Return rows whose sums of squares are what the negative eigenvalues were changed by: an error of the factor.

        Among the rows that were removed, divided by the square root of the relative error, they enter every bound.
        """
        return self._rows(-self.eigenvalues)

    def _rows(self, eigenvalues: Array) -> Array:
        return np.asarray(np.sqrt(np.maximum(eigenvalues, 0.0))[:, np.newaxis] * self.vectors.T @ self.basis)


def _leading_rank(pivoted: Array) -> int:
    """Return the number of independent columns of a pivoted factor whose columns have unit norm."""
    diagonal = np.abs(pivoted.diagonal())
    return int((diagonal > RANK_TOLERANCE * len(diagonal) * diagonal[0]).sum())


def _check_rows(whole: SufficientStatistics, part: SufficientStatistics, inputs: Array) -> None:
    """Check the kinds and numbers of rows, and their ranges. `inputs` is the factor of the coefficients' columns."""
    if whole.weight_kind != part.weight_kind:
        raise InvalidInput(
            f"The rows have {part.weight_kind} weights, and the version has {whole.weight_kind} weights."
        )
    if part.rows > whole.rows:
        raise InvalidInput(f"{NOT_AMONG}: they are {part.rows} rows, and the version has {whole.rows}.")
    if whole.discounted and part.effective_rows > whole.effective_rows + _COUNT_TOLERANCE * max(
        whole.effective_rows, 1.0
    ):
        raise InvalidInput(
            f"{NOT_AMONG}: with their weights they count as {part.effective_rows:g} rows, and the version's as "
            f"{whole.effective_rows:g}."
        )
    if part.rows == whole.rows or part.effective_rows >= whole.effective_rows:
        raise InvalidInput("These rows are all of them: at least as many rows as coefficients must remain.")
    if (part.minimum < whole.minimum).any() or (part.maximum > whole.maximum).any():
        raise InvalidInput(f"{NOT_AMONG}: a value lies outside the range of its feature.")
    norms = column_norms(inputs)
    s = np.linalg.svd(inputs / np.where(norms > 0, norms, 1.0), compute_uv=False)
    rank = int((s > RANK_TOLERANCE * len(s) * s[0]).sum())
    if whole.rows - part.rows < rank:
        raise InvalidInput(
            f"Without these rows, too few remain: {whole.rows - part.rows} rows cannot determine {rank} coefficients."
        )


def precision_loss(statistics: SufficientStatistics) -> float:
    """Return the largest ratio of the sum of squares ever held to that held now, over all directions of [1, x, y].

    Infinite if a direction was lost altogether. Adding rows lowers it, and decay does not change it.
    """
    if statistics.removed is None:
        return 1.0
    norms = column_norms(statistics.cumulative_factor)
    norms = np.where(norms > 0, norms, 1.0)
    _, pivoted, order = qr(statistics.cumulative_factor / norms, mode="economic", pivoting=True)
    rank = _leading_rank(pivoted)
    remaining = (statistics.factor / norms)[:, order[:rank]]
    shares = np.linalg.svd(solve_triangular(pivoted[:rank, :rank], remaining.T, trans="T"), compute_uv=False)
    least = float(shares[-1]) ** 2
    return 1 / least if least > 0 else np.inf


@dataclass(frozen=True, eq=False)
class PrecisionBounds:
    """How far the numbers of a fit may be off because rows were taken out of its statistics."""

    rss: Array  # (k,), relative error of the sums of squared residuals
    tss: Array  # (k,), relative error of the sums of squared deviations
    coefficients: Array  # (k, 1 + p), error in standard errors; NaN for one that is not identifiable
    standard_errors: Array  # (1 + p,), relative error of the squares of `Fit.unscaled_errors`; NaN as above
    unusable: bool  # whether a coefficient may be off by more than FAILED_FROM, and not negligibly

    @property
    def withheld(self) -> bool:
        """Return whether residual sums or standard errors may be off by more than WITHHELD_FROM."""
        sums = np.concatenate([self.rss, self.tss, self.standard_errors])
        return bool((sums[~np.isnan(sums)] > WITHHELD_FROM).any())


def precision_bounds(statistics: SufficientStatistics, fitted: Fit, *, l2: float = 0.0) -> PrecisionBounds | None:
    """Return the bounds for a fit of these statistics; None if no row was ever taken out of them.

    A factor R with the Gram matrix G = R'R has a relative error of `error` in each column of the factor H of all
    that was ever held. A quadratic form a'Gb is then off by at most `error` (|Ha| S(b) + |Hb| S(a)), with
    S(a) = sum of |a_j| |H_j|. The residual sum is v'Gv with v = (-intercept, -weights, 1), and to first order a
    coefficient is off by u'dG v, with u its row of (X'X)^-1, and its standard error is the residual deviation times
    |Ru| (Stewart, Matrix Algorithms, 1998, 4.3, for perturbations of least squares). With a ridge penalty, u is the
    row of (X'X + penalty)^-1.
    """
    if statistics.removed is None:
        return None
    p, k = statistics.features, statistics.targets
    held = statistics.cumulative_factor
    sizes = column_norms(held)
    if not fitted.design.intercept:  # the columns about zero are rounded too
        sizes[1:] += np.abs(statistics.shift / statistics.scale) * sizes[0]

    def error(a: Array, b: Array) -> Array:
        """Bound of the error of a'Gb for each pair of a column of a, (d, m), and a column of b, (d, n): (m, n)."""
        sa, sb = sizes @ np.abs(a), sizes @ np.abs(b)
        # What cancels in Ha is known to the error of its terms.
        ha, hb = (
            column_norms(held @ a) + statistics.factor_error * sa,
            column_norms(held @ b) + statistics.factor_error * sb,
        )
        return statistics.factor_error * (np.outer(ha, sb) + np.outer(sa, hb))

    # Directions in the coordinates of the factor, [1, (x - shift) / scale, (y - shift) / scale].
    scale, units = statistics.scale[:p], statistics.scale[p:]
    at_shift = (fitted.centre_prediction - statistics.shift[p:]) / units
    slopes = fitted.coef * scale / units[:, np.newaxis]
    if fitted.design.intercept:  # not rounded to the spacing of the targets
        at_shift = statistics.offset[p:] / units - slopes @ (statistics.offset[:p] / scale)
    residual = np.vstack([-at_shift, -slopes.T, np.eye(k)])
    # Deviations of each column, about zero if the model has no intercept.
    origin = (-statistics.offset if fitted.design.intercept else statistics.shift) / statistics.scale
    deviations = np.vstack([origin, np.eye(p + k)])
    rss = fitted.residual_norms / units
    tss = statistics.total_norms(centred=fitted.design.intercept) / units
    freedom = max(statistics.effective_rows - fitted.design.rank, 1.0)
    inverse = _inverse_directions(statistics, fitted, l2=l2)
    off = error(residual, inverse)  # in scaled coordinates, (k, 1 + p)
    of_sums = error(residual, residual).diagonal()
    of_squares = error(deviations, deviations).diagonal()
    if l2 > 0:
        # The penalties are known as well as the deviations are, and the residual sum is not at its minimum.
        share = l2 / statistics.effective_rows
        off = off + share * np.abs(slopes) * of_squares[:p] @ np.abs(inverse[1 : p + 1])
        of_sums = of_sums + 2 * share * (off[:, 1:] * np.abs(slopes) * (fitted.design.norms / scale) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_residuals = of_sums / rss**2
        of_totals = of_squares[p:] / tss**2
        # A coefficient is compared with the smallest standard error that the residual sum can stand for.
        deviation = rss * _certain_root(of_residuals) / np.sqrt(freedom)
        lengths = column_norms(statistics.factor @ inverse)
        relative = off / np.outer(deviation, lengths)
        of_errors = error(inverse, inverse).diagonal() / lengths**2
        # Deviations of the target per deviation of each column; the intercept in deviations of the target.
        root_weight = math.sqrt(statistics.total_weight)
        spread = np.concatenate([[1.0], fitted.design.norms / scale / root_weight])
        target = tss * _certain_root(of_totals) / root_weight
        usable = np.isnan(relative) | (relative <= FAILED_FROM) | (off <= NEGLIGIBLE * np.outer(target, 1 / spread))
    unknown = np.isnan(fitted.unscaled_errors)
    unknown[0] = not fitted.design.intercept
    return PrecisionBounds(
        rss=np.where(rss > 0, of_residuals, np.inf),
        tss=np.where(tss > 0, of_totals, 0.0),
        coefficients=np.where(unknown, np.nan, relative),
        standard_errors=np.where(unknown, np.nan, of_errors) if l2 == 0 else np.full(p + 1, np.nan),
        unusable=not bool(usable[:, ~unknown].all()),
    )


def check_precision(statistics: SufficientStatistics, bounds: PrecisionBounds | None) -> str | None:
    """Return why the residual sums of a fit with these bounds are withheld, in a sentence; None if they are known.

    Raises InvalidInput if a coefficient may be off by more than FAILED_FROM of its standard error.
    """
    if statistics.untracked:
        return PRECISION_UNKNOWN
    if bounds is None:
        return None
    if bounds.unusable:
        raise InvalidInput(PRECISION_LOST)
    return RESIDUALS_UNKNOWN if bounds.withheld else None


def _certain_root(relative_error: Array) -> Array:
    """Return the square root of the share of a sum that is certain, given its relative error."""
    return np.sqrt(np.maximum(1 - np.nan_to_num(relative_error, nan=1.0, posinf=1.0), 0.0))


def _inverse_directions(statistics: SufficientStatistics, fitted: Fit, *, l2: float) -> Array:
    """Return the columns of (X'X + penalty)^-1 for [1, x] in the factor's coordinates, (1 + p + k, 1 + p).

    The first is for the intercept, and zero if the model has none.
    """
    p, d = statistics.features, len(statistics.factor)
    to_zero = -statistics.shift[:p] / statistics.scale[:p]
    block = statistics.factor
    if not fitted.design.intercept:
        block = statistics.factor_about_zero
        block[:, 0] = 0.0
    penalty = np.sqrt(l2 / statistics.effective_rows) * fitted.design.norms / statistics.scale[:p]
    block = np.vstack([block[:, : p + 1], np.diag(np.concatenate([[0.0], penalty]))])
    norms = column_norms(block)
    norms = np.where(norms > 0, norms, 1.0)
    _, s, vt = np.linalg.svd(block / norms)
    kept = s > RANK_TOLERANCE * len(s) * s[0]
    inverse = (vt[kept].T / s[kept] ** 2) @ vt[kept] / norms[:, np.newaxis] / norms
    directions = np.zeros((d, p + 1))
    directions[: p + 1] = inverse
    if fitted.design.intercept:
        directions[: p + 1, 0] += inverse[:, 1:] @ to_zero
    else:
        directions[0] = -to_zero @ inverse[1:]
    return directions
