"""What is known of a version, beside the numbers themselves."""

import importlib.metadata
import platform
from dataclasses import dataclass, field
from typing import Any, Literal

from app import __version__
from app.regression.solvers import Solver
from app.regression.sufficient_statistics import WeightKind

# Format of the card and tensors of new files. Files of all formats from 1 on are read; each has a fixture in the tests.
SCHEMA = 3


def library_versions() -> dict[str, str]:
    """The libraries that had a hand in a model's numbers."""
    return {"python": platform.python_version(), "linserve-server": __version__} | {
        name: importlib.metadata.version(name) for name in ("numpy", "scipy", "torch")
    }


@dataclass(frozen=True)
class Validation:
    """How a cross-validation divided the rows into folds."""

    folds: int  # as asked for, with the empty ones
    fold_seed: int
    groups: str | None  # the column whose equal values share a fold
    empty_folds: int
    rows: int  # in the folds; after an update without stored folds, those of the update alone
    stored: bool = False  # whether the statistics of the folds are in the version's file


@dataclass(frozen=True)
class ModelCard:
    """One version's history and quality. It stands as JSON in the metadata of the version's file.

    `metrics` holds a dict for each target, "mse", the mean squared error over all rows and targets, and what there is
    of "optimum_mse" and "cross_validation". Without `inference_unavailable`, the inference of classical theory holds.
    """

    model: str
    version: int
    features: tuple[str, ...]
    targets: tuple[str, ...]
    created_at: str  # RFC 3339, UTC
    job: str | None
    parent: int | None
    solver: Solver
    rows: int
    rank: int
    condition_number: float
    metrics: dict[str, Any]
    mode: Literal["replace", "update", "forget"] = "replace"  # what the job's rows were to those of the parent
    dropped_rows: int = 0  # of the job's, in which a value was missing
    # Of the rows of this version and those it builds on, the columns that are neither features nor targets.
    unused_columns: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()  # made from the features; none where the model's columns are the features
    beats_current: bool | None = None  # than the version that was current, where that was asked
    promoted: bool | None = None  # whether it became current when it was published; None if it was not recorded
    upload: str | None = None  # names the request uniquely: a job that is run again finds by it what it published
    weight_kind: WeightKind = "precision"
    precision_loss: float | None = None  # see app.regression.precision; None if it was not recorded
    # By target: bounds of the errors of its residual sum, relative, and of its coefficients, in standard errors. None
    # if no row was ever taken out, or it was not recorded.
    precision_bounds: dict[str, dict[str, float | None]] | None = None
    discounted: bool = False  # whether decay ever reduced a weight
    untracked: bool = False  # whether rows were taken out before the loss of precision was recorded
    # What decay has left of a row that was added in an earlier version; None if it was not recorded.
    earlier_shares: dict[int, float] | None = None
    inference_unavailable: str | None = None
    validation: Validation | None = None
    no_folds: str | None = None  # why a validated version, or one whose parent has them, has no statistics of folds
    warnings: tuple[str, ...] = ()
    libraries: dict[str, str] = field(default_factory=library_versions)
    schema: int = SCHEMA

    @property
    def shares(self) -> dict[int, float] | None:
        """What decay has left of a row, by the version in which the row was added; None if that is not known.

        If a version from before shares were recorded has rows of earlier ones, its number stands for all of them.
        """
        if self.mode == "replace":
            return {self.version: 1.0}
        if self.earlier_shares is None:
            return None if self.discounted else {self.version: 1.0}
        return self.earlier_shares | ({} if self.mode == "forget" else {self.version: 1.0})
