"""The fields of a model card that are computed from a version's statistics for each request."""

from typing import Any

import numpy as np

from app.errors import InvalidInput
from app.registry.origin import WITHOUT_STATISTICS
from app.registry.version_file import Version
from app.regression.dependencies import linear_dependencies
from app.regression.hypothesis_tests import Inference, covariances, infer, variance_inflation
from app.regression.metrics import likelihood, why_no_likelihood
from app.regression.solvers import Exact, Imported
from app.regression.sufficient_statistics import Array
from app.web.card_reasons import (
    MAX_DECOMPOSED_COLUMNS,
    NO_SLOPES,
    NOT_ASKED,
    NOT_FINITE,
    NOT_FITTED_HERE,
    NOT_IDENTIFIABLE,
    NOT_SOLVED,
    TOO_WIDE,
    NullReasons,
)

MAX_COVARIANCE_COEFFICIENTS = 500
MAX_COVARIANCES = 2_500_000  # Numbers in all matrices of a card, which are about 50 MB of JSON.
MAX_DEPENDENCIES = 100

INFERENCE = ("standard_errors", "t_values", "p_values", "confidence_intervals", "f_tests", "residual_deviation")
LIKELIHOOD = ("log_likelihood", "aic", "bic")


class CardStatistics:
    """Computes the fields of one version's card, and adds the reason for each null to `reasons`."""

    def __init__(self, version: Version, level: float, reasons: NullReasons) -> None:
        self._card, self._model = version.card, version.model
        self._level, self._reasons = level, reasons
        self._is_wide = len(self._model.columns) > MAX_DECOMPOSED_COLUMNS

    def fields(self, *, covariance: bool) -> dict[str, Any]:
        """Return the fields by name. Raises InvalidInput if there are too many covariances."""
        if covariance:
            self._check_size()
        fields = {
            **self._inference(covariance=covariance),
            **self._degrees_of_freedom(),
            **self._total_weight(),
            "weight_kind": self._card.weight_kind,
            **self._collinearity(),
        }
        return fields if covariance else fields | self._reasons.withhold(["covariance"], NOT_ASKED)

    def _inference(self, *, covariance: bool) -> dict[str, Any]:
        if (reason := self._card.inference_unavailable) is not None:
            return self._reasons.withhold((*INFERENCE, *LIKELIHOOD, "covariance"), reason)
        inference = infer(self._model, level=self._level)
        by_coefficient = {
            "standard_errors": inference.standard_errors,
            "t_values": inference.t_values,
            "p_values": inference.p_values,
            "confidence_intervals": np.stack([inference.lower, inference.upper], axis=-1),
        }
        return {
            **{field: self._by_coefficient(field, values) for field, values in by_coefficient.items()},
            "f_tests": self._f_tests(inference),
            "residual_deviation": self._by_target("residual_deviation", inference.residual_deviation),
            **self._likelihood(),
            "covariance": self._covariance(inference) if covariance else None,
        }

    def _by_coefficient(self, field: str, values: Array) -> dict[str, dict[str, Any]] | None:
        """Return values (k, 1 + p) or intervals (k, 1 + p, 2) by target and coefficient."""
        known = values[:, not self._model.has_intercept :]
        missing = np.asarray(~np.isfinite(known).reshape(*known.shape[:2], -1).all(axis=-1))
        if missing.all():
            self._reasons.by_path[field] = self._reasons.why_unknown(-1)
            return None
        self._reasons.explain_coefficients(field, missing)
        rows = known.tolist()
        for target, column in np.argwhere(missing):
            rows[target][column] = None
        return {
            target: dict(zip(self._reasons.coefficients, row, strict=True))
            for target, row in zip(self._card.targets, rows, strict=True)
        }

    def _f_tests(self, inference: Inference) -> dict[str, dict[str, float]]:
        reason = NOT_FINITE if self._model.rank > self._model.has_intercept else NO_SLOPES
        for name, values in (("f", inference.f_values), ("p_value", inference.f_p_values)):
            self._reasons.explain_targets("f_tests", values, reason, suffix=f".{name}")
        tests = zip(inference.f_values.tolist(), inference.f_p_values.tolist(), strict=True)
        return {
            target: {"f": f, "p_value": p_value} for target, (f, p_value) in zip(self._card.targets, tests, strict=True)
        }

    def _likelihood(self) -> dict[str, Any]:
        if (reason := why_no_likelihood(self._model.statistics)) is not None:
            return self._reasons.withhold(LIKELIHOOD, reason)
        values = likelihood(self._model)
        return {field: self._by_target(field, getattr(values, field)) for field in LIKELIHOOD}

    def _total_weight(self) -> dict[str, Any]:
        if not self._model.has_statistics:
            return self._reasons.withhold(["total_weight"], WITHOUT_STATISTICS)
        return {"total_weight": float(f"{self._model.statistics.total_weight:.14g}")}  # the square of a rounded root

    def _degrees_of_freedom(self) -> dict[str, Any]:
        if not self._model.has_statistics:
            names = ("residual", "model", "effective")
            return self._reasons.withhold([f"{name}_degrees_of_freedom" for name in names], WITHOUT_STATISTICS)
        model, solver = self._model, self._card.solver
        residual, effective = model.degrees_of_freedom, None
        if residual < 0:
            self._reasons.by_path["residual_degrees_of_freedom"] = (
                f"Decay left {model.statistics.effective_rows:g} rows, which are fewer than {model.rank} coefficients."
            )
        if isinstance(solver, Imported):
            self._reasons.by_path["effective_degrees_of_freedom"] = NOT_FITTED_HERE
        elif isinstance(solver, Exact) and solver.l2 == 0:
            effective = float(model.rank)
        elif isinstance(solver, Exact) and self._is_wide:
            self._reasons.by_path["effective_degrees_of_freedom"] = TOO_WIDE
        elif isinstance(solver, Exact):
            effective = model.design.effective_coefficients(solver.l2)
        else:
            self._reasons.by_path["effective_degrees_of_freedom"] = NOT_SOLVED
        return {
            "residual_degrees_of_freedom": residual if residual >= 0 else None,
            "model_degrees_of_freedom": model.rank - model.has_intercept,
            "effective_degrees_of_freedom": effective,
        }

    def _collinearity(self) -> dict[str, Any]:
        fields = ("variance_inflation_factors", "linear_dependencies")
        if (reason := self._reasons.imprecise) is not None:
            return self._reasons.withhold(fields, reason)
        return dict(zip(fields, (self._variance_inflation_factors(), self._linear_dependencies()), strict=True))

    def _variance_inflation_factors(self) -> dict[str, float] | None:
        if self._is_wide and self._model.unscaled_errors is None:
            self._reasons.by_path["variance_inflation_factors"] = TOO_WIDE
            return None
        factors = variance_inflation(self._model)
        missing = ~np.isfinite(factors)
        if missing.all():
            self._reasons.by_path["variance_inflation_factors"] = NOT_IDENTIFIABLE
            return None
        for index in np.flatnonzero(missing).tolist():
            self._reasons.by_path[f"variance_inflation_factors.{self._model.columns[index]}"] = NOT_IDENTIFIABLE
        return dict(zip(self._model.columns, factors.tolist(), strict=True))

    def _linear_dependencies(self) -> list[list[str]] | None:
        model, columns = self._model, self._model.columns
        count = len(columns) + model.has_intercept - model.rank
        if count > MAX_DEPENDENCIES:
            reason = f"There are {count} dependencies; they are listed up to {MAX_DEPENDENCIES}."
            self._reasons.by_path["linear_dependencies"] = reason
            return None
        if count > 0 and self._is_wide:
            self._reasons.by_path["linear_dependencies"] = TOO_WIDE
            return None
        if count == 0:
            return []
        return [
            ["intercept"] * dependency.intercept + [columns[index] for index in dependency.columns]
            for dependency in linear_dependencies(model.statistics, model.design)
        ]

    def _covariance(self, inference: Inference) -> dict[str, Any]:
        skipped = not self._model.has_intercept
        values = covariances(self._model, inference)[:, skipped:, skipped:]
        missing = ~np.isfinite(values.diagonal(axis1=1, axis2=2))
        self._reasons.explain_coefficients("covariance.matrices", missing)
        matrices = dict(zip(self._card.targets, values.tolist(), strict=True))
        return {"coefficients": self._reasons.coefficients, "matrices": matrices}

    def _check_size(self) -> None:
        size, targets = len(self._reasons.coefficients), len(self._card.targets)
        if size > MAX_COVARIANCE_COEFFICIENTS:
            most = f"at most {MAX_COVARIANCE_COEFFICIENTS}"
            message = f"This model has {size} coefficients. Covariances are given for {most}."
            raise InvalidInput.of_parameter("include", message)
        if size**2 * targets > MAX_COVARIANCES:
            raise InvalidInput.of_parameter(
                "include",
                f"This model has {targets} targets with {size} coefficients each. Covariances are given for at most "
                f"{MAX_COVARIANCES:,} pairs of coefficients of all targets.",
            )

    def _by_target(self, field: str, values: Array) -> dict[str, float]:
        self._reasons.explain_targets(field, values, NOT_FINITE)
        return dict(zip(self._card.targets, values.tolist(), strict=True))
