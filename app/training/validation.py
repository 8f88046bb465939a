"""A job's cross-validation: the folds of its rows, those stored with the version before, and what the card says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.registry.model_card import Validation
from app.registry.publisher import ModelPublisher
from app.registry.stored_folds import MAX_FOLD_BYTES, fold_bytes
from app.registry.version_file import Version
from app.regression.cross_validation import CrossValidation, Folds
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import SufficientStatistics
from app.training.request import TrainingRequest

Statistics = dict[int, SufficientStatistics]


@dataclass(frozen=True, eq=False)
class Validated:
    """A cross-validation that was asked for, and the folds that it leaves to the next update."""

    result: CrossValidation
    new: SufficientStatistics  # of the job's rows
    kept: CrossValidation | None  # of the job's rows alone, for a comparison; None if they are all in one fold
    card: Validation
    stored: Statistics | None  # None if they cannot be stored
    no_folds: str | None
    warnings: tuple[str, ...]


class FoldHistory:
    """The folds that the current version stored, if this job's rows can be added to them."""

    def __init__(self, request: TrainingRequest, base: Version | None, registry: ModelPublisher) -> None:
        self._request = request
        self._folds: Statistics = {}
        self.no_folds: str | None = None  # why they are not carried on
        self.warnings: tuple[str, ...] = ()
        if base is None:
            return
        had = base.card.validation
        stored = had is not None and had.stored
        if request.mode == "update" and request.folds is not None and stored and _same_folds(had, request):
            self._folds = registry.folds(request.model, base.card.version)
        elif stored or request.folds is not None:
            self.no_folds = _why_not(request, base.card.version, had if stored else None)
            # A comparison alone looks at the new rows alone, so nothing is missing if there was nothing.
            self.warnings = (self.no_folds,) if stored or request.promote != "if_better" else ()

    @property
    def rows(self) -> int:
        """Number of the first new row: its permutations follow those of the stored folds."""
        return sum(fold.rows for fold in self._folds.values())

    def validate(self, new: Folds, solver: Exact, share: float, on_step: Callable[[], None]) -> Validated:
        """Cross-validate over the stored folds, of which decay left this share, and the new ones together.

        If none are stored, the new rows alone are validated.
        """
        request = self._request
        assert request.folds is not None
        together = Folds(dict(self._merged(new.statistics, share)), on_step) if self._folds else new
        result = together.validate(solver)
        kept: CrossValidation | None = None
        if request.promote == "if_better" and len(new.statistics) > 1:
            kept = new.validate(solver) if self._folds else result
        size = fold_bytes(together.statistics)
        no_folds = self.no_folds
        if no_folds is None and size > MAX_FOLD_BYTES:
            no_folds = (
                f"The statistics of the folds take {size / 2**20:.0f} MiB, and at most {MAX_FOLD_BYTES >> 20} MiB are "
                "stored with a version."
            )
        return Validated(
            result,
            new.whole,
            kept,
            Validation(
                folds=request.folds,
                fold_seed=request.fold_seed,
                groups=request.groups,
                empty_folds=request.folds - len(together.statistics),
                rows=together.rows,
                stored=no_folds is None,
            ),
            stored=together.statistics if no_folds is None else None,
            no_folds=no_folds,
            warnings=self.warnings,
        )

    def _merged(self, new: Statistics, share: float) -> Iterator[tuple[int, SufficientStatistics]]:
        for fold in sorted(self._folds.keys() | new.keys()):
            parts = [self._folds[fold].discounted_by(share)] if fold in self._folds else []
            parts += [new[fold]] if fold in new else []
            yield fold, parts[0] if len(parts) == 1 else parts[0].merge(parts[1])


def _same_folds(had: Validation | None, request: TrainingRequest) -> bool:
    asked = (request.folds, request.fold_seed, request.groups)
    return had is not None and (had.folds, had.fold_seed, had.groups) == asked


def _why_not(request: TrainingRequest, version: int, had: Validation | None) -> str:
    """Return why the version's folds, if it `had` any, are not added to."""
    if request.mode == "forget":
        return "A forget drops the statistics of the folds, because the fold of a forgotten row is not known."
    if request.folds is None:
        return f"The rows of this update are in no fold, so the folds of version {version} are not carried on."
    found = f"Version {version} has no statistics of folds"
    if had is not None:
        found = (
            f"Version {version} was validated with {_settings(had.folds, had.fold_seed, had.groups)}, and this update "
            f"with {_settings(request.folds, request.fold_seed, request.groups)}"
        )
    return (
        f"{found}, so only the rows of this update are validated: each of their folds is predicted from the other "
        "folds and all earlier rows."
    )


def _settings(folds: int, seed: int, groups: str | None) -> str:
    of_groups = "no groups" if groups is None else f'groups "{groups}"'
    return f"folds {folds}, fold_seed {seed} and {of_groups}"
