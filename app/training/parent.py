"""The version that a training builds on: the one that is current when it starts.

If another version is current when the new one is published, the model is fitted again. Otherwise, two trainings that
add rows to the same version would lose the rows of one of them.
"""

from dataclasses import dataclass, replace
from typing import Literal

from app.errors import Conflict, InvalidInput, ModelNotFound
from app.registry.model_card import ModelCard
from app.registry.publication import ParentChanged
from app.registry.publisher import ModelPublisher
from app.registry.version_file import Version
from app.regression.cross_validation import FoldStatistics
from app.regression.linear_model import LinearModel
from app.regression.solvers import GradientDescent, Solver, Start
from app.training.columns import has_columns_of, other_columns
from app.training.inheritance import BaseVersion
from app.training.progress import ProgressSink
from app.training.request import TrainingRequest


@dataclass(frozen=True, eq=False)
class Parent:
    """The version that a new version is made from or compared with."""

    expected: int | Literal["any"] | None  # number of the version that must be current at the publication
    base: BaseVersion | None = None  # for an update or a forget
    start: int | None = None  # number of the version that a descent with `start: current` started from

    @classmethod
    def of(cls, request: TrainingRequest, registry: ModelPublisher) -> "Parent":
        """Return the current version. Raises InvalidInput if its columns are not those of the request."""
        # The number is read before the version, so that a change in between is noticed.
        current = registry.current_number(request.model)
        base = None if request.mode == "replace" else _base(request, registry)
        compared = request.promote == "if_better" or (base is not None and request.promote != "never")
        return cls(current if compared else "any", base)

    @property
    def version(self) -> int | None:
        """The number of the parent in the card. None: that of the version that is current at the publication."""
        return self.base.version.card.version if self.base else self.start

    def started(
        self, request: TrainingRequest, registry: ModelPublisher, resumed: int | None
    ) -> tuple[TrainingRequest, "Parent"]:
        """Return the request with `start: current` replaced by the number of the current version.

        A descent that is `resumed` keeps the version that it started from. Raises InvalidInput.
        """
        solver = request.solver
        if not isinstance(solver, GradientDescent) or solver.start != "current":
            return request, self
        current = registry.current_number(request.model)
        number = resumed
        if number is None:
            try:
                version = registry.current(request.model)
            except ModelNotFound:
                raise InvalidInput.at("/solver/start", "The model has no current version to start from.") from None
            if not has_columns_of(version, request):
                raise InvalidInput.at("/solver/start", other_columns(version.card))
            number = version.card.version
        else:
            current = number
        solver = replace(solver, start=Start(version=number))
        expected: int | Literal["any"] | None = "any" if request.promote == "never" else current
        return replace(request, solver=solver), replace(self, expected=expected, start=number)

    def publish(
        self,
        request: TrainingRequest,
        registry: ModelPublisher,
        card: ModelCard,
        model: LinearModel,
        *,
        folds: FoldStatistics | None,
        progress: ProgressSink,
    ) -> Version:
        """Publish the version, and promote it if that is requested and the parent is still current.

        A descent whose start is no longer current is published without promotion, and with a warning.

        Raises ParentChanged if another version is current and the model can be fitted again on top of it.
        """
        promote = wants_promotion(request, card)
        if self.start is None and self.expected not in ("any", registry.current_number(request.model)):
            raise ParentChanged  # as long as the training can be cancelled
        progress.begin_publishing()
        try:
            return registry.publish(card, model, folds, promote=promote, expected=self.expected)
        except ParentChanged:
            if self.start is None:
                raise
        current = registry.current_number(request.model)
        warning = (
            f"Not promoted: the descent started from version {self.start}, and while it ran, "
            f"{'the current version was removed' if current is None else f'version {current} became current'}. "
            "Compare the two, and promote this version if it is better."
        )
        return registry.publish(replace(card, warnings=(warning, *card.warnings)), model, folds)


def with_initial_coefficients(request: TrainingRequest, registry: ModelPublisher) -> Solver:
    """Return the solver with the coefficients of the version that it starts from, if it starts from one.

    Raises InvalidInput.
    """
    solver = request.solver
    if not isinstance(solver, GradientDescent) or not isinstance(solver.start, Start) or solver.start.version is None:
        return solver
    version = registry.version(request.model, solver.start.version)
    if not has_columns_of(version, request):
        raise InvalidInput.at(
            "/solver/start/version",
            f"Version {solver.start.version} has other features, terms or targets than these rows.",
        )
    start = Start(weights=version.model.coef.tolist(), intercept=version.model.intercept.tolist())
    return replace(solver, start=start)


def wants_promotion(request: TrainingRequest, card: ModelCard) -> bool:
    """Return True if the version is to become the current one."""
    return request.promote == "always" or (request.promote == "if_better" and bool(card.beats_current))


def finish_promotion(request: TrainingRequest, card: ModelCard, registry: ModelPublisher) -> None:
    """Promote a version of an earlier release, which published and promoted in two steps.

    Raises Conflict if the version that it was made from or compared with is no longer current.
    """
    if card.promoted is not None or not wants_promotion(request, card):
        return

    def check() -> None:
        current = registry.current_number(card.model)
        compared = card.mode != "replace" or request.promote == "if_better"
        if compared and current not in (card.parent, card.version):
            raise Conflict(
                f"Version {card.version} was published, but not promoted: it was made from version {card.parent}, and "
                f"version {current} is current now. Train again with the same rows."
            )

    registry.promote(card.model, card.version, check)


def _base(request: TrainingRequest, registry: ModelPublisher) -> BaseVersion:
    base = registry.current(request.model)
    if not has_columns_of(base, request):
        raise InvalidInput(other_columns(base.card))
    return BaseVersion.of(base, request)
