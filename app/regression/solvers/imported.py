"""The record in place of a solver if a model was fitted elsewhere. No request can ask for it."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Never

from app.regression.errors import InvalidOption
from app.regression.solvers.base import FitObserver, Problem


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Coefficients from elsewhere, which are kept as they are. The options are those that an update takes over."""

    label: ClassVar[str] = "an import"
    inherited: ClassVar[tuple[str, ...]] = ("l2", "fit_intercept")
    mergeable: ClassVar[bool] = False
    needs_rows: ClassVar[bool] = False

    kind: Literal["imported"] = "imported"
    l2: float = 0.0
    fit_intercept: bool = True
    device: Literal["cpu"] = "cpu"

    @property
    def uses_torch(self) -> bool:
        return False

    def solve(self, problem: Problem, observer: FitObserver) -> Never:  # noqa: ARG002 - there is nothing to solve
        raise InvalidOption("kind", "Imported coefficients are kept as they are. Choose a solver to fit rows.")
