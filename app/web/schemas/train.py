"""Requests of POST /train: the options, checked before a job is recorded, and examples for Swagger UI."""

import dataclasses
from typing import Annotated, Any, Literal, Self, TypedDict, Unpack

from pydantic import Field, model_validator

from app.data.columns.options import ReadingOptions
from app.data.names import MAX_NAME_LENGTH, MAX_NAMES
from app.registry.names import MODEL_NAME
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import WeightKind
from app.training.request import TrainingRequest
from app.training.source_url import MAX_URL
from app.web.query import Rows
from app.web.schemas.openapi_schema import DocumentedAs
from app.web.schemas.reading import CellOptions, TextOptions
from app.web.schemas.solver_options import DEFAULT_SOLVER, AnySolver, Options, without_default


class ValidationOptions(Options):
    """Exact k-fold cross-validation, from the statistics of the folds."""

    folds: int = Field(10, ge=2, le=100)
    """Number of folds."""
    fold_seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the random division into folds: the same seed gives the same folds."""
    groups: str | None = Field(None, min_length=1, max_length=MAX_NAME_LENGTH)
    """Column whose equal values share a fold. It is not a feature unless it is listed as one."""


class RequestFields(TypedDict):
    """The parts of a TrainingRequest that are not options."""

    upload: str
    format: str
    fingerprint: str


class TrainingOptions(CellOptions):
    """The options of requests in every format."""

    model: str | None = Field(None, pattern=f"^{MODEL_NAME}$")
    """The model that gets the new version, created if it does not exist. Default: the default model."""
    mode: Literal["replace", "update", "forget"] = "replace"
    """`replace`: train on these rows alone; `update`: add them to those of the current version; `forget`: take them out
    of those. No other rows are needed. The current version is the one that is current when the job starts; if another
    is promoted before it ends, the job is fitted again on that one."""
    decay: float = Field(1.0, gt=0, le=1)
    """With `update`: the factor by which the weight of the current version's rows is multiplied for each day since that
    version."""
    terms: list[str] | None = Field(None, min_length=1, max_length=MAX_NAMES)
    """Columns made from the features, such as `["temp", "temp^2", "temp:rainfall"]`; kept with the version and made
    again at prediction. Default: the features; of an update, the current version's terms."""
    weight_kind: WeightKind | None = None
    """Meaning of the weights of rows. `precision`: the inverse of the variance of a row's error, up to a common factor
    that changes no result. `frequency`: how many times the row was observed, a whole number; a row of weight 2 counts
    like two rows. Rows without weights weigh 1 each. A version has one kind, which updates and forgets must have too.
    Default: `precision`; for an update or a forget, the current version's kind."""
    trained_in: int | None = Field(None, ge=1)
    """With `forget`: the version in which the rows were added. The share of their weight that decay has left since is
    taken out. Needed, unless `share` is given, if a decay has reduced the current version's weights; its card lists the
    `shares`."""
    share: float | None = Field(None, gt=0, le=1)
    """With `forget`, instead of `trained_in`: the share of the rows' weight to take out."""
    schema_: Literal["infer"] | None = Field(None, alias="schema")
    """A new version of a model has the columns of the current one, read in the same way, unless the request names its
    features. `infer`: take the columns and their kinds from the rows, even if the current version has others."""
    diagnostics: bool | None = None
    """Whether to look at the rows again after the fit, for the `diagnostics` of the card: residuals, leverages, Cook's
    distances and tests. Default: true for up to 1,000,000 rows. Diagnostics need all rows of a model, so `true`
    requires mode `replace`."""
    solver: AnySolver = Field(DEFAULT_SOLVER, json_schema_extra=without_default)
    """How the coefficients are found. Default: exact, with the default options."""
    validation: ValidationOptions | None = None
    """Adds cross-validated metrics."""
    promote: Literal["always", "if_better", "never"] = "always"
    """When the new version becomes current. `if_better`: if its cross-validated error on these rows does not exceed the
    current version's by more than chance explains. Mode `replace` needs `unseen`. With `never`, an update or a forget
    keeps the version that it was made from as its parent."""
    unseen: bool = False
    """Set it to true if the current version was not fitted to any of these rows, so that `promote: if_better` with mode
    `replace` may compare the two on them. Otherwise the version is published, not promoted."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.mode != "replace" and not self.solver.made.mergeable:
            raise ValueError(f"Mode {self.mode} needs the exact solver")
        if self.schema_ is not None and self.mode != "replace":
            raise ValueError(f"`schema: infer` needs mode replace; mode {self.mode} keeps the columns")
        if self.diagnostics and self.mode != "replace":
            raise ValueError(f"`diagnostics: true` needs mode replace, because mode {self.mode} does not have all rows")
        if self.decay != 1 and self.mode != "update":
            raise ValueError("Only mode update has a decay")
        if self.folds is not None:
            self._can_be_validated()
        if self.unseen and (self.mode != "replace" or self.promote != "if_better"):
            raise ValueError(
                "`unseen` is only for promote if_better with mode replace; "
                f"this is promote {self.promote} with mode {self.mode}"
            )
        return self

    @model_validator(mode="after")
    def _names_one_share(self) -> Self:
        if (self.trained_in, self.share) != (None, None) and self.mode != "forget":
            raise ValueError("Only mode forget has trained_in and share")
        if self.trained_in is not None and self.share is not None:
            raise ValueError("Give either trained_in or share")
        return self

    @property
    def inherits(self) -> tuple[str, ...]:
        """The options of the solver that are not given, and so taken from the version to build on."""
        if self.mode == "replace":
            return ()
        return tuple(name for name in self.solver.made.inherited if name not in self.solver.model_fields_set)

    def _can_be_validated(self) -> None:
        if self.solver.made is not Exact:
            raise ValueError("Cross-validation needs the exact solver")
        if self.chooses_l2 and self.mode != "replace":
            raise ValueError("`l2: auto` needs mode replace, because it is chosen on all rows; give a number")
        if self.mode == "forget":
            raise ValueError(
                "Mode forget cannot be cross-validated or compared: the rows that remain are not here, and their folds "
                "are not known; use promote always or never"
            )

    @property
    def chooses_l2(self) -> bool:
        return getattr(self.solver, "l2", None) == "auto"

    @property
    def folds(self) -> int | None:
        """Number of folds of the cross-validation, or None if no option needs one."""
        if self.validation is None and self.promote != "if_better" and not self.chooses_l2:
            return None
        return self.division.folds

    @property
    def division(self) -> ValidationOptions:
        """The division of the rows into folds."""
        return self.validation or ValidationOptions()

    def to_request(self, *, default_model: str, **fields: Unpack[RequestFields]) -> TrainingRequest:
        """Return the request as far as the options give it. The planner adds the columns of the rows."""
        return TrainingRequest(
            model=self.model or default_model,
            features=(),
            targets=(),
            solver=self.solver.value(),
            promote=self.promote,
            mode=self.mode,
            decay=self.decay,
            folds=self.folds,
            fold_seed=self.division.fold_seed,
            groups=self.division.groups,
            unseen=self.unseen,
            choose_l2=self.chooses_l2,
            terms=tuple(self.terms or ()),
            reading=self.reading(),
            weight_kind=self.weight_kind,
            inherits=self.inherits,
            trained_in=self.trained_in,
            share=self.share,
            infer_columns=self.schema_ == "infer",
            diagnostics=self.diagnostics,
            **fields,
        )


class FileOptions(TrainingOptions, TextOptions):
    """The options of a request whose body is a file."""

    targets: list[str] | None = None
    """Columns to predict. Default: the targets of the model's current version."""
    features: list[str] | None = None
    """Columns to predict from; none of them is left out. Default: all columns except targets, weights, groups, index
    columns and identifiers; if the model exists, they have to be those of its current version. The columns of NDJSON
    are the names in all its lines; a name that a line lacks is a gap."""
    weight: str | None = None
    """Column of weights, at least 0; see `weight_kind`."""

    def to_request(self, *, default_model: str, **fields: Unpack[RequestFields]) -> TrainingRequest:
        return dataclasses.replace(
            super().to_request(default_model=default_model, **fields),
            features=tuple(self.features or ()),
            targets=tuple(self.targets or ()),
            weight=self.weight,
            named=bool(self.features),
        )

    def reading(self) -> ReadingOptions:
        texts = {name: getattr(self, name) for name in TextOptions.model_fields}
        return dataclasses.replace(super().reading(), **texts)


class SourceRequest(FileOptions):
    """Files that are already in a bucket or on the service's machine, instead of rows. Options are as for a file."""

    source: str = Field(min_length=1, max_length=MAX_URL, examples=["s3://bucket/path/*.parquet"])
    """URL of a file, or of several with `*` and `?` in the names: `s3://`, `gs://`, `az://` or `file:///`. It has to be
    under one of the URL prefixes that the operator allows with LINSERVE_SOURCES. The files have the same columns, and
    are read in the order of their URLs."""
    format: Literal["parquet", "csv", "arrow"] | None = None
    """Format of the files. Default: by their extension."""

    def to_request(self, *, default_model: str, **fields: Unpack[RequestFields]) -> TrainingRequest:
        return dataclasses.replace(super().to_request(default_model=default_model, **fields), source=self.source)


class TrainRequest(TrainingOptions):
    """Rows and their targets: two lists of the same length, each of objects or of arrays.

    A flat list of numbers is one row if there are several names, and one row per number if there is one name.
    """

    instances: Rows = Field(min_length=1)
    targets: Rows = Field(min_length=1)
    feature_names: list[str] | None = None
    """Names for rows that are arrays. Default: those of the model's current version."""
    target_names: list[str] | None = None
    """Names for targets that are arrays. Default: those of the model's current version."""
    sample_weights: Annotated[list[Any] | None, DocumentedAs(list[Annotated[float, Field(ge=0)]] | None)] = None
    """A weight for each row, at least 0; see `weight_kind`."""


# The rows of the notebook.
_INPUTS = [
    [73, 67, 43], [91, 88, 64], [87, 134, 58], [102, 43, 37], [69, 96, 70],
    [74, 66, 43], [91, 87, 65], [88, 134, 59], [101, 44, 37], [68, 96, 71],
    [73, 66, 44], [92, 87, 64], [87, 135, 57], [103, 43, 36], [68, 97, 70],
]  # fmt: skip
_TARGETS = [
    [56, 70], [81, 101], [119, 133], [22, 37], [103, 119],
    [57, 69], [80, 102], [118, 132], [21, 38], [104, 118],
    [57, 69], [82, 100], [118, 134], [20, 38], [102, 120],
]  # fmt: skip

EXAMPLES: dict[str, Any] = {
    "The notebook's rows, exactly": {"instances": _INPUTS, "targets": _TARGETS},
    "The notebook's rows, by gradient descent": {
        "instances": _INPUTS,
        "targets": _TARGETS,
        "solver": {"kind": "gradient_descent", "epochs": 100, "learning_rate": 1e-5, "batch_size": 5},
        "promote": "never",
    },
    "A new model from objects": {
        "model": "boiling-point",
        "instances": [{"altitude": 0}, {"altitude": 1000}, {"altitude": 2000}],
        "targets": [{"celsius": 100.0}, {"celsius": 96.7}, {"celsius": 93.3}],
    },
    "Words and dates, with an option": {
        "model": "rents",
        "instances": [
            {"city": "Bergen", "listed": "2026-03-02", "area": 42},
            {"city": "Oslo", "listed": "2026-03-02", "area": 38},
            {"city": "Oslo", "listed": "2026-03-16", "area": 50},
            {"city": "Bergen", "listed": "2026-03-23", "area": 55},
            {"city": "Bergen", "listed": "2026-04-13", "area": 80},
            {"city": "Oslo", "listed": "2026-04-20", "area": 72},
            {"city": "Bergen", "listed": "2026-05-04", "area": 65},
        ],
        "targets": [
            {"rent": 11200},
            {"rent": 14300},
            {"rent": 15400},
            {"rent": 12600},
            {"rent": 17300},
            {"rent": 19900},
            {"rent": 14100},
        ],
        "reference": {"city": "Oslo"},
    },
    "Files in a bucket": {"model": "rents", "source": "s3://bucket/rents/2026/*.parquet", "targets": ["rent"]},
}
CSV_EXAMPLE = "temp,rainfall,humidity,apples,oranges\n" + "".join(
    ",".join(map(str, x + y)) + "\n" for x, y in zip(_INPUTS, _TARGETS, strict=True)
)
