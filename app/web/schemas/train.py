"""The options of POST /train, in a JSON body or as query parameters, checked before a job is recorded."""

import json
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
from starlette.datastructures import QueryParams

from app.data.batch import Header
from app.data.names import MAX_NAME_LENGTH, MAX_NAMES
from app.registry.names import MODEL_NAME
from app.regression.solvers import Exact, GradientDescent, Solver, Start
from app.regression.sufficient_statistics import WeightKind
from app.training.request import Inherited
from app.web.problems import invalid_query
from app.web.query import Rows, check_query, query_schemas, split_names
from app.web.schemas.openapi_schema import DocumentedAs

MAX_EPOCHS = 100_000_000
MAX_ROWS = 2**53 - 1  # JSON carries integers so far


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _without_default(schema: dict[str, Any]) -> None:
    """Drop the default from the OpenAPI document.

    A client that sent it would override the current version's value. Generators do not understand it for a union.
    """
    schema.pop("default", None)


class _OptionsOfOneKind(Options):
    @model_validator(mode="wrap")
    @classmethod
    def _name_the_kind_of_other_options(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(values)
        except ValidationError as error:
            lines = [cls._explained(line) for line in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(error.title, lines) from None

    @classmethod
    def _explained(cls, line: ErrorDetails) -> InitErrorDetails:
        """Return the error again. An option of another kind is named with its kind."""
        found = InitErrorDetails(type=line["type"], loc=line["loc"], input=line["input"], ctx=line.get("ctx", {}))
        name = line["loc"][-1] if line["type"] == "extra_forbidden" else None
        owner = next((kind for kind, options in SOLVER_KINDS.items() if name in options.model_fields), None)
        if owner is not None:
            (chosen,) = (kind for kind, options in SOLVER_KINDS.items() if options is cls)
            words = {"option": name, "owner": owner, "chosen": chosen}
            found["type"] = PydanticCustomError("option_of_another_kind", _OPTION_OF_ANOTHER_KIND, words)
        return found


_OPTION_OF_ANOTHER_KIND = (
    "`{option}` is an option of the solver {owner}, and this solver is {chosen}. Choose {owner} "
    '(in JSON `"kind": "{owner}"`, in a query `solver={owner}`), or leave `{option}` out.'
)


class ExactOptions(_OptionsOfOneKind):
    """The least-squares optimum, at once. A solver without a `kind` is of this kind."""

    kind: Literal["exact"] = Field("exact", description="May be left out.")
    l2: Annotated[
        Annotated[Literal["auto"], Tag("word")] | Annotated[float, Field(ge=0), Tag("number")],
        Discriminator(lambda value: "word" if value == "auto" else "number"),
    ] = Field(
        0.0,
        description="Ridge penalty on standardised columns; the intercept is free. `auto` tries 34 penalties and keeps "
        "the one with the smallest cross-validated error. "
        "Default: 0; for an update or a forget, the current version's penalty.",
        json_schema_extra=_without_default,
    )
    fit_intercept: bool = Field(
        True,
        description="Default: true; for an update or a forget, as in the current version.",
        json_schema_extra=_without_default,
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where rows are summarised: `cuda` for wide ones.")

    def solver(self) -> Solver:
        return Exact(l2=0.0 if self.l2 == "auto" else self.l2, fit_intercept=self.fit_intercept, device=self.device)


class StartOptions(Options):
    """A version of the model, or weights and intercept."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "maxProperties": 2,
            "dependentRequired": {"weights": ["intercept"], "intercept": ["weights"]},
        }
    )

    version: int | None = Field(None, ge=1)
    weights: list[list[float]] | None = Field(None, description="A row for each target.")
    intercept: list[float] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        given = (self.version is not None, self.weights is not None, self.intercept is not None)
        if given not in ((True, False, False), (False, True, True)):
            raise ValueError("Give either a version, or weights and intercept")
        return self


class GradientDescentOptions(_OptionsOfOneKind):
    """Steps down the gradient of the mean squared error.

    Full batches diverge only with a learning rate above a bound that follows from the rows. A run above it fails if it
    ends with a larger loss than it began with; otherwise it succeeds with a warning that names the bound. Mini-batches
    have diverged if they end above 10 times the larger of the first loss and the loss of the best constant.
    """

    kind: Literal["gradient_descent"] = Field(description="Needed: without a `kind`, the solver is exact.")
    epochs: int = Field(100, ge=1, le=MAX_EPOCHS)
    learning_rate: float = Field(1e-5, gt=0)
    batch_size: int | None = Field(None, ge=1, le=MAX_ROWS, description="null: all rows.")
    shuffle: bool = True
    seed: int = Field(0, ge=0, lt=2**31)
    start: Annotated[
        Annotated[Literal["random", "current"], Tag("word")] | Annotated[StartOptions, Tag("object")],
        Discriminator(lambda value: "word" if isinstance(value, str) else "object"),
    ] = Field(
        "random",
        description="`current` starts from the version that is current when the job starts. If another version "
        "is promoted while the descent runs, the new version is published and not promoted, and a warning says so. "
        "Default: random.",
        json_schema_extra=_without_default,
    )
    momentum: float = Field(0, ge=0, lt=1)
    weight_decay: float = Field(
        0,
        ge=0,
        description="As in torch.optim.SGD: weight_decay / 2 * (sum of squared coefficients and intercepts) is part of "
        "the loss that is descended and reported. With `standardize`, these are those of the standardised features.",
    )
    standardize: bool = Field(
        False,
        description="Descend on (feature - mean) / standard deviation. The weight of a constant feature changes no "
        "prediction of the rows: it is 0 after a random start, and otherwise only `weight_decay` moves it.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=MAX_EPOCHS,
        description="Stop after this number of epochs without a lower loss, and keep the coefficients of the lowest. "
        "The loss is the mean squared error of the held-out rows, or without `validation_fraction` the loss of the "
        "curve.",
    )
    validation_fraction: float = Field(
        0,
        ge=0,
        lt=1,
        description="Fraction of the rows that patience watches, not trained on. The number of rows is rounded to the "
        "nearest; none gives a warning, and all of them fail the job.",
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def solver(self) -> Solver:
        """Return the recorded form. `current` is resolved only when the job starts."""
        start: Literal["random", "current"] | Start
        start = Start(**self.start.model_dump()) if isinstance(self.start, StartOptions) else self.start
        fields = self.model_dump(exclude={"kind", "start"})
        return GradientDescent(**fields, start=start)


SOLVER_KINDS: dict[str, type[Options]] = {"exact": ExactOptions, "gradient_descent": GradientDescentOptions}


def _kind(solver: Any) -> str | None:
    """Return the kind of solver that is asked for: exact, unless a kind is given."""
    kind = solver.get("kind", "exact") if isinstance(solver, dict) else getattr(solver, "kind", None)
    return kind if isinstance(kind, str) else None


SolverOptions: TypeAlias = Annotated[
    Annotated[ExactOptions, Tag("exact")] | Annotated[GradientDescentOptions, Tag("gradient_descent")],
    Discriminator(
        _kind,
        custom_error_type="solver_kind",
        custom_error_message=f"Expected one of {', '.join(map(json.dumps, SOLVER_KINDS))} as `kind` of an object, "
        'such as {"kind": "exact"}. Without `kind` it is exact.',
    ),
]


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
    solver: SolverOptions = Field(
        ExactOptions(),
        description="How the coefficients are found. Default: exact, with the default options.",
        json_schema_extra=_without_default,
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
        if self.mode != "replace" and not isinstance(self.solver, ExactOptions):
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
    def inherits(self) -> tuple[Inherited, ...]:
        """The options of the solver that the version to build on gives, because the request does not."""
        if self.mode == "replace":
            return ()
        return tuple(name for name in get_args(Inherited) if name not in self.solver.model_fields_set)

    def _can_be_validated(self) -> None:
        if self.solver.kind != "exact":
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
        return isinstance(self.solver, ExactOptions) and self.solver.l2 == "auto"

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


_SOLVER_FIELDS = {*ExactOptions.model_fields, *GradientDescentOptions.model_fields} - {"kind"}
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
    known = {*fields, *_SOLVER_FIELDS, *_VALIDATION_FIELDS} - {"validation"}
    check_query(query, known)
    plain: dict[str, Any] = {name: value for name, value in query.items() if name not in _SOLVER_FIELDS}
    for name in _LISTS:
        if name in plain:
            plain[name] = split_names(name, plain[name])
    solver: dict[str, Any] = {name: value for name, value in query.items() if name in _SOLVER_FIELDS}
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


_DESCENT_FIELDS = [name for name in GradientDescentOptions.model_fields if name not in ("kind", "device")]


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
        ("solver", "`exact` or `gradient_descent`; its options are parameters beside it."),
        *(
            (name, "Option of the exact solver. For an update or a forget, the default is the current version's.")
            for name in ("l2", "fit_intercept")
        ),
        ("device", "Where rows are summarised or descended: `cpu`, `cuda` or, for gradient descent, `auto`."),
        *((name, "Option of gradient descent.") for name in _DESCENT_FIELDS),
    ]
    note = " For files; in JSON it stands in the body."
    schemas = {
        **query_schemas(ExactOptions),
        **query_schemas(GradientDescentOptions),
        **query_schemas(FileOptions),
        **query_schemas(ValidationOptions),
        "solver": {"type": "string", "enum": ["exact", "gradient_descent"]},
        "start": {"type": "string", "pattern": "^(random|current|[1-9][0-9]*)$"},
    }
    return [
        {"name": name, "in": "query", "required": False, "schema": schemas[name], "description": text + note}
        for name, text in found
    ]
