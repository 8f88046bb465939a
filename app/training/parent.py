"""The version that a training builds on: the one that is current when it starts.

If another version is current when the new one is published, the model is fitted again. Otherwise, two trainings that
add rows to the same version would lose the rows of one of them. POST /train makes the same checks against the version
that is current when the request arrives, so that a client learns of most faults at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from app.data.names import unquoted
from app.errors import Conflict, InvalidInput, ModelFileInvalid, ModelNotFound
from app.registry.base import ModelPublisher, ParentChanged
from app.registry.model_card import ModelCard, share_to_forget
from app.registry.origin import no_rows
from app.registry.version_file import Version
from app.regression.cross_validation import FoldStatistics
from app.regression.linear_model import LinearModel
from app.regression.solvers import Exact, GradientDescent, Imported, Start, with_options
from app.regression.sufficient_statistics import WeightKind
from app.training.progress import ProgressReporter
from app.training.request import TrainingRequest

MAX_NAMES = 10  # Most names of features, terms or targets in a message.
LOOKS = 3  # Reads of the current version before it counts as damaged.
NO_START = "The model has no current version to start from."


class NamedColumns(Protocol):
    """The columns of a version."""

    @property
    def features(self) -> tuple[str, ...]: ...

    @property
    def targets(self) -> tuple[str, ...]: ...


def check_has_rows(card: ModelCard) -> None:
    """Raise InvalidInput if no rows can be added to a version, because it was imported without exact statistics."""
    if card.imported is not None and not card.has_rows:
        raise InvalidInput.at("/mode", no_rows(card.version, card.imported))


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
        """Return the version as the request's base.

        Raises InvalidInput if its rows, or their share, are not known.
        """
        check_has_rows(version.card)
        if request.mode == "forget":
            return cls(version, "forget", share_to_forget(version.card, request.trained_in, request.share))
        age = datetime.now(UTC) - datetime.fromisoformat(version.card.created_at)
        return cls(version, "update", request.decay ** max(age / timedelta(days=1), 0.0))

    @property
    def decay(self) -> float:
        """The share of their weight that the version's rows keep."""
        return self.share if self.mode == "update" else 1.0


@dataclass(frozen=True, eq=False)
class Parent:
    """The version that a new version is made from or compared with."""

    expected: int | Literal["any"] | None  # number of the version that must be current at the publication
    base: BaseVersion | None = None  # for an update or a forget
    start: int | None = None  # number of the version that a descent with `start: current` started from

    @classmethod
    def of(cls, request: TrainingRequest, registry: ModelPublisher) -> "Parent":
        """Return the current version. Raises InvalidInput if its columns are not those of the request."""
        base = None
        if request.mode == "replace":
            current = registry.current_number(request.model)
        else:
            current, version = intact_current(registry, request.model)
            if not has_columns_of(version, request):
                raise InvalidInput(other_columns(version.card, request))
            base = BaseVersion.of(version, request)
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
        current, number = resumed, resumed
        if number is None:
            try:
                current, version = intact_current(registry, request.model)
            except ModelNotFound:
                raise InvalidInput.at("/solver/start", NO_START) from None
            if not has_columns_of(version, request):
                raise InvalidInput.at("/solver/start", other_columns(version.card, request))
            number = version.card.version
        request = replace(request, solver=replace(solver, start=Start(version=number)))
        return request, replace(self, expected="any" if request.promote == "never" else current, start=number)

    def publish(
        self,
        request: TrainingRequest,
        registry: ModelPublisher,
        card: ModelCard,
        model: LinearModel,
        *,
        folds: FoldStatistics | None,
        progress: ProgressReporter,
    ) -> Version:
        """Publish the version, and promote it if that is requested and the parent is still current.

        A descent whose start is no longer current is published without promotion, and with a warning.

        Raises ParentChanged if another version is current and the model can be fitted again on top of it.
        """
        if self.start is None and self.expected not in ("any", registry.current_number(request.model)):
            raise ParentChanged  # while the training can still be cancelled
        progress.begin_publishing()
        try:
            return registry.publish(card, model, folds, promote=_wants_promotion(request, card), expected=self.expected)
        except ParentChanged:
            if self.start is None:
                raise
        current = registry.current_number(request.model)
        change = "the current version was removed" if current is None else f"version {current} became current"
        warning = (
            f"Not promoted: the descent started from version {self.start}, and while it ran, {change}. Compare the "
            "two, and promote this version if it is better."
        )
        return registry.publish(replace(card, warnings=(warning, *card.warnings)), model, folds)


def intact_current(registry: ModelPublisher, model: str) -> tuple[int, Version]:
    """Return the number of the current version, and the version, for a training that builds on it.

    The registry serves an older one in place of a damaged one, without the rows that were added since. Raises
    ModelFileInvalid then; ModelNotFound, NoCurrentVersion.
    """
    number: int | None = None
    for _ in range(LOOKS):  # another one may be promoted between the two calls
        # The number is read before the version, so that a change in between is noticed.
        number = registry.current_number(model)
        version = registry.current(model)
        if version.card.version == number:
            return number, version
    raise ModelFileInvalid(
        f'Version {number} of "{model}" is current, and its file is damaged or missing. A version that is built on an '
        f"older one would lose its rows. Restore the file of version {number}, or promote another version first."
    )


def has_columns_of(version: Version, request: TrainingRequest) -> bool:
    """Return True if the version has the features, terms and targets of the request."""
    card = version.card
    return (card.features, card.terms, card.targets) == (request.features, request.terms, request.targets)


def other_columns(card: ModelCard, request: TrainingRequest) -> str:
    """Return the message for rows whose columns are not those of the current version."""
    columns = {"features": card.features, "terms": card.terms, "targets": card.targets}
    listed = "; ".join(
        f"{role}: {', '.join(names[:MAX_NAMES])}{', ...' if len(names) > MAX_NAMES else ''}"
        for role, names in columns.items()
        if names
    )
    message = f"The current version has other features, terms or targets than these rows. It has {listed}."
    return f"{message} {changes_listed(column_changes(request.features, request.targets, card))}".rstrip()


def column_changes(features: Sequence[str], targets: Sequence[str], card: NamedColumns) -> list[tuple[str, list[str]]]:
    """Return the names of the columns that only the rows or only the current version have, under four headings."""
    return [
        ("New features", _without(features, card.features)),
        ("Missing features", _without(card.features, features)),
        ("New targets", _without(targets, card.targets)),
        ("Missing targets", _without(card.targets, targets)),
    ]


def changes_listed(changes: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return the text of column changes: a sentence for each heading that has names."""
    return " ".join(f"{change}: {_listed(names)}." for change, names in changes if names)


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    left_out = set(others)
    return [name for name in names if name not in left_out]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(unquoted, names[:MAX_NAMES])) + (", ..." if len(names) > MAX_NAMES else "")


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


def differences(request: TrainingRequest, base: ModelCard) -> Iterator[str]:
    """Yield a warning for each option of the exact solver that was given another value than the base has."""
    solver, theirs = request.solver, base.solver if isinstance(base.solver, Exact | Imported) else Exact()
    if not isinstance(solver, Exact):
        return
    if solver.l2 != theirs.l2 and not request.choose_l2:
        yield f"The parent was fitted with l2={theirs.l2:g}; this version with l2={solver.l2:g}, as requested."
    if solver.fit_intercept != theirs.fit_intercept:
        parent, this = ("with", "without") if theirs.fit_intercept else ("without", "with")
        yield f"The parent was fitted {parent} an intercept; this version {this} one, as requested."


def finish_promotion(request: TrainingRequest, card: ModelCard, registry: ModelPublisher) -> None:
    """Promote a version of an earlier release, which published and promoted in two steps.

    Raises Conflict if the version that it was made from or compared with is no longer current.
    """
    if card.promoted is not None or not _wants_promotion(request, card):
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


def _wants_promotion(request: TrainingRequest, card: ModelCard) -> bool:
    return request.promote == "always" or (request.promote == "if_better" and bool(card.beats_current))
