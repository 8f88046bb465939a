"""The version that an update or a forget builds on, and the options it takes from there.

That version is known when the job starts. POST /train makes the same checks against the version that is current at
that moment, so that a client learns of most faults at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from app.errors import InvalidInput
from app.registry.model_card import ModelCard
from app.registry.shares import share_to_forget
from app.registry.version_file import Version
from app.regression import fit
from app.regression.cross_validation import FoldStatistics
from app.regression.solvers import Exact, Solver
from app.regression.sufficient_statistics import WeightKind
from app.training.request import TrainingRequest


@dataclass(frozen=True, eq=False)
class BaseVersion:
    """The version that an update adds rows to, or a forget takes rows out of."""

    version: Version
    mode: Literal["update", "forget"]
    # In an update, the share of their weight that decay leaves the version's rows. In a forget, the share of their
    # weight that the job's rows have in the version.
    share: float

    @classmethod
    def of(cls, version: Version, request: TrainingRequest) -> "BaseVersion":
        """Return the version as the request's base. Raises InvalidInput if the share of its rows is not known."""
        if request.mode == "forget":
            return cls(version, "forget", share_to_forget(version.card, request.trained_in, request.share))
        age = datetime.now(UTC) - datetime.fromisoformat(version.card.created_at)
        return cls(version, "update", request.decay ** max(age / timedelta(days=1), 0.0))

    def rows(self, folds: FoldStatistics) -> fit.Base:
        """Return the version's rows, by their statistics and those of their folds."""
        return fit.Base(self.version.model.statistics, self.mode, self.share, folds)


def weight_kind(request: TrainingRequest, base: ModelCard | None) -> WeightKind:
    """Return the meaning of the rows' weights: the request's, or else the base's, or else precision."""
    return request.weight_kind or (base.weight_kind if base else "precision")


def resolved(request: TrainingRequest, base: ModelCard | None) -> TrainingRequest:
    """Return the request with its kind of weights, and with the solver's options that it takes from the base.

    Raises InvalidInput if the base has weights of another kind.
    """
    kind = weight_kind(request, base)
    if base is None:
        return replace(request, weight_kind=kind)
    if kind != base.weight_kind:
        raise InvalidInput.at(
            "/weight_kind",
            f"The current version has {base.weight_kind} weights, and this request asks for {kind} weights. "
            "Leave `weight_kind` out, or train the model again from all its rows.",
        )
    solver: Solver = request.solver
    if isinstance(solver, Exact):
        inherited: dict[str, Any] = {name: getattr(_exact(base), name) for name in request.inherits}
        solver = replace(solver, **inherited)
    return replace(request, weight_kind=kind, solver=solver)


def check_base(request: TrainingRequest, base: ModelCard) -> None:
    """Check that rows can be added to the base, or taken out of it, as the request asks. Raises InvalidInput."""
    resolved(request, base)
    if request.mode == "forget":
        share_to_forget(base, request.trained_in, request.share)


def differences(request: TrainingRequest, base: ModelCard) -> Iterator[str]:
    """Return a warning for each option of the solver that was given another value than the base has."""
    solver, theirs = request.solver, _exact(base)
    assert isinstance(solver, Exact)
    if solver.l2 != theirs.l2 and not request.choose_l2:
        yield f"The parent was fitted with l2={theirs.l2:g}; this version with l2={solver.l2:g}, as asked."
    if solver.fit_intercept != theirs.fit_intercept:
        parent, this = ("with", "without") if theirs.fit_intercept else ("without", "with")
        yield f"The parent was fitted {parent} an intercept; this version {this} one, as asked."


def _exact(base: ModelCard) -> Exact:
    """Return the base's solver, or the defaults if it was trained by gradient descent, whose options do not apply."""
    return base.solver if isinstance(base.solver, Exact) else Exact()
