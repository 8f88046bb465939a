"""The card of a version: its history and quality."""

import importlib.metadata
import platform
from dataclasses import dataclass, field
from typing import Any, Literal

from app import __version__
from app.regression.solvers import Solver
from app.regression.sufficient_statistics import WeightKind

# Format of the card and tensors of new files. All formats from 1 on are read, and each has a fixture in the tests.
SCHEMA = 3


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute a model's numbers."""
    return {"python": platform.python_version(), "linserve-server": __version__} | {
        name: importlib.metadata.version(name) for name in ("numpy", "scipy", "torch")
    }


@dataclass(frozen=True)
class Validation:
    """How a cross-validation divided the rows into folds."""

    folds: int  # requested number, including the empty ones
    fold_seed: int
    groups: str | None  # the column whose equal values share a fold
    empty_folds: int
    rows: int  # in the folds; after an update without stored folds, only those of the update
    stored: bool = False  # True if the statistics of the folds are in the version's file


@dataclass(frozen=True)
class ModelCard:
    """One version's history and quality, stored as JSON in the metadata of the version's file.

    `metrics` has a dict for each target, "mse", the mean squared error over all rows and targets, and optionally
    "optimum_mse" and "cross_validation". If `inference_unavailable` is None, the inference of classical theory holds.
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
    mode: Literal["replace", "update", "forget"] = "replace"  # effect of the job's rows on the parent's
    dropped_rows: int = 0  # rows of the job in which a value was missing
    # Columns that are neither features nor targets, in the rows of this version and of those it builds on.
    unused_columns: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()  # made from the features; empty if the model's columns are the features
    beats_current: bool | None = None  # compared with the version that was current; None if not compared
    promoted: bool | None = None  # became current at its publication; None if not recorded
    upload: str | None = None  # unique id of the request, by which a repeated job finds its version
    weight_kind: WeightKind = "precision"
    precision_loss: float | None = None  # see app.regression.precision; None if not recorded
    # Bounds by target: of the relative error of the residual sum, and of the coefficients' errors in standard errors.
    # None if no row was ever taken out, or not recorded.
    precision_bounds: dict[str, dict[str, float | None]] | None = None
    discounted: bool = False  # True if decay ever reduced a weight
    untracked: bool = False  # True if rows were taken out before format 2 recorded the loss of precision
    # Share of a row's weight left by decay, by the earlier version that added it; None if not recorded.
    earlier_shares: dict[int, float] | None = None
    inference_unavailable: str | None = None
    validation: Validation | None = None
    no_folds: str | None = None  # reason if a validated version, or one with a validated parent, stores no folds
    warnings: tuple[str, ...] = ()
    libraries: dict[str, str] = field(default_factory=library_versions)
    schema: int = SCHEMA

    @property
    def shares(self) -> dict[int, float] | None:
        """Return the share of a row's weight left by decay, by the version that added the row; None if not known.

        A version from before shares were recorded counts as the one that added all of its rows.
        """
        if self.mode == "replace":
            return {self.version: 1.0}
        if self.earlier_shares is None:
            return None if self.discounted else {self.version: 1.0}
        return self.earlier_shares | ({} if self.mode == "forget" else {self.version: 1.0})
