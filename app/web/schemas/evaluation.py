"""Requests and responses of POST /models/{model}/evaluate: labelled rows in, metrics out."""

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from app.data.columns.encoder import Unknown
from app.data.names import MAX_NAME_LENGTH
from app.monitoring.evaluations import MAX_EVALUATIONS
from app.prediction.evaluation import MAX_SEGMENTS, EvaluationOptions
from app.prediction.query import Missing, PredictionOptions
from app.prediction.tables import TableOptions
from app.regression.evaluation import EXACT_ROWS
from app.web.query import Rows
from app.web.schemas.openapi_schema import Schema
from app.web.schemas.reading import KnownTextOptions
from app.web.schemas.train import CSV_EXAMPLE
from app.web.schemas.train import EXAMPLES as TRAINING

MAX_VERSIONS = 4  # Versions in one evaluation.


def _numbers(value: Any) -> Any:
    """Return the numbers in a text such as `3,5`. Raises ValueError."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):  # noqa: PLR2004 - digits
        raise ValueError("Expected numbers of versions, separated by commas, as in `3,5`")
    if len(parts) > MAX_VERSIONS:
        raise ValueError(f"Expected at most {MAX_VERSIONS} versions, found {len(parts)}")
    return [int(part) for part in parts]


class EvaluateRequest(Schema):
    """Labelled rows, all objects or all arrays. Objects may have their targets in them."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    instances: Rows = Field(min_length=1)
    targets: Rows | None = Field(None, min_length=1)
    """The targets of each instance, as an object or an array. Default: each instance has them, arrays after the
    features."""


class EvaluateParameters(KnownTextOptions):
    """Options of an evaluation, in the query or in the part `options` of a form."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)

    versions: Annotated[list[int], BeforeValidator(_numbers)] = Field(
        [],
        max_length=MAX_VERSIONS,
        description=f"Numbers of at most {MAX_VERSIONS} versions, separated by commas, as in `3,5`. Each reads the "
        "rows by its own schema. Default: the current version.",
    )
    by: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        description="Column whose values divide the rows into segments with metrics of their own. It need not be a "
        f"feature. Numbers are not grouped: each value is a segment. The {MAX_SEGMENTS} most frequent values are "
        "segments, and all others together are `other`.",
    )
    level: float = Field(0.95, gt=0, lt=1)
    """Level of the prediction intervals whose coverage is measured."""
    weight: str | None = Field(None, min_length=1, max_length=MAX_NAME_LENGTH)
    """Column of weights, at least 0, by which all averages are weighted. A row of weight 0 is left out. If the
    version was trained with precision weights, a row's interval is for an observation of its weight."""
    missing: Missing = "null"
    """`null`: rows in which a value is missing are left out and counted. `refuse`: the first one is an error."""
    unknown: Unknown = "null"
    """The same for levels that the version does not know. `reference`: they count as the reference level."""
    record: bool = False
    """Store the metrics, not the rows. Needs the scope `train`."""

    def options(self) -> EvaluationOptions:
        """Return what to compute, and how to read the rows."""
        prediction = PredictionOptions(missing=self.missing, unknown=self.unknown)
        return EvaluationOptions(TableOptions(prediction, (), self.reading(), self.weight), self.by, self.level)


class MetricsView(Schema):
    """Metrics of one target. Averages are weighted if the rows have weights."""

    rows: int
    """Rows that have all features and this target."""
    rmse: float | None
    """Square root of the mean squared error."""
    mae: float | None
    """Mean absolute error."""
    bias: float | None
    """Mean of prediction minus observation: positive if the predictions are too high."""
    r2: float | None
    """1 minus the mean squared error over the variance of these rows about their own mean. Null if they do not vary."""
    max_absolute_error: float | None
    interval_rows: int
    """Rows that have a prediction interval."""
    interval_coverage: float | None
    """Share of those rows whose observation is inside its interval. It should be near `level`."""
    mean_interval_width: float | None


class DecileView(Schema):
    decile: int
    """From 1 (the lowest predictions) to 10."""
    rows: int
    mean_predicted: float | None
    mean_observed: float | None


class SegmentView(Schema):
    value: str | None
    """Value of the column, at most 100 characters of it; null for rows without one."""
    targets: dict[str, MetricsView]


class OtherSegmentsView(Schema):
    values: int
    """Number of the values."""
    more: bool
    """True if there are more values, which were not counted."""
    targets: dict[str, MetricsView]


class LeftOutView(Schema):
    """Rows that count for no target. A row may have several reasons."""

    rows: int
    gaps: dict[str, int]
    """Rows in which a column has no value, by column. A row that lacks one of several targets counts for the others."""
    unseen: dict[str, int]
    """Rows with a level that the version does not know, by column."""
    zero_weight: int


class VersionEvaluationView(Schema):
    version: int
    rows: int
    left_out: LeftOutView
    targets: dict[str, MetricsView]
    calibration: dict[str, list[DecileView]] = Field(
        description="Mean prediction and mean observation in each tenth of the predictions, by target. Rows with equal "
        "predictions are in the same tenth, so tenths may differ in size, and some may have no rows."
    )
    calibration_is_exact: bool = Field(
        description=f"False if there were more than {EXACT_ROWS} distinct predictions (fewer with more than five "
        "targets). Neighbouring rows were then joined to points, and a row next to a boundary may be in the wrong "
        "tenth."
    )
    segments: list[SegmentView] | None
    """The most frequent first; null without `by`."""
    other: OtherSegmentsView | None
    """All values that are not in `segments`, together; null if there are none."""
    unavailable: dict[str, str]
    """The reason for each metric that is null, by `TARGET.METRIC`."""


class EvaluationView(Schema):
    """Metrics of one or more versions for the same rows."""

    model: str
    by: str | None
    level: float
    weight: str | None
    versions: list[VersionEvaluationView]
    id: str | None = None
    """Id of the recorded evaluation. Missing if it was not recorded."""
    created_at: str | None = None
    """Time of recording."""


class EvaluationList(Schema):
    items: list[EvaluationView] = Field(description=f"The newest first; at most {MAX_EVALUATIONS} are kept.")


BODY_EXAMPLES: dict[str, Any] = {"The notebook's rows": TRAINING["The notebook's rows, exactly"]}
BODY_CSV_EXAMPLE = CSV_EXAMPLE
