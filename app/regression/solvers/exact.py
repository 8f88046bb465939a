"""The least-squares optimum."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from app.regression.solvers.base import STRICT, FitObserver, Keyword, Problem, Solution

RESIDUALS_TOO_SMALL = (
    "The residuals are so small next to the terms they are left over from that their sum of squares is not known to "
    "one part in a million."
)


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The least-squares optimum, at once. A solver without a `kind` is of this kind."""

    label: ClassVar[str] = "the exact solver"
    inherited: ClassVar[tuple[str, ...]] = ("l2", "fit_intercept")
    mergeable: ClassVar[bool] = True
    needs_rows: ClassVar[bool] = False
    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: Literal["exact"] = "exact"
    """May be left out."""
    l2: Annotated[float, Ge(0), Keyword("auto")] = 0.0
    """Ridge penalty on standardised columns; the intercept is free. `auto` tries 34 penalties and keeps the one with
    the smallest cross-validated error. Default: 0; for an update or a forget, the current version's penalty."""
    fit_intercept: bool = True
    """Default: true; for an update or a forget, as in the current version."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where rows are summarised: `cuda` for wide ones."""

    @property
    def uses_torch(self) -> bool:
        return self.device == "cuda"

    def solve(self, problem: Problem, observer: FitObserver) -> Solution:  # noqa: ARG002 - it has no long steps
        """Minimise sum w (y - b - x B)^2 + l2 sum (B_j deviation_j)^2, with deviations those of the columns.

        The normal equations of few or ill-conditioned rows are solved again in higher precision, if the rows can be
        read again. Raises ValuesTooLarge or ValuesTooSmall, and InvalidData if taking rows out cost too many digits.
        """
        # They import this module, and the web process has no use for them.
        from app.regression.extended_precision import refine, should_refine
        from app.regression.least_squares import fit, is_essentially_perfect, why_no_inference
        from app.regression.precision import check_precision, precision_bounds

        statistics = problem.statistics
        optimum = fit(statistics, self)
        bounds = precision_bounds(statistics, optimum, l2=self.l2)
        withheld = check_precision(statistics, bounds)
        best = optimum
        if problem.batches is not None and self.l2 == 0 and should_refine(statistics, optimum):
            best = refine(problem.batches(), statistics, fit_intercept=self.fit_intercept)
        # The size of residuals that are rounding errors is not known, except that it is small.
        perfect = is_essentially_perfect(statistics, optimum)
        residual_norms = np.where(np.isnan(best.residual_norms) & perfect, optimum.residual_norms, best.residual_norms)
        if withheld is None and np.isnan(residual_norms).any():
            withheld = RESIDUALS_TOO_SMALL
        inference_unavailable = withheld or why_no_inference(statistics, optimum, self, residual_norms)
        return Solution(
            best.coef,
            best.intercept,
            best.centre_prediction,
            np.full_like(residual_norms, np.nan) if withheld else residual_norms,
            best.unscaled_errors if inference_unavailable is None else None,
            optimum,
            inference_unavailable,
            refined=best is not optimum,
            bounds=bounds,
        )
