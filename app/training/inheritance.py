"""The version that an update or a forget builds on, and the options it takes from there.

The job uses the version that is current when it starts. POST /train makes the same checks against the version that is
current when the request arrives, so that a client learns of most faults at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from app.errors import InvalidInput
from app.registry.model_card import ModelCard
from app.registry.shares import share_to_forget
from app.registry.version_file import Version
from app.regression.solvers import Exact, with_options
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
    # Options that the request does not give have their defaults, which hold if the base has no such options.
    options = {name: getattr(base.solver, name, getattr(request.solver, name)) for name in request.inherits}
    return replace(request, weight_kind=kind, solver=with_options(request.solver, **options))


def check_base(request: TrainingRequest, base: ModelCard) -> None:
    """Check that rows can be added to the base, or taken out of it, as the request asks. Raises InvalidInput."""
    resolved(request, base)
    if request.mode == "forget":
        share_to_forget(base, request.trained_in, request.share)


def differences(request: TrainingRequest, base: ModelCard) -> Iterator[str]:
    """Return a warning for each option of the exact solver that was given another value than the base has."""
    solver, theirs = request.solver, base.solver if isinstance(base.solver, Exact) else Exact()
    if not isinstance(solver, Exact):
        return
    if solver.l2 != theirs.l2 and not request.choose_l2:
        yield f"The parent was fitted with l2={theirs.l2:g}; this version with l2={solver.l2:g}, as requested."
    if solver.fit_intercept != theirs.fit_intercept:
        parent, this = ("with", "without") if theirs.fit_intercept else ("without", "with")
        yield f"The parent was fitted {parent} an intercept; this version {this} one, as requested."
