"""The card of a version: its history and quality, and the shares of the rows' weights that decay has left."""

import importlib.metadata
import platform
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from app import __version__
from app.data.columns.schema import TableSchema
from app.data.columns.terms import encoded_terms, term_blocks
from app.errors import InvalidInput
from app.registry.origin import Imported
from app.regression.solvers import Solver
from app.regression.sufficient_statistics import WeightKind

# Format of the card and tensors of new files. All formats from 1 on are read, and each has a fixture in the tests.
SCHEMA = 5

MAX_SHARES = 1000  # Newest versions listed in a card; the shares of older ones are dropped.
MAX_NAMED = 10  # Newest versions named in a message.

_NOT_RECORDED = (
    "The version's weights were reduced by decay before it was recorded how much of each row is left. Give `share`, "
    "the share that is left of these rows."
)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute a model's numbers."""
    return {"python": platform.python_version(), "linserve-server": __version__} | _installed_versions()


@cache
def _installed_versions() -> dict[str, str]:
    """Return the versions of installed packages. To parse their metadata takes longer than to fit a small model."""
    return {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "torch")}


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
    rows: int  # 0 if they are not known, because the version was imported without statistics
    rank: int  # 0 if it is not known, as `rows`
    condition_number: float | None  # None if it is not known, as `rows`
    metrics: dict[str, Any]
    mode: Literal["replace", "update", "forget"] = "replace"  # effect of the job's rows on the parent's
    dropped_rows: int = 0  # rows of the job that were left out because of a gap
    gaps: dict[str, int] = field(default_factory=dict)  # number of gaps in the job's rows, by column with any
    table: TableSchema | None = None  # None before format 4: the columns are numbers
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
    # What a second look at the rows found, see app.regression.diagnostics; None if there was none, for this reason. In
    # cards that have neither, it was not recorded.
    diagnostics: dict[str, Any] | None = None
    no_diagnostics: str | None = None
    warnings: tuple[str, ...] = ()
    libraries: dict[str, str] = field(default_factory=library_versions)
    imported: Imported | None = None  # how the version was imported; None if it was trained
    schema: int = SCHEMA

    @property
    def has_rows(self) -> bool:
        """True if the statistics are those of rows, to which others can be added."""
        return self.imported is None or self.imported.given == "statistics"

    @property
    def schema_of_rows(self) -> TableSchema:
        """The columns that the version was trained on."""
        return self.table or TableSchema.of_numbers(self.features, self.targets)

    @property
    def ignored(self) -> frozenset[str]:
        """Columns of the training rows that are not features. Rows to predict for may have them."""
        left_out = (column.name for column in self.schema_of_rows.left_out)
        return frozenset((*self.targets, *self.unused_columns, *left_out)).difference(self.features)

    @property
    def encoded_features(self) -> tuple[str, ...]:
        """The columns of the design, before terms."""
        return self.features if self.table is None else self.table.encoded_features

    @property
    def encoded_terms(self) -> tuple[str, ...]:
        """The terms over `encoded_features`; none if the model's columns are those."""
        return self.terms if self.table is None else encoded_terms(self.terms, self.table)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the model: terms or features, encoded."""
        return self.encoded_terms or self.encoded_features

    @property
    def blocks(self) -> tuple[slice, ...]:
        """The places of the indicator columns in `columns`, a slice for each category or gap indicator."""
        if self.table is None:
            return ()
        return term_blocks(self.terms, self.table)

    @property
    def shares(self) -> dict[int, float] | None:
        """Return the share of a row's weight left by decay, by the version that added the row; None if not known.

        A version from before shares were recorded counts as the one that added all of its rows.
        """
        if not self.has_rows:
            return None
        if self.mode == "replace" and not self.discounted:
            return {self.version: 1.0}
        if self.earlier_shares is None:
            return None if self.discounted else {self.version: 1.0}
        return self.earlier_shares | ({} if self.mode == "forget" else {self.version: 1.0})


def shares_after(base: ModelCard, share: float) -> dict[int, float] | None:
    """Return the shares of earlier versions in a version made from `base`, whose rows all keep this share.

    None if the shares of `base` are not known.
    """
    if base.shares is None:
        return None
    newest = sorted(base.shares)[-MAX_SHARES:]
    return {version: base.shares[version] * share for version in newest}


def share_to_forget(base: ModelCard, trained_in: int | None, share: float | None) -> float:
    """Return the share of their weight that rows to take out have left in `base`.

    `trained_in` is the version that added them. Raises InvalidInput if neither it nor `share` is given and decay has
    reduced their weights, or if that version added no rows.
    """
    if share is not None:
        if share < 1 and not base.discounted:
            raise InvalidInput.at(
                "/share", "Decay has not reduced the weights of this version's rows, so rows are taken out whole."
            )
        return share
    if trained_in is None:
        if not base.discounted:
            return 1.0
        if base.shares is None:
            raise InvalidInput.at("/share", _NOT_RECORDED)
        raise InvalidInput.at(
            "/trained_in",
            "Decay has reduced the weights of this version's rows, so only a share of an old row is left to take out. "
            "Give `trained_in`, the version in which the rows were added, or `share`. "
            f"Shares by version: {_listed({version: f'{left:.6g}' for version, left in base.shares.items()})}.",
        )
    if base.shares is None:
        raise InvalidInput.at("/trained_in", _NOT_RECORDED)
    if trained_in not in base.shares:
        raise InvalidInput.at(
            "/trained_in",
            f"Version {base.version} holds no rows that were added in version {trained_in}. It holds rows of: "
            f"{_listed(dict.fromkeys(base.shares, ''))}.",
        )
    if base.shares[trained_in] == 0:
        raise InvalidInput.at(
            "/trained_in",
            f"Decay has reduced the rows of version {trained_in} to zero weight, so they cannot be taken out.",
        )
    return base.shares[trained_in]


def _listed(versions: dict[int, str]) -> str:
    newest = sorted(versions, reverse=True)
    named = [f"version {version}" + (f": {versions[version]}" if versions[version] else "") for version in newest]
    more = [f"and {len(named) - MAX_NAMED} older ones"] if len(named) > MAX_NAMED else []
    return ", ".join([*named[:MAX_NAMED], *more])
