"""Cross-validation from the statistics of the folds: no second pass over the rows, and no row is stored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import accumulate
from typing import TypeAlias

import numpy as np

from app.regression.errors import InvalidData
from app.regression.least_squares import fit
from app.regression.solvers.exact import Exact
from app.regression.sufficient_statistics import Array, SufficientStatistics

FoldStatistics: TypeAlias = Mapping[int, SufficientStatistics]  # by the fold's number

# Candidates for l2, divided by the number of observations.
PATH = (0.0, *np.logspace(-6, 2, 33).tolist())


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """How well models predict rows that they were not fitted to, each row once."""

    folds: int
    residual_norms: Array  # (k,), square root of the sum of squared residuals
    total_norms: Array  # (k,), the same of deviations from the mean of all rows, or from 0 without an intercept
    weight: float  # total weight of the rows
    effective_rows: float  # number of observations

    @property
    def mse(self) -> float:
        """Mean squared error over rows and targets."""
        return float((self.rmse**2).mean())

    @property
    def rmse(self) -> Array:
        """Root mean square error of each target, (k,)."""
        return np.asarray(self.residual_norms / np.sqrt(self.weight))

    @property
    def r2(self) -> Array:
        """R squared of each target, (k,); NaN for a target that does not vary."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.total_norms > 0, 1 - (self.residual_norms / self.total_norms) ** 2, np.nan)

    @property
    def score(self) -> float:
        """The error that models are compared by: see `relative_error`. Lower is better."""
        return relative_error(self.residual_norms, self.total_norms)

    def is_as_good_as(self, residual_norms: Array, *, coefficients: float, share: float) -> bool:
        """Return True if the model of all rows is to be preferred to another model with these residual norms.

        The other model was not fitted to the rows. Suppose that both are equally good, that the n rows have an error
        variance v and are the `share` w of the model's rows, and that the model has q coefficients. The score then
        exceeds the other's by a random amount with the distribution of v (2 w (q - c) + q w^2 / (k - w)), where c is
        chi-squared with q degrees of freedom. The second term is there because each of the k folds is predicted from
        fewer rows than the model has. The score may exceed the other's by the median of this distribution, so that
        half of the equally good models are preferred.
        """
        w, q = share, max(coefficients, 1.0)
        above_median = q - q * (1 - 2 / (9 * q)) ** 3  # Wilson and Hilferty, 1931
        # The errors of several targets are not taken to be the same: the median of their sum is nearer to its mean.
        allowed = 2 * w * above_median / len(self.residual_norms) + q * w**2 / (self.folds - w)
        return self.score <= relative_error(residual_norms, self.total_norms) * (1 + allowed / self.effective_rows)


def relative_error(residual_norms: Array, total_norms: Array) -> float:
    """Return the sum over targets of squared residuals, each divided by the target's squared deviations."""
    return float(((residual_norms / np.where(total_norms > 0, total_norms, 1.0)) ** 2).sum())


class Folds:
    """The statistics of the folds that have rows, by their numbers.

    `base` is the statistics of rows that are in no fold: every model is fitted to them too, and none is judged on
    them. `on_step` is called before each fit and each merge, and may raise to end the validation.

    Raises InvalidData if there is nothing to validate on.
    """

    def __init__(
        self,
        folds: Mapping[int, SufficientStatistics],
        on_step: Callable[[], None] = lambda: None,
        *,
        base: SufficientStatistics | None = None,
    ) -> None:
        self.statistics = dict(folds)
        self._folds = list(folds.values())
        self._base = base
        self._on_step = on_step
        if len(self._folds) > 1 or base is not None:
            return
        rows = sum(fold.rows for fold in self._folds)
        if rows > 1:
            raise InvalidData(
                f"Cross-validation needs rows in at least 2 folds, and all {rows} rows are in one. Give more folds, "
                "another fold_seed, or a column with more groups."
            )
        raise InvalidData(f"Cross-validation needs at least 2 rows, found {rows}. Send more, or train without it.")

    @cached_property
    def all_rows(self) -> SufficientStatistics:
        """The statistics of the rows of all folds."""
        return reduce(self._merged, self._folds)

    def _merged(self, a: SufficientStatistics, b: SufficientStatistics) -> SufficientStatistics:
        self._on_step()
        return a.merge(b)

    @cached_property
    def _complements(self) -> list[SufficientStatistics]:
        """For each fold, the statistics of the other folds and the base: those before it merged with those after it."""
        first = [] if self._base is None else [self._base]
        before: list[SufficientStatistics] = list(accumulate([*first, *self._folds[:-1]], self._merged))
        after: list[SufficientStatistics] = list(accumulate(self._folds[:0:-1], self._merged))[::-1]
        if not first:  # nothing is before the first fold
            middle = [self._merged(a, b) for a, b in zip(before[:-1], after[1:], strict=True)]
            return [after[0], *middle, before[-1]]
        return [*(self._merged(a, b) for a, b in zip(before[:-1], after, strict=True)), before[-1]]

    def validate(self, solver: Exact) -> CrossValidation:
        """Predict each fold from a fit to the other folds."""
        residual = np.zeros(self.all_rows.targets)
        for fold, complement in zip(self._folds, self._complements, strict=True):
            self._on_step()
            fitted = fit(complement, solver)
            centre = complement.shift[: complement.features]
            residual = np.hypot(residual, fold.residual_norms(fitted.coef, fitted.centre_prediction, centre))
        totals = self.all_rows.total_norms(centred=solver.fit_intercept)
        return CrossValidation(
            len(self._folds), residual, totals, self.all_rows.total_weight, self.all_rows.effective_rows
        )

    def choose_l2(self, solver: Exact) -> Exact:
        """Return the solver with the penalty of PATH that has the smallest cross-validated error."""
        candidates = [replace(solver, l2=l2 * self.all_rows.effective_rows) for l2 in PATH]
        return min(candidates, key=lambda candidate: self.validate(candidate).score)


def merged_folds(stored: FoldStatistics, new: FoldStatistics, share: float) -> dict[int, SufficientStatistics]:
    """Return the stored folds, of which decay left this share, together with the new ones."""
    merged = {fold: statistics.discounted_by(share) for fold, statistics in stored.items()}
    for fold, statistics in new.items():
        merged[fold] = merged[fold].merge(statistics) if fold in merged else statistics
    return dict(sorted(merged.items()))
