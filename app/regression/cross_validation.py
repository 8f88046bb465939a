"""Cross-validation from the statistics of the folds: no second pass over the rows, and no row kept."""

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

# Candidates for l2, per observation.
PATH = (0.0, *np.logspace(-6, 2, 33).tolist())


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """How well models predict the rows that were kept from them, each row once."""

    folds: int
    residual_norms: Array  # (k,), square root of the sum of squared residuals
    # (k,), square root of the sum of squared deviations from the mean of all rows; from zero without an intercept
    total_norms: Array
    weight: float  # of all rows
    effective_rows: float  # of observations

    @property
    def mse(self) -> float:
        """Mean over rows and targets."""
        return float((self.rmse**2).mean())

    @property
    def rmse(self) -> Array:
        return np.asarray(self.residual_norms / np.sqrt(self.weight))

    @property
    def r2(self) -> Array:
        """NaN for a target that does not vary."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.total_norms > 0, 1 - (self.residual_norms / self.total_norms) ** 2, np.nan)

    @property
    def score(self) -> float:
        """What models are compared by: the residual sums in units of each target's variation, lower is better."""
        return relative_error(self.residual_norms, self.total_norms)

    def is_as_good_as(self, residual_norms: Array, *, coefficients: float, share: float) -> bool:
        """Return whether the model of all rows is to be preferred to another model with these residual norms.

        The other model was not fitted to the rows. With equally good models, n rows of error variance v that are the
        `share` w of the rows of the model, and q coefficients, the score exceeds the other's by a random amount with
        the distribution of v (2 w (q - c) + q w^2 / (k - w)), where c is chi-squared with q degrees of freedom. The
        second term is there because each of the k folds is predicted from fewer rows than the model has. The score may
        exceed the other's by the median of this, so that half of the models that are equally good are preferred.
        """
        w, q = share, max(coefficients, 1.0)
        above_median = q - q * (1 - 2 / (9 * q)) ** 3  # Wilson and Hilferty, 1931
        # The errors of several targets are not taken to be the same: the median of their sum is nearer to its mean.
        allowed = 2 * w * above_median / len(self.residual_norms) + q * w**2 / (self.folds - w)
        return self.score <= relative_error(residual_norms, self.total_norms) * (1 + allowed / self.effective_rows)


def relative_error(residual_norms: Array, total_norms: Array) -> float:
    """Sum over targets of the squared residuals' share of the squared deviations."""
    return float(((residual_norms / np.where(total_norms > 0, total_norms, 1.0)) ** 2).sum())


class Folds:
    """The statistics of the folds that have rows, by their numbers.

    `base` is the statistics of rows that are in no fold: every model is fitted to them too, and none is judged on them.
    `on_step` is called before each fit and each merge, which take long with many columns; it may end them by raising.
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
        if len(self._folds) < 2 and base is None:  # noqa: PLR2004 - one to train on, one to be kept
            if self.rows < 2:  # noqa: PLR2004 - likewise
                raise InvalidData(
                    f"Cross-validation needs at least 2 rows, found {self.rows}. Send more, or train without it."
                )
            raise InvalidData(
                f"Cross-validation needs rows in at least 2 folds, and all {self.rows} rows are in one. Give more "
                "folds, another fold_seed, or a column with more groups."
            )

    @property
    def rows(self) -> int:
        return sum(fold.rows for fold in self._folds)

    @cached_property
    def whole(self) -> SufficientStatistics:
        """The statistics of the rows of all folds."""
        return reduce(self._merged, self._folds)

    def _merged(self, a: SufficientStatistics, b: SufficientStatistics) -> SufficientStatistics:
        self._on_step()
        return a.merge(b)

    @cached_property
    def _others(self) -> list[SufficientStatistics]:
        """For each fold, the statistics of all others and the base: those before it merged with those behind it."""
        first = [] if self._base is None else [self._base]
        before: list[SufficientStatistics] = list(accumulate([*first, *self._folds[:-1]], self._merged))
        behind: list[SufficientStatistics] = list(accumulate(self._folds[:0:-1], self._merged))[::-1]
        if not first:  # nothing is before the first fold
            middle = [self._merged(a, b) for a, b in zip(before[:-1], behind[1:], strict=True)]
            return [behind[0], *middle, before[-1]]
        return [*(self._merged(a, b) for a, b in zip(before[:-1], behind, strict=True)), before[-1]]

    def validate(self, solver: Exact) -> CrossValidation:
        """Fit to all folds but one and predict that one, for each."""
        residual = np.zeros(self.whole.targets)
        for kept, others in zip(self._folds, self._others, strict=True):
            self._on_step()
            fitted = fit(others, solver)
            centre = others.shift[: others.features]
            residual = np.hypot(residual, kept.residual_norms(fitted.coef, fitted.centre_prediction, centre))
        totals = self.whole.total_norms(centred=solver.fit_intercept)
        return CrossValidation(len(self._folds), residual, totals, self.whole.total_weight, self.whole.effective_rows)

    def choose_l2(self, solver: Exact) -> Exact:
        """The solver with the penalty of the path that predicts kept rows best."""
        candidates = [replace(solver, l2=l2 * self.whole.effective_rows) for l2 in PATH]
        return min(candidates, key=lambda candidate: self.validate(candidate).score)


def merged_folds(stored: FoldStatistics, new: FoldStatistics, share: float) -> dict[int, SufficientStatistics]:
    """Return the stored folds, of which decay left this share, together with the new ones."""
    merged = {}
    for fold in sorted(stored.keys() | new.keys()):
        parts = [stored[fold].discounted_by(share)] if fold in stored else []
        parts += [new[fold]] if fold in new else []
        merged[fold] = parts[0] if len(parts) == 1 else parts[0].merge(parts[1])
    return merged
