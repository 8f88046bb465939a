"""The fields of a model card that are computed when they are asked for, and the reason for each that is null."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import FieldError, InvalidInput
from app.registry.version_file import Version
from app.regression.dependencies import linear_dependencies
from app.regression.hypothesis_tests import Inference, covariances, infer, variance_inflation
from app.regression.likelihood import likelihood, why_no_likelihood
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import Array

MAX_COVARIANCE_COEFFICIENTS = 500
MAX_COVARIANCES = 2_500_000  # numbers in all matrices together: about 50 MB of JSON
MAX_DEPENDENCIES = 100

INFERENCE = ("standard_errors", "t_values", "p_values", "confidence_intervals", "f_tests", "residual_deviation")
LIKELIHOOD = ("log_likelihood", "aic", "bic")

NOT_FINITE = (
    "This value cannot be given as a 64-bit float: a residual or a standard error is zero, or the value is too large "
    "or too small."
)
NOT_IDENTIFIABLE = (
    "The rows do not determine this coefficient: its column depends linearly on others (`linear_dependencies`)."
)
NO_INTERCEPT = "The rows do not determine the intercept: a weighted sum of columns is constant (`linear_dependencies`)."
NO_SLOPES = "The rows determine no coefficient but the intercept."
NO_VARIATION = "The target does not vary."
NO_FREEDOM = "The rows leave no degrees of freedom."
BEYOND_SQUARES = "The squares of the residuals leave the range of 64-bit numbers; `rmse` does not."
NOT_ASKED = "Add include=covariance to the request."
NOT_SOLVED = "Gradient descent has no hat matrix."
NOT_RECORDED = "This number was not recorded when the version was trained."
LOST = "The forgotten rows held all the variation in some direction of the columns, so the ratio is infinite."
NOTHING_TAKEN_OUT = "No rows were taken out of this version."
UNBOUNDED = "So much was taken out that there is no bound."
NOT_VALIDATED = "The job did not ask for cross-validation."
NO_JOB = "No job trained this version."
NO_PARENT = "There was no version before this one."


class CardStatistics:
    """Computes the fields of one version's card.

    `unavailable` maps the path of each null to its reason, see ModelView. It has at most one entry for each field and
    coefficient or target, not one for each pair of both.
    """

    def __init__(self, version: Version, level: float) -> None:
        self._card, self._model = version.card, version.model
        self._level = level
        self.unavailable: dict[str, str] = {}

    def fields(self, *, covariance: bool) -> dict[str, Any]:
        """Return the fields by name. Raises InvalidInput if the covariances that are asked for are too many."""
        if covariance:
            self._check_size()
        inference = infer(self._model, level=self._level) if self._card.inference_unavailable is None else None
        found = {
            **(
                self._withheld(INFERENCE, self._card.inference_unavailable)
                if inference is None
                else self._inference(inference)
            ),
            **self._likelihood(),
            **self._degrees_of_freedom(),
            "total_weight": float(f"{self._model.statistics.total_weight:.14g}"),  # the square of a root
            "weight_kind": self._model.statistics.weight_kind,
            "variance_inflation_factors": self._variance_inflation_factors(),
            "linear_dependencies": self._linear_dependencies(),
            "covariance": self._covariance(inference) if covariance else None,
        }
        if not covariance:
            self.unavailable["covariance"] = NOT_ASKED
        lost = NOT_RECORDED if self._card.untracked or self._model.statistics.removed is None else LOST
        recorded = {
            "precision_loss": lost,
            "shares": NOT_RECORDED,
            "validation": NOT_VALIDATED,
            "job": NO_JOB,
            "parent": NO_PARENT,
        }
        unknown = [name for name in recorded if getattr(self._card, name) in (None, np.inf)]
        self.unavailable |= {name: recorded[name] for name in unknown}
        self._explain_metrics()
        return found

    def precision_bounds(self) -> dict[str, dict[str, float | None]] | None:
        """Return the stored bounds."""
        bounds = self._card.precision_bounds
        if bounds is None:
            self.unavailable["precision_bounds"] = NOT_RECORDED if self._card.untracked else NOTHING_TAKEN_OUT
            return None
        self.unavailable |= {
            f"precision_bounds.{target}.{name}": UNBOUNDED
            for target, values in bounds.items()
            for name, value in values.items()
            if value is None
        }
        return bounds

    def _inference(self, inference: Inference) -> dict[str, Any]:
        targets, skipped = self._card.targets, not self._model.has_intercept
        by_coefficient = {
            "standard_errors": inference.standard_errors,
            "t_values": inference.t_values,
            "p_values": inference.p_values,
            "confidence_intervals": np.stack([inference.lower, inference.upper], axis=-1),
        }
        found: dict[str, Any] = {}
        for field, values in by_coefficient.items():
            known = values[:, skipped:]
            missing = np.asarray(~np.isfinite(known).reshape(*known.shape[:2], -1).all(axis=-1))
            if missing.all():
                self.unavailable[field], found[field] = self._why_unknown(-1), None
                continue
            self._explain_coefficients(field, missing)
            rows = known.tolist()
            for target, column in np.argwhere(missing):
                rows[target][column] = None
            found[field] = {
                target: dict(zip(self._coefficients, row, strict=True))
                for target, row in zip(targets, rows, strict=True)
            }
        reason = NOT_FINITE if self._model.rank > self._model.has_intercept else NO_SLOPES
        for name, of_targets in (("f", inference.f_values), ("p_value", inference.f_p_values)):
            self._explain_targets("f_tests", of_targets, reason, suffix=f".{name}")
        f_tests = zip(inference.f_values.tolist(), inference.f_p_values.tolist(), strict=True)
        found["f_tests"] = {
            target: {"f": f, "p_value": p_value} for target, (f, p_value) in zip(targets, f_tests, strict=True)
        }
        found["residual_deviation"] = self._by_target("residual_deviation", inference.residual_deviation, NOT_FINITE)
        return found

    def _likelihood(self) -> dict[str, Any]:
        reason = self._card.inference_unavailable or why_no_likelihood(self._model.statistics)
        if reason is not None:
            return self._withheld(LIKELIHOOD, reason)
        found = likelihood(self._model)
        return {field: self._by_target(field, getattr(found, field), NOT_FINITE) for field in LIKELIHOOD}

    def _degrees_of_freedom(self) -> dict[str, Any]:
        model, solver = self._model, self._card.solver
        residual, effective = model.degrees_of_freedom, None
        if residual < 0:
            self.unavailable["residual_degrees_of_freedom"] = (
                f"Decay left {model.statistics.effective_rows:g} rows, which are fewer than {model.rank} coefficients."
            )
        if isinstance(solver, Exact):
            effective = model.design.effective_coefficients(solver.l2)
        else:
            self.unavailable["effective_degrees_of_freedom"] = NOT_SOLVED
        return {
            "residual_degrees_of_freedom": residual if residual >= 0 else None,
            "model_degrees_of_freedom": model.rank - model.has_intercept,
            "effective_degrees_of_freedom": effective,
        }

    def _variance_inflation_factors(self) -> dict[str, float] | None:
        field = "variance_inflation_factors"
        if self._imprecise is not None:
            self.unavailable[field] = self._imprecise
            return None
        factors = variance_inflation(self._model)
        missing = ~np.isfinite(factors)
        if missing.all():
            self.unavailable[field] = NOT_IDENTIFIABLE
            return None
        names = compress(self._model.columns, missing)
        self.unavailable |= {f"{field}.{name}": NOT_IDENTIFIABLE for name in names}
        return dict(zip(self._model.columns, factors.tolist(), strict=True))

    def _linear_dependencies(self) -> list[list[str]] | None:
        field, design = "linear_dependencies", self._model.design
        if self._imprecise is not None:
            self.unavailable[field] = self._imprecise
            return None
        count = len(self._model.columns) + design.intercept - design.rank
        if count > MAX_DEPENDENCIES:
            self.unavailable[field] = f"There are {count} dependencies; they are listed up to {MAX_DEPENDENCIES}."
            return None
        return [
            ["intercept"] * found.intercept + [self._model.columns[index] for index in found.columns]
            for found in linear_dependencies(self._model.statistics, design)
        ]

    def _covariance(self, inference: Inference | None) -> dict[str, Any] | None:
        field, model = "covariance", self._model
        if inference is None:
            assert self._card.inference_unavailable is not None
            self.unavailable[field] = self._card.inference_unavailable
            return None
        skipped = not model.has_intercept
        found = covariances(model, inference)[:, skipped:, skipped:]
        missing = ~np.isfinite(found.diagonal(axis1=1, axis2=2))
        self._explain_coefficients(f"{field}.matrices", missing)
        matrices = dict(zip(self._card.targets, found.tolist(), strict=True))
        return {"coefficients": self._coefficients, "matrices": matrices}

    def _check_size(self) -> None:
        size, targets = len(self._coefficients), len(self._card.targets)
        if size > MAX_COVARIANCE_COEFFICIENTS:
            message = (
                f"This model has {size} coefficients. Covariances are given for at most {MAX_COVARIANCE_COEFFICIENTS}."
            )
        elif size**2 * targets > MAX_COVARIANCES:
            message = (
                f"This model has {targets} targets with {size} coefficients each. Covariances are given for at most "
                f"{MAX_COVARIANCES:,} pairs of coefficients of all targets."
            )
        else:
            return
        raise InvalidInput(message, [FieldError(message, parameter="include")])

    @cached_property
    def _coefficients(self) -> list[str]:
        return ["intercept"] * self._model.has_intercept + list(self._model.columns)

    @property
    def _all(self) -> Sequence[str]:
        """The step of a path that stands for every target."""
        return self._card.targets if len(self._card.targets) == 1 else ("*",)

    @property
    def _imprecise(self) -> str | None:
        """Why nothing is given that follows from sums of squares, if rows that were taken out left too few digits."""
        return self._card.inference_unavailable if np.isnan(self._model.residual_norms).any() else None

    def _withheld(self, fields: Iterable[str], reason: str | None) -> dict[str, None]:
        assert reason is not None
        self.unavailable |= dict.fromkeys(fields, reason)
        return dict.fromkeys(fields)

    def _by_target(self, field: str, values: Array, reason: str) -> dict[str, float]:
        self._explain_targets(field, values, reason)
        return dict(zip(self._card.targets, values.tolist(), strict=True))

    def _explain_targets(self, field: str, values: Array, reason: str, *, suffix: str = "") -> None:
        missing = ~np.isfinite(values)
        names = self._all if missing.all() else compress(self._card.targets, missing)
        self.unavailable |= {f"{field}.{name}{suffix}": reason for name in names}

    def _explain_coefficients(self, field: str, missing: NDArray[np.bool_]) -> None:
        """Give the reasons for the nulls of a field, (k, m), by target and coefficient."""
        everywhere = np.asarray(missing.all(axis=0))
        for index in np.flatnonzero(everywhere).tolist():
            self.unavailable[f"{field}.{self._all[0]}.{self._coefficients[index]}"] = self._why_unknown(index)
        for index in np.flatnonzero(missing[:, ~everywhere].any(axis=1)).tolist():
            self.unavailable[f"{field}.{self._card.targets[index]}"] = NOT_FINITE

    def _why_unknown(self, index: int) -> str:
        errors = self._model.unscaled_errors
        assert errors is not None
        skipped = not self._model.has_intercept
        if not np.isnan(errors[skipped:][index]):
            return NOT_FINITE
        return NO_INTERCEPT if index == 0 and not skipped else NOT_IDENTIFIABLE

    def _explain_metrics(self) -> None:
        metrics, reason = self._card.metrics, self._imprecise
        self._explain_measures("metrics", metrics, reason)
        if "cross_validation" in metrics:
            self._explain_measures("metrics.cross_validation", metrics["cross_validation"], None)

    def _explain_measures(self, path: str, metrics: dict[str, Any], withheld: str | None) -> None:
        """Give the reasons for the nulls of metrics by target, and of those over all targets."""
        for measure in ("r2", "adjusted_r2", "rmse"):
            reasons = {
                target: withheld or _why_unmeasured(measure, metrics[target])
                for target in self._card.targets
                if metrics[target].get(measure, 0.0) is None
            }
            if len(reasons) == len(self._card.targets) and len(set(reasons.values())) == 1:
                reasons = dict.fromkeys(self._all, next(iter(reasons.values())))
            self.unavailable |= {f"{path}.{name}.{measure}": reason for name, reason in reasons.items()}
        for measure in ("mse", "optimum_mse"):
            if metrics.get(measure, 0.0) is None:
                self.unavailable[f"{path}.{measure}"] = withheld or BEYOND_SQUARES


def _why_unmeasured(measure: str, of_target: dict[str, float | None]) -> str:
    if measure == "rmse":
        return NOT_FINITE
    return NO_FREEDOM if measure == "adjusted_r2" and of_target["r2"] is not None else NO_VARIATION
