"""Rows taken out of the statistics again, and the digits that this costs.

A sum from which most was taken away keeps the rounding errors of the large sum. Everything here measures them against
the largest sum that was ever held.
"""

from dataclasses import dataclass, replace

import numpy as np

from app.errors import InvalidInput
from app.regression.least_squares import RANK_TOLERANCE, Fit
from app.regression.sufficient_statistics import (
    FACTOR_ERROR,
    Array,
    SufficientStatistics,
    column_norms,
    triangle,
)

WITHHELD_FROM = 1e-6  # relative error bound of residual sums, above which they are withheld
FAILED_FROM = 1e-3  # standard errors that a coefficient may be off by, above which a fit fails
# Deviations of the target per deviation of the feature that a coefficient may always be off by: the standard errors of
# an essentially perfect fit are rounding errors themselves.
NEGLIGIBLE = 1e-9

NOT_AMONG = "These rows are not among those the version was trained on"


def downdate(whole: SufficientStatistics, part: SufficientStatistics, share: float = 1.0) -> SufficientStatistics:
    """Return the statistics of the rows that remain when the part's are taken out: merge, undone.

    `share` is what decay has left of the part's weights. With R = U S V' and P the part's factor in the coordinates of
    U, the remaining factor is chol(I - P'P) S V' (Golub and Van Loan, Matrix Computations, 4th ed., 6.5.4). The ranges
    stay, since they cannot be narrowed.

    Raises InvalidInput if the part's rows cannot be in the whole, or if too few would remain. Rows that were never
    added, but fit into the sums, cannot be detected.
    """
    _check_rows(whole, part)
    part = part.decayed(share) if share < 1 else part
    norms = column_norms(whole.factor)
    norms = np.where(norms > 0, norms, 1.0)
    _, s, vt = np.linalg.svd(whole.factor / norms)
    kept = s > RANK_TOLERANCE * len(s) * s[0]
    error = FACTOR_ERROR * s[0]
    theirs = part.factor_in(whole.shift, whole.scale) / norms @ vt.T
    if np.abs(theirs[:, ~kept]).max(initial=0.0) > error + np.sqrt(len(s)) * s[~kept].max(initial=0.0):
        raise InvalidInput(f"{NOT_AMONG}: they vary in a direction in which the version's rows do not.")
    # Relative to the sum in each direction, the factor's error grows with the condition number.
    bound = FACTOR_ERROR * s[0] / s[kept][-1]
    inside = theirs[:, kept] / s[kept]
    left = np.eye(int(kept.sum())) - inside.T @ inside
    eigenvalues, vectors = np.linalg.eigh(left)
    if eigenvalues[0] < -bound:
        raise InvalidInput(f"{NOT_AMONG}: a sum of squares would fall below zero.")
    basis = s[kept, np.newaxis] * vt[kept]
    if _least_share(left, basis[:, : whole.features + 1]) <= bound:
        raise InvalidInput("Without these rows, too few remain to determine the coefficients.")
    root = np.sqrt(np.where(eigenvalues > bound, eigenvalues, 0.0))[:, np.newaxis] * vectors.T
    removed = part.factor_in(whole.shift, whole.scale)
    if whole.removed is not None:
        removed = np.vstack([whole.removed, removed])
    return replace(
        whole,
        rows=whole.rows - part.rows,
        count=whole.count - part.count,
        factor=triangle(root @ basis) * norms,
        removed=triangle(removed),
        log_weights=whole.log_weights - part.log_weights,
    )


def _check_rows(whole: SufficientStatistics, part: SufficientStatistics) -> None:
    if whole.weight_kind != part.weight_kind:
        raise InvalidInput(
            f"The rows have {part.weight_kind} weights, and the version has {whole.weight_kind} weights."
        )
    if part.rows > whole.rows:
        raise InvalidInput(f"{NOT_AMONG}: they are {part.rows} rows, and the version has {whole.rows}.")
    if part.rows == whole.rows:
        raise InvalidInput("These rows are all of them: at least as many rows as coefficients must remain.")
    if (part.minimum < whole.minimum).any() or (part.maximum > whole.maximum).any():
        raise InvalidInput(f"{NOT_AMONG}: a value lies outside the range of its feature.")
    inputs = column_norms(whole.factor)[: whole.features + 1]
    s = np.linalg.svd(whole.factor[:, : whole.features + 1] / np.where(inputs > 0, inputs, 1.0), compute_uv=False)
    rank = int((s > RANK_TOLERANCE * len(s) * s[0]).sum())
    if whole.rows - part.rows < rank:
        raise InvalidInput(
            f"Without these rows, too few remain: {whole.rows - part.rows} rows cannot determine {rank} coefficients."
        )


def _least_share(left: Array, columns: Array) -> float:
    """Return the smallest share of its sum of squares that any combination of these columns keeps."""
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    span = u[:, s > RANK_TOLERANCE * len(s) * s[0]]
    return float(np.linalg.eigvalsh(span.T @ left @ span)[0])


def precision_loss(statistics: SufficientStatistics) -> float:
    """Return the largest ratio of the sum of squares ever held to that held now, over all directions of [1, x, y].

    Infinite if a direction was lost altogether. Adding rows lowers it, and decay does not change it.
    """
    if statistics.removed is None:
        return 1.0
    held = triangle(np.vstack([statistics.factor, statistics.removed]))
    norms = column_norms(held)
    norms = np.where(norms > 0, norms, 1.0)
    _, s, vt = np.linalg.svd(held / norms)
    kept = s > RANK_TOLERANCE * len(s) * s[0]
    shares = np.linalg.svd((statistics.factor / norms) @ vt[kept].T / s[kept], compute_uv=False)
    least = float(shares[int(kept.sum()) - 1]) ** 2
    return 1 / least if least > 0 else np.inf


@dataclass(frozen=True, eq=False)
class PrecisionBounds:
    """How far the numbers of a fit may be off because rows were taken out of its statistics."""

    residual_sums: Array  # (k,), relative error of the sums of squared residuals
    total_sums: Array  # (k,), relative error of the sums of squared deviations
    coefficients: Array  # (k, 1 + p), error in standard errors; NaN for one that is not identifiable
    unusable: bool  # whether a coefficient may be off by more than FAILED_FROM, and not negligibly

    @property
    def withheld(self) -> bool:
        """Return whether residual sums, and all that follows from them, may be off by more than WITHHELD_FROM."""
        return not bool((np.maximum(self.residual_sums, self.total_sums) <= WITHHELD_FROM).all())


def precision_bounds(statistics: SufficientStatistics, fitted: Fit, *, l2: float = 0.0) -> PrecisionBounds | None:
    """Return the bounds for a fit of these statistics; None if no row was ever taken out of them.

    A factor R with the Gram matrix G = R'R has a relative error of FACTOR_ERROR in each column of the factor H of all
    that was ever held. A quadratic form a'Gb is then off by at most FACTOR_ERROR (|Ha| S(b) + |Hb| S(a)), with
    S(a) = sum of |a_j| |H_j|. The residual sum is v'Gv with v = (-intercept, -weights, 1), and to first order a
    coefficient is off by u'dG v, with u its row of (X'X)^-1, and its standard error is the residual deviation times
    |Ru| (Stewart, Matrix Algorithms, 1998, 4.3, for perturbations of least squares).
    """
    if statistics.removed is None:
        return None
    p, k = statistics.features, statistics.targets
    held = triangle(np.vstack([statistics.factor, statistics.removed]))
    sizes = column_norms(held)

    def error(a: Array, b: Array) -> Array:
        """Bound of the error of a'Gb for each pair of a column of a, (d, m), and a column of b, (d, n): (m, n)."""
        ha, hb = column_norms(held @ a), column_norms(held @ b)
        return FACTOR_ERROR * (np.outer(ha, sizes @ np.abs(b)) + np.outer(sizes @ np.abs(a), hb))

    # Directions in the coordinates of the factor, [1, (x - shift) / scale, (y - shift) / scale].
    scale, units = statistics.scale[:p], statistics.scale[p:]
    at_shift = (fitted.centre_prediction - statistics.shift[p:]) / units
    slopes = fitted.weights * scale / units[:, np.newaxis]
    residual = np.vstack([-at_shift, -slopes.T, np.eye(k)])
    means = np.vstack([-statistics.offset[p:] / units, np.zeros((p, k)), np.eye(k)])
    residual_sums, total_sums = fitted.residual_norms / units, statistics.total_norms() / units
    with np.errstate(divide="ignore", invalid="ignore"):
        of_residuals = error(residual, residual).diagonal() / residual_sums**2
        of_totals = error(means, means).diagonal() / total_sums**2
        inverse = _inverse_directions(statistics, fitted, l2=l2)
        deviation = residual_sums / np.sqrt(max(statistics.count - fitted.design.rank, 1.0))
        off = error(residual, inverse)  # in scaled coordinates, (k, 1 + p)
        errors = np.outer(deviation, column_norms(statistics.factor @ inverse))
        relative = off / errors
        # The largest residuals that could be rounding: deviations of the target per deviation of each column.
        spread = np.concatenate([[1.0], column_norms(statistics.factor[1:, 1 : p + 1]) / statistics.factor[0, 0]])
        negligible = NEGLIGIBLE * np.outer(total_sums / statistics.factor[0, 0], 1 / spread)
    usable = np.isnan(relative) | (relative <= FAILED_FROM) | (off <= negligible)
    unknown = np.isnan(fitted.unscaled_errors)
    unknown[0] = not fitted.design.intercept
    return PrecisionBounds(
        residual_sums=np.where(residual_sums > 0, of_residuals, np.inf),
        total_sums=np.where(total_sums > 0, of_totals, 0.0),
        coefficients=np.where(unknown, np.nan, relative),
        unusable=not bool(usable[:, ~unknown].all()),
    )


def _inverse_directions(statistics: SufficientStatistics, fitted: Fit, *, l2: float) -> Array:
    """Return the columns of (X'X + penalty)^-1 for [1, x] in the factor's coordinates, (1 + p + k, 1 + p).

    The first is for the intercept, and zero if the model has none.
    """
    p, d = statistics.features, len(statistics.factor)
    to_zero = -statistics.shift[:p] / statistics.scale[:p]
    block = statistics.factor
    if not fitted.design.intercept:
        block = statistics.factor_in(np.zeros_like(statistics.shift), statistics.scale)
        block[:, 0] = 0.0
    penalty = np.sqrt(l2 / statistics.count) * fitted.design.norms / statistics.scale[:p]
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
