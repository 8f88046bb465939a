"""Reasons for the values of a model card that are null."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.registry.origin import WITHOUT_STATISTICS
from app.registry.version_file import Version
from app.regression.linear_model import RANGES_UNKNOWN
from app.regression.sufficient_statistics import Array

MAX_DECOMPOSED_COLUMNS = 500  # Columns of a design that a request may decompose, which takes about 0.1 s.

TOO_WIDE = (
    f"The columns of this model would have to be decomposed, and a request does this for at most "
    f"{MAX_DECOMPOSED_COLUMNS} columns."
)
NOT_FINITE = (
    "This value cannot be given as a 64-bit float: a residual or a standard error is zero, or the value is too large "
    "or too small."
)
NOT_IDENTIFIABLE = (
    "The rows do not determine this coefficient: its column depends linearly on others (`linear_dependencies`)."
)
NO_INTERCEPT = "The rows do not determine the intercept: a weighted sum of columns is constant (`linear_dependencies`)."
NO_SLOPES = "The rows determine no coefficient but the intercept."
NO_LEVEL = "The rows do not determine this mean: no row of the level is left, or it depends linearly on other columns."
NO_VARIATION = "The target does not vary."
NO_FREEDOM = "The rows leave no degrees of freedom."
BEYOND_SQUARES = "The squares of the residuals leave the range of 64-bit numbers; `rmse` does not."
NOT_ASKED = "Add include=covariance to the request."
NOT_ASKED_FOR_FOLDS = "The job did not ask for cross-validation."
NO_FOLDS_IMPORTED = "The version was imported, and imports are not cross-validated."
NOT_SOLVED = "Gradient descent has no hat matrix."
NOT_FITTED_HERE = "The version was imported, and how its coefficients were fitted is not known."
NOT_RECORDED = "This number was not recorded when the version was trained."
NOT_DIAGNOSED = "The version file has no record of diagnostics. An earlier release may have written it."
LOST = "The forgotten rows held all the variation in some direction of the columns, so the ratio is infinite."
WITHOUT_ROWS = "The version was imported, without its rows."
OF_THE_JOB = ("dropped_rows", "gaps", "mode")  # fields of a card about the rows of a job
NOTHING_TAKEN_OUT = "No rows were taken out of this version."
UNBOUNDED = "So much was taken out that there is no bound."


class NullReasons:
    """Collects the reasons for the nulls of one card.

    `by_path` maps the path of each null to its reason, see ModelView. It has at most one entry for each field and
    coefficient or target, not one for each pair of both.
    """

    def __init__(self, version: Version) -> None:
        self._card, self._model = version.card, version.model
        self.by_path: dict[str, str] = {}

    def withhold(self, fields: Iterable[str], reason: str) -> dict[str, None]:
        """Add the reason for whole fields, and return their nulls."""
        self.by_path |= dict.fromkeys(fields, reason)
        return dict.fromkeys(fields)

    def explain_card(self) -> None:
        """Add the reasons for nulls that are stored in the card."""
        card = self._card
        imported = card.imported
        without = None if imported is None or card.has_rows else f"The version was {imported.reason}."
        statistics = self._model.known_statistics
        lost = NOT_RECORDED if card.untracked or statistics is None or statistics.removed is None else LOST
        unknown = dict.fromkeys(("rows", "rank", "condition_number", "weight_kind"), WITHOUT_STATISTICS)
        self.by_path |= {} if self._model.has_statistics else unknown
        if imported is not None:
            self.by_path |= dict.fromkeys(OF_THE_JOB, WITHOUT_ROWS)
        reasons = {
            "precision_loss": without or lost,
            "shares": without or NOT_RECORDED,
            "diagnostics": card.no_diagnostics or NOT_DIAGNOSED,
            "validation": NOT_ASKED_FOR_FOLDS if imported is None else NO_FOLDS_IMPORTED,
            "job": "No job trained this version.",
            "parent": "There was no version before this one.",
        }
        self.by_path |= {name: reason for name, reason in reasons.items() if getattr(card, name) in (None, np.inf)}
        self.by_path |= {
            f"diagnostics.{path}": reason for path, reason in (card.diagnostics or {}).get("unavailable", {}).items()
        }
        self.by_path |= {
            f"ranges.{name}": without or RANGES_UNKNOWN
            for name in compress(self._model.columns, self._model.unknown_ranges)
        }
        if card.precision_bounds is None:
            self.by_path["precision_bounds"] = without or (NOT_RECORDED if card.untracked else NOTHING_TAKEN_OUT)
        self.by_path |= {
            f"precision_bounds.{target}.{name}": UNBOUNDED
            for target, values in (card.precision_bounds or {}).items()
            for name, value in values.items()
            if value is None
        }
        self._explain_measures("metrics", card.metrics, self.imprecise)
        if "cross_validation" in card.metrics:
            self._explain_measures("metrics.cross_validation", card.metrics["cross_validation"], None)

    def explain_targets(self, field: str, values: Array, reason: str, *, suffix: str = "") -> None:
        """Add the reason for each target whose value is not finite, (k,)."""
        missing = ~np.isfinite(values)
        names = self._all if missing.all() else compress(self._card.targets, missing)
        self.by_path |= {f"{field}.{name}{suffix}": reason for name in names}

    def explain_coefficients(self, field: str, missing: NDArray[np.bool_]) -> None:
        """Add the reasons for the missing values of a field, (k, m), by target and coefficient."""
        everywhere = np.asarray(missing.all(axis=0))
        for index in np.flatnonzero(everywhere).tolist():
            self.by_path[f"{field}.{self._all[0]}.{self.coefficients[index]}"] = self.why_unknown(index)
        for index in np.flatnonzero(missing[:, ~everywhere].any(axis=1)).tolist():
            self.by_path[f"{field}.{self._card.targets[index]}"] = NOT_FINITE

    def why_unknown(self, index: int) -> str:
        """Return why there is no standard error of the coefficient at this index."""
        errors = self._model.unscaled_errors
        assert errors is not None
        skipped = not self._model.has_intercept
        if not np.isnan(errors[skipped:][index]):
            return NOT_FINITE
        return NO_INTERCEPT if index == 0 and not skipped else NOT_IDENTIFIABLE

    @property
    def imprecise(self) -> str | None:
        """Why values derived from sums of squares are withheld, if rows that were taken out left too few digits."""
        return self._card.inference_unavailable if np.isnan(self._model.residual_norms).any() else None

    @cached_property
    def coefficients(self) -> list[str]:
        """Names of the coefficients, the intercept first if there is one."""
        return ["intercept"] * self._model.has_intercept + list(self._model.columns)

    @property
    def _all(self) -> Sequence[str]:
        """Return the step of a path for all targets: the only target, or a wildcard."""
        return self._card.targets if len(self._card.targets) == 1 else ("*",)

    def _explain_measures(self, path: str, metrics: dict[str, Any], withheld: str | None) -> None:
        """Add the reasons for the nulls of metrics by target, and of those over all targets."""
        for measure in ("r2", "adjusted_r2", "rmse"):
            reasons = {
                target: withheld or _why_unmeasured(measure, metrics[target])
                for target in self._card.targets
                if metrics[target].get(measure, 0.0) is None
            }
            if len(reasons) == len(self._card.targets) and len(set(reasons.values())) == 1:
                reasons = dict.fromkeys(self._all, next(iter(reasons.values())))
            self.by_path |= {f"{path}.{name}.{measure}": reason for name, reason in reasons.items()}
        for measure in ("mse", "optimum_mse"):
            if metrics.get(measure, 0.0) is None:
                self.by_path[f"{path}.{measure}"] = withheld or BEYOND_SQUARES


def _why_unmeasured(measure: str, metrics: dict[str, float | None]) -> str:
    if measure == "rmse":
        return NOT_FINITE
    return NO_FREEDOM if measure == "adjusted_r2" and metrics["r2"] is not None else NO_VARIATION
