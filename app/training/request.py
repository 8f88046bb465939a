"""The request of a training job, as it is recorded."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from app.data.columns.options import ReadingOptions
from app.data.columns.schema import LeftOut
from app.data.groups import Groups
from app.regression.solvers import Solver, solver_from_record
from app.regression.sufficient_statistics import WeightKind

# Format number of new records. Format 1 has no number and an older name for an option of gradient descent, and notes in
# `solver.start` that the start is uploaded or the current version. Formats 1 and 2 have `header` and `missing`, whose
# default was to refuse, outside of `reading`.
RECORD_FORMAT = 3
# Most rows of a file that are looked at again by default. Up to this number, all standardised residuals are kept, so
# that their quantiles are exact.
DIAGNOSED_ROWS = 1_000_000
_RENAMED_OPTIONS = {"held_out": "validation_fraction"}


@dataclass(frozen=True)
class TrainingRequest:
    """Everything that a trainer needs to run the job. Its rows are in `upload`, or in the files of `source`."""

    model: str
    upload: str
    format: str  # name of a file format, or MATRIX
    # Columns that may become features. Empty: the job finds them in the rows (NDJSON).
    features: tuple[str, ...]
    targets: tuple[str, ...]
    solver: Solver
    promote: Literal["always", "if_better", "never"]
    fingerprint: str  # hash of the whole request; a repeated request has the same
    mode: Literal["replace", "update", "forget"] = "replace"
    decay: float = 1.0  # with mode "update": factor for the weight of the current rows, for each day
    folds: int | None = None  # number of folds of the cross-validation; None: no cross-validation
    fold_seed: int = 0  # seed of the permutation into folds, or of the hash of the groups
    groups: str | None = None  # the column whose equal values share a fold
    choose_l2: bool = False  # True if the cross-validation chooses the penalty
    unseen: bool = False  # True if the current version was fitted to none of the rows
    terms: tuple[str, ...] = ()
    weight: str | None = None  # the column of weights; in a matrix, the column after the targets
    weight_kind: WeightKind | None = None  # None: the kind of the version to build on, or else precision
    inherits: tuple[str, ...] = ()  # options of the solver that the version to build on gives
    trained_in: int | None = None  # with mode "forget": the version in which the rows were added
    share: float | None = None  # with mode "forget": share of the rows' weight that decay has left
    reading: ReadingOptions = ReadingOptions()  # noqa: RUF009 - frozen
    named: bool = False  # True if the request names its features, none of which is then left out
    left_out: tuple[LeftOut, ...] = ()  # columns that are not features by their names
    warnings: tuple[str, ...] = ()  # about the rows, noticed when they were received
    start_uploaded: bool = False  # True if the initial coefficients are in a file next to the rows
    infer_columns: bool = False  # True if the rows may have other columns than the current version
    # True: look at the rows again for diagnostics; False: do not; None: if there are not too many.
    diagnostics: bool | None = None
    source: str | None = None  # URL of files that are read instead of an upload; `upload` is only an id then
    record_format: int = RECORD_FORMAT

    @property
    def weight_and_groups(self) -> tuple[str, ...]:
        """The columns of weights and of groups, if any."""
        return tuple(name for name in (self.weight, self.groups) if name is not None)

    @property
    def columns(self) -> dict[str, None]:
        """The columns of a file that the job reads: targets, features, weights and groups."""
        return dict.fromkeys((*self.targets, *self.features, *self.weight_and_groups))

    @property
    def fold_groups(self) -> Groups | None:
        """The assignment of groups to folds, or None."""
        if self.groups is None or self.folds is None:
            return None
        return Groups(self.groups, self.folds, self.fold_seed)

    @property
    def chosen(self) -> frozenset[str]:
        """The columns that the request names, so that none of them is left out."""
        return frozenset((*(self.features if self.named else ()), *self.reading.columns))

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "TrainingRequest":
        """Return the request of a record of any format."""
        record_format = plain.get("record_format", 1)
        if record_format == 1:
            plain = _from_format_1(plain)
        if record_format < RECORD_FORMAT:
            reading = {"header": plain.get("header"), "missing": plain.get("missing", "refuse")}
            named = bool(plain.get("features"))  # The job was checked with these columns, and keeps them.
            plain = {**plain, "reading": reading, "named": named, "record_format": RECORD_FORMAT}
        return msgspec.convert(plain, type=cls, dec_hook=solver_from_record)


def _from_format_1(plain: dict[str, Any]) -> dict[str, Any]:
    solver = {_RENAMED_OPTIONS.get(name, name): value for name, value in plain["solver"].items()}
    start = solver.get("start")
    uploaded = isinstance(start, dict) and start.get("uploaded", False)
    if uploaded:
        solver["start"] = "random"
    elif isinstance(start, dict) and start.get("current", False):
        solver["start"] = "current"
    return {**plain, "solver": solver, "start_uploaded": uploaded}
