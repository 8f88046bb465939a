"""What a job is asked to do, as it is recorded."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from app.data.batch import Header
from app.data.groups import Groups
from app.regression.solvers import Solver
from app.regression.sufficient_statistics import WeightKind

# Options of the exact solver that an update or a forget takes over from the version that it builds on.
Inherited: TypeAlias = Literal["l2", "fit_intercept"]

# Format of new records. Format 1, without a number, has an older name for an option of gradient descent.
RECORD_FORMAT = 2
_RENAMED_OPTIONS = {"held_out": "validation_fraction"}


@dataclass(frozen=True)
class TrainingRequest:
    """All a trainer needs, whenever it comes to it. The rows wait in the spool under the name `upload`."""

    model: str
    upload: str
    format: str  # name of a file format, or MATRIX
    features: tuple[str, ...]  # none: the job finds them in the rows (NDJSON)
    targets: tuple[str, ...]
    solver: Solver
    promote: Literal["always", "if_better", "never"]
    fingerprint: str  # hash of the whole request, to tell a repeated one from another under the same key
    mode: Literal["replace", "update", "forget"] = "replace"
    decay: float = 1.0  # of a mode "update": what a day leaves of a row's weight
    folds: int | None = None  # of the cross-validation
    fold_seed: int = 0  # of the permutations of the folds, or of the hash of the groups
    groups: str | None = None  # the column whose equal values share a fold
    choose_l2: bool = False  # by it
    unseen: bool = False  # whether the current version has seen none of the rows, which a comparison needs
    terms: tuple[str, ...] = ()
    missing: Literal["refuse", "drop"] = "refuse"  # what is done with rows in which a value is missing
    weight: str | None = None  # the column of weights: of a matrix its last
    weight_kind: WeightKind | None = None  # None: as the version to build on has it, or else precision
    inherits: tuple[Inherited, ...] = ()
    trained_in: int | None = None  # with mode "forget": the version in which the rows were added
    share: float | None = None  # with mode "forget": what decay has left of the rows
    header: Header | None = None  # what the first row of a CSV file is said to be
    warnings: tuple[str, ...] = ()  # about the rows, found while they were received
    infer_columns: bool = False  # whether the rows may have other columns than the current version
    record_format: int = RECORD_FORMAT

    @property
    def fold_groups(self) -> Groups | None:
        """How groups become folds, if they do."""
        if self.groups is None or self.folds is None:
            return None
        return Groups(self.groups, self.folds, self.fold_seed)

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "TrainingRequest":
        """Return the request of a record of any format."""
        if plain.get("record_format", 1) == 1:
            solver = {_RENAMED_OPTIONS.get(name, name): value for name, value in plain["solver"].items()}
            plain = {**plain, "solver": solver, "record_format": RECORD_FORMAT}
        return msgspec.convert(plain, type=cls)
