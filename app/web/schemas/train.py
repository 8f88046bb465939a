"""The options of POST /train, in a JSON body or as query parameters, checked before a job is recorded."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from starlette.datastructures import QueryParams

from app.data.batch import Header
from app.data.names import MAX_NAME_LENGTH, MAX_NAMES
from app.registry.names import MODEL_NAME
from app.regression.solvers import Exact
from app.regression.sufficient_statistics import WeightKind
from app.web.problems import invalid_query
from app.web.query import Rows, check_query, in_query, names_in_query
from app.web.schemas.openapi_schema import DocumentedAs
from app.web.schemas.solver_options import (
    DEFAULT_SOLVER,
    SOLVER_FIELDS,
    SOLVER_OPTIONS,
    AnySolver,
    Options,
    solver_parameters,
    without_default,
)


class ValidationOptions(Options):
    """Exact k-fold cross-validation, from the statistics of the folds."""

    folds: int = Field(10, ge=2, le=100)
    fold_seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the random division into folds: the same seed gives the same folds."
    )
    groups: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        description="Column whose equal values share a fold. It is not a feature unless it is listed as one.",
    )


class TrainingOptions(Options):
    """What holds for rows of every format."""

    model: str | None = Field(
        None, pattern=f"^{MODEL_NAME}$", description="Gets the new version; created where it does not exist."
    )
    mode: Literal["replace", "update", "forget"] = Field(
        "replace",
        description="`replace`: train on these rows alone; `update`: add them to those of the current version; "
        "`forget`: take them out of those. No other rows are needed. The current version is the one that is current "
        "when the job starts; if another is promoted before it ends, the job is fitted again on that one.",
    )
    decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="With `update`: the factor by which the weight of the current version's rows is multiplied for "
        "each day since that version.",
    )
    terms: list[str] | None = Field(
        None,
        min_length=1,
        max_length=MAX_NAMES,
        description='Columns made from the features, such as `["temp", "temp^2", "temp:rainfall"]`; kept with the '
        "version and made again at prediction. Default: the features; of an update, the current version's terms.",
    )
    weight_kind: WeightKind | None = Field(
        None,
        description="What the weights of rows mean. `precision`: the inverse of the variance of a row's error, up to a "
        "common factor that changes no result. `frequency`: how many times the row was observed, a whole number; a row "
        "of weight 2 counts like two rows. Rows without weights weigh 1 each. A version has one kind, which updates "
        "and forgets must have too. Default: `precision`; for an update or a forget, the current version's kind.",
    )
    trained_in: int | None = Field(
        None,
        ge=1,
        description="With `forget`: the version in which the rows were added. The share of their weight that decay has "
        "left since is taken out. Needed, unless `share` is given, if a decay has reduced the current version's "
        "weights; its card lists the `shares`.",
    )
    share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="With `forget`, instead of `trained_in`: the share of the rows' weight to take out.",
    )
    schema_: Literal["infer"] | None = Field(
        None,
        alias="schema",
        description="A new version of a model has the columns of the current one, unless the request names its "
        "features. `infer`: take the columns from the rows, even if the current version has others.",
    )
    missing: Literal["refuse", "drop"] = Field(
        "refuse", description="Whether a missing value fails the job, or its row is left out and counted."
    )
    solver: AnySolver = Field(
        DEFAULT_SOLVER,
        description="How the coefficients are found. Default: exact, with the default options.",
        json_schema_extra=without_default,
    )
    validation: ValidationOptions | None = Field(None, description="Adds cross-validated metrics.")
    promote: Literal["always", "if_better", "never"] = Field(
        "always",
        description="Whether the new version becomes current; `if_better`: if its cross-validated error on "
        "these rows does not exceed the current version's by more than chance explains. Mode `replace` needs `unseen`. "
        "With `never`, an update or a forget keeps the version that it was made from as its parent.",
    )
    unseen: bool = Field(
        False,
        description="Set it to true if the current version was not fitted to any of these rows, so that `promote: "
        "if_better` with mode `replace` may compare the two on them. Otherwise the version is published, not promoted.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.mode != "replace" and not self.solver.made.mergeable:
            raise ValueError(f"Mode {self.mode} needs the exact solver")
        if self.schema_ is not None and self.mode != "replace":
            raise ValueError(f"`schema: infer` needs mode replace; mode {self.mode} keeps the columns")
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
        """The options of the solver that the version to build on gives, because the request does not."""
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
        """Folds of the cross-validation, where something asked for needs one."""
        if self.validation is None and self.promote != "if_better" and not self.chooses_l2:
            return None
        return self.division.folds

    @property
    def division(self) -> ValidationOptions:
        """How rows are divided into folds, if they are."""
        return self.validation or ValidationOptions()


class FileOptions(TrainingOptions):
    """Options beside an uploaded file."""

    targets: list[str] | None = None
    features: list[str] | None = None
    weight: str | None = None
    header: Header | None = None


class TrainRequest(TrainingOptions):
    """Rows with their targets, two lists of the same length, each all objects or all arrays.

    A flat list of numbers is one row if there are several names, and a row for each number if there is one.
    """

    instances: Rows = Field(min_length=1)
    targets: Rows = Field(min_length=1)
    feature_names: list[str] | None = Field(
        None, description="Names for rows that are arrays. Default: those of the model's current version."
    )
    target_names: list[str] | None = Field(None, description="Likewise.")
    sample_weights: Annotated[list[Any] | None, DocumentedAs(list[Annotated[float, Field(ge=0)]] | None)] = Field(
        None, description="One for each row, at least 0; `weight_kind` says what they mean."
    )


_VALIDATION_FIELDS = tuple(ValidationOptions.model_fields)
_LISTS = ("targets", "features", "terms")

WEIGHT_KIND_TEXT = (
    "What weights mean. `precision`, the default: the inverse of the variance of a row's error, up to a common factor. "
    "`frequency`: how many times the row was observed, a whole number. An update or a forget has the current version's "
    "kind."
)
FEATURES_TEXT = (
    "Columns to predict from, comma-separated. Default: all columns except targets, weights, groups and the index of a "
    "pandas frame; of a model that exists, they have to be those of its current version. The columns of NDJSON are the "
    "names in all its lines; a name that a line lacks is a missing value."
)
SCHEMA_TEXT = (
    "`infer`: take the columns from the file although the model's current version has others. Without it, and without "
    "`features`, other columns are refused."
)
HEADER_TEXT = (
    "Of CSV: `names` if row 1 holds the columns' names, which may then be numbers; `none` if it holds values, and the "
    "columns are called c1, c2, ... Default: `names`, refused if all of them are numbers."
)


def from_query(query: QueryParams) -> FileOptions:
    """Options given as query parameters: the solver's fields stand beside the others, lists are comma-separated.

    Raises InvalidInput for an unknown parameter, one that stands twice, or a value that does not fit.
    """
    fields = {field.alias or name for name, field in FileOptions.model_fields.items()}
    known = {*fields, *SOLVER_FIELDS, *_VALIDATION_FIELDS} - {"validation"}
    check_query(query, known)
    plain: dict[str, Any] = {name: value for name, value in query.items() if name not in SOLVER_FIELDS}
    for name in _LISTS:
        if name in plain:
            plain[name] = names_in_query(name, plain[name])
    solver: dict[str, Any] = {name: value for name, value in query.items() if name in SOLVER_FIELDS}
    if solver.get("start", "").isdecimal():
        solver["start"] = {"version": solver["start"]}
    if validation := {name: plain.pop(name) for name in _VALIDATION_FIELDS if name in plain}:
        plain["validation"] = validation
    if solver or "solver" in plain:
        plain["solver"] = {"kind": plain.get("solver", "exact"), **solver}
    try:
        return FileOptions.model_validate(plain, strict=False)  # all are strings here
    except ValidationError as error:
        raise invalid_query(error, known) from None


def query_parameters() -> list[dict[str, Any]]:
    """The query parameters for the OpenAPI document."""
    found = [
        (
            "targets",
            "Columns to predict, separated by commas. Default: the targets of the model's current version.",
        ),
        ("features", FEATURES_TEXT),
        ("schema", SCHEMA_TEXT),
        ("header", HEADER_TEXT),
        ("model", "Gets the new version; created where it does not exist. Default: the default model."),
        ("weight", "Column of weights, at least 0; `weight_kind` says what they mean."),
        ("weight_kind", WEIGHT_KIND_TEXT),
        ("terms", "Columns made from the features, separated by commas, such as `temp,temp^2,temp:rainfall`."),
        ("mode", "`replace`, `update` or `forget`."),
        (
            "decay",
            "With `update`: the factor for the weight of the current version's rows, for each day since that version.",
        ),
        ("trained_in", "With `forget`: the version in which the rows were added, if decay has left a share of them."),
        ("share", "With `forget`, instead of `trained_in`: the share of the rows' weight to take out."),
        ("missing", "`refuse` or `drop` rows in which a value is missing."),
        ("folds", "Folds of a cross-validation."),
        ("fold_seed", "Seed of the random division into folds."),
        ("groups", "Column whose equal values share a fold; not a feature unless it is listed."),
        ("promote", "`always`, `if_better` or `never`."),
        ("unseen", "Whether the current version has seen none of these rows; for `promote=if_better`."),
        ("solver", f"{' or '.join(f'`{kind}`' for kind in SOLVER_OPTIONS)}; its options are parameters next to it."),
        *solver_parameters(),
    ]
    note = " For files; in JSON it stands in the body."
    schemas = {
        **{name: schema for options in SOLVER_OPTIONS.values() for name, schema in in_query(options).items()},
        **in_query(FileOptions),
        **in_query(ValidationOptions),
        "solver": {"type": "string", "enum": list(SOLVER_OPTIONS)},
        "start": {"type": "string", "pattern": "^(random|current|[1-9][0-9]*)$"},
    }
    return [
        {"name": name, "in": "query", "required": False, "schema": schemas[name], "description": text + note}
        for name, text in found
    ]
