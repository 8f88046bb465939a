"""The folds of a job's cross-validation that are stored with its version, and those of the version before."""

from dataclasses import dataclass

from app.registry import model_card
from app.registry.base import ModelReader
from app.registry.tensors import MAX_FOLD_BYTES, fold_bytes
from app.registry.version_file import Version
from app.regression.cross_validation import FoldStatistics
from app.regression.fit import Validation
from app.regression.folds import FoldOptions
from app.training.request import TrainingRequest


@dataclass(frozen=True, eq=False)
class StoredValidation:
    """The part of a cross-validation that is stored with its version."""

    card: model_card.Validation | None = None
    folds: FoldStatistics | None = None  # for the next update; None if they cannot be stored
    no_folds: str | None = None  # why they are not stored or not carried on
    warnings: tuple[str, ...] = ()


class FoldHistory:
    """The folds that the current version stored, if this job's rows can be added to them."""

    def __init__(self, request: TrainingRequest, base: Version | None, registry: ModelReader) -> None:
        self._request = request
        self.stored: FoldStatistics = {}
        self._no_folds: str | None = None  # why they are not carried on
        self._warnings: tuple[str, ...] = ()
        if base is None:
            return
        validation = base.card.validation
        previous = validation if validation is not None and validation.stored else None
        if request.mode == "update" and previous is not None and _settings(previous) == _settings(request):
            self.stored = registry.folds(request.model, base.card.version)
        elif previous is not None or request.folds is not None:
            self._no_folds = _why_not(request, base.card.version, previous)
            # A comparison uses the new rows only, so it misses no folds if none were stored.
            self._warnings = (self._no_folds,) if previous is not None or request.promote != "if_better" else ()

    @property
    def options(self) -> FoldOptions | None:
        """The cross-validation that the request needs, if any."""
        request = self._request
        if request.folds is None:
            return None
        return FoldOptions(
            request.folds,
            request.fold_seed,
            by_group=request.groups is not None,
            choose_l2=request.choose_l2,
            apart=request.promote == "if_better",
        )

    def to_store(self, validation: Validation | None) -> StoredValidation:
        """Return what is stored of the cross-validation of this job, if there was one."""
        request = self._request
        if validation is None:
            return StoredValidation(no_folds=self._no_folds, warnings=self._warnings)
        assert request.folds is not None
        size = fold_bytes(validation.folds)
        no_folds = self._no_folds
        if no_folds is None and size > MAX_FOLD_BYTES:
            no_folds = (
                f"The statistics of the folds take {size / 2**20:.0f} MiB, and at most {MAX_FOLD_BYTES >> 20} MiB are "
                "stored with a version."
            )
        card = model_card.Validation(
            folds=request.folds,
            fold_seed=request.fold_seed,
            groups=request.groups,
            empty_folds=request.folds - len(validation.folds),
            rows=sum(fold.rows for fold in validation.folds.values()),
            stored=no_folds is None,
        )
        return StoredValidation(card, validation.folds if no_folds is None else None, no_folds, self._warnings)


def _why_not(request: TrainingRequest, version: int, previous: model_card.Validation | None) -> str:
    """Return why the job's rows are not added to the version's folds. `previous` is None if it has none."""
    if request.mode == "forget":
        return "A forget drops the statistics of the folds, because the fold of a forgotten row is not known."
    if request.folds is None:
        return f"The rows of this update are in no fold, so the folds of version {version} are not carried on."
    difference = f"Version {version} has no statistics of folds"
    if previous is not None:
        difference = (
            f"Version {version} was validated with {_settings(previous)}, and this update with {_settings(request)}"
        )
    return (
        f"{difference}, so only the rows of this update are validated: each of their folds is predicted from the other "
        "folds and all earlier rows."
    )


def _settings(validation: model_card.Validation | TrainingRequest) -> str:
    groups = "no groups" if validation.groups is None else f'groups "{validation.groups}"'
    return f"folds {validation.folds}, fold_seed {validation.fold_seed} and {groups}"
