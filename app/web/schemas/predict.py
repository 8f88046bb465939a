"""Requests and responses of POST /predict: the options, in a JSON body or in the query, and the results."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from app.data.columns.encoder import Unknown
from app.prediction.query import Missing, PredictionOptions, PredictionQuery
from app.prediction.tables import TableOptions
from app.web.query import NameList, Rows
from app.web.schemas.openapi_schema import DocumentedAs, Row, Schema
from app.web.schemas.reading import KnownTextOptions

MAX_KEPT = 1000  # Columns that pass through to the results.


class SharedOptions(Schema):
    """Options that a body and a query share."""

    interval: float | None = Field(None, gt=0, lt=1)
    """Level of the prediction intervals to add; in a table, the columns `..._lower` and `..._upper`."""
    confidence: float | None = Field(None, gt=0, lt=1)
    """Level of the confidence intervals of the expected value to add; in a table, the columns `..._mean_lower` and
    `..._mean_upper`."""
    missing: Missing | None = None
    """Handling of a row in which a value, or its weight, is missing. `refuse`, the default for JSON: the request is
    rejected with the place of the first such value. `null`, the default for files: the row's results are null, and the
    header `Linserve-Missing-Rows` counts it. A gap is filled if the model was trained with `missing` of `indicator` or
    `fill`."""
    unknown: Unknown | None = None
    """Handling of a level that the model does not know. `refuse` is the default for JSON and `null` for files, with the
    same effects as in `missing`. `reference`: the level is treated as the reference level."""


class PredictOptions(SharedOptions):
    """Options of a JSON body."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    instance_weights: list[Any] | None = Field(
        None, json_schema_extra={"items": {"type": "number", "exclusiveMinimum": 0}}
    )
    """Precision weight of each instance, positive. An interval is then for an observation of this weight and not of the
    mean weight of the training rows. Only with `interval`."""
    missing: Missing = "refuse"
    unknown: Unknown = "refuse"
    prediction_id: Annotated[Any, DocumentedAs(str | list[str] | None)] = None
    """Record the predictions under these ids, to compare them with the outcomes later: one string for one instance, or
    a list with a string for each. Instances that are objects may have a key `prediction_id` instead. An id has 1 to 200
    printable characters. If an id is already recorded with another prediction, the first record stays."""
    explain: bool = False
    """Add the contribution of each feature to each prediction."""
    extrapolation: bool = False
    """Add how far each row is from the training rows."""

    def options(self) -> PredictionOptions:
        """Return what to compute in addition to the predictions."""
        return PredictionOptions(
            self.interval, self.confidence, self.explain, self.extrapolation, self.missing, self.unknown
        )


class PredictRequest(PredictOptions):
    """Rows to predict for, all objects or all arrays (then in the model's feature order).

    A flat list of numbers is one row if the model has several features, and a row for each number if it has one.
    """

    instances: Rows = Field(min_length=1)

    def query(self) -> PredictionQuery:
        """Return what to predict for and what to compute."""
        return PredictionQuery(self.instances, self.options(), self.instance_weights)


class PredictParameters(SharedOptions, KnownTextOptions):
    """Options in the query, for rows or results that are a table."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)

    keep: NameList = Field(
        [],
        max_length=MAX_KEPT,
        description=f"Columns to pass through to the results, separated by commas; at most {MAX_KEPT}. If a target is "
        "kept, the columns of its predictions and bounds begin with `predicted_` and its name. "
        "In CSV, NDJSON and JSON, dates, times and timestamps are written as in RFC 3339: in UTC with a Z, or without "
        "an offset if the column has no time zone.",
    )
    instance_weights: str | None = None
    """Column with the precision weight of each row, positive. Intervals are then for an observation of this weight and
    not of the mean weight of the training rows. Only with `interval`."""

    prediction_id: str | None = None
    """Column with an id for each row, which is copied to the result. The predictions are recorded under these ids, to
    compare them with the outcomes later. The header `Linserve-Recorded` shows whether they were. The limit on rows
    is that of JSON."""

    def options(self, default: Missing) -> TableOptions:
        """Return how to read the table and what to compute. `default` applies to `missing` and `unknown`."""
        prediction = PredictionOptions(
            self.interval, self.confidence, missing=self.missing or default, unknown=self.unknown or default
        )
        ids = [] if self.prediction_id is None or self.prediction_id in self.keep else [self.prediction_id]
        return TableOptions(prediction, [*ids, *self.keep], self.reading(), self.instance_weights)


class Extrapolation(Schema):
    leverage: float | None
    """null if the row is outside the space that the training rows span."""
    outside: list[str]
    """Features, or terms, outside their range in training. `unavailable` has the reason if ranges are not known."""
    flag: bool
    """True if `outside` is not empty, or the leverage exceeds 3 r / n, where r is the rank."""


class PredictResponse(Schema):
    """Objects for objects, arrays (in the model's target order) for arrays; options add a parallel list each."""

    model: str
    version: int
    predictions: list[Row]
    """The predictions and, with `keep`, the kept columns. null for a row in which a value is missing."""
    intervals: list[Any] | None = None
    """For each row an object or an array, as in `predictions`, of [lower, upper] for each target. Both are null if the
    row has no interval."""
    confidence_intervals: list[Any] | None = None
    """The same for the expected value."""
    baseline: dict[str, float] | list[float] | None = None
    """The prediction for the mean of the training rows."""
    contributions: list[dict[str, dict[str, float]] | list[list[float]]] | None = None
    """For each target and feature; with the baseline they sum to the prediction."""
    extrapolation: list[Extrapolation | None] | None = None
    """null for an instance in which a value is missing."""
    recorded: bool | None = None
    """With ids: true if the predictions are on disk, or were recorded earlier under these ids. false if they could not
    be recorded; `unavailable` has the reason."""
    unavailable: dict[str, str] | None = None
    """Requested results that are not available, with the reasons."""


EXAMPLES: dict[str, Any] = {
    "Two rows as objects": {
        "instances": [
            {"temp": 73, "rainfall": 67, "humidity": 43},
            {"temp": 91, "rainfall": 88, "humidity": 64},
        ]
    },
    "A row as an array": {"instances": [[75, 63, 44]]},
    "With intervals, explanation and extrapolation": {
        "instances": [{"temp": 75, "rainfall": 63, "humidity": 44}],
        "interval": 0.95,
        "explain": True,
        "extrapolation": True,
    },
    "With an id, to send the outcome later": {"instances": [[75, 63, 44]], "prediction_id": "field-17"},
}

CSV_EXAMPLE = "temp,rainfall,humidity\n73,67,43\n91,88,64\n"
