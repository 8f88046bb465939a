"""Requests and responses of /models/{model}/actuals."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from app.data.prediction_ids import PREDICTION_ID
from app.web.schemas.openapi_schema import DocumentedAs, NamedRow, Schema
from app.web.schemas.reading import KnownTextOptions

ActualRows = Annotated[list[Any], DocumentedAs(Annotated[list[NamedRow], Field(min_length=1)])]


class ActualsRequest(Schema):
    """Outcomes: objects with a `prediction_id` and the targets that are known."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    actuals: ActualRows = Field(min_length=1)
    """A target that is null or missing is not known yet and may come later."""
    replace: bool = False
    """Replace values that are known already. Without it, the first value stays, and the response names the ids."""


class ActualsParameters(KnownTextOptions):
    """Options in the query, for outcomes in a table."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)

    replace: bool = False
    """Replace values that are known already. Without it, the first value stays, and the response names the ids."""
    prediction_id: str = PREDICTION_ID
    """Column with the ids of the predictions."""


class NamedIds(Schema):
    """Rows, with the ids of the first."""

    rows: int
    prediction_ids: list[str]
    """At most 20."""


class ActualsResult(Schema):
    """Numbers of rows by result. Each row is in one count, and rows in `different` may be in another one too."""

    model: str
    rows: int
    matched: int
    """Rows with a value that was not known before. The errors include it now."""
    repeated: int
    """Rows whose values were all known already. They are not counted twice."""
    replaced: int
    """With `replace`: rows without a new value, in which a known value was replaced by another one."""
    different: NamedIds
    """Rows with a value that differs from the known one. The known one stays."""
    unknown: NamedIds
    """Rows whose id is not that of a recorded prediction of this model."""
    without_values: int
    """Rows in which no target is known yet."""
    versions: dict[str, int]
    """Matched rows by the version that made the prediction."""


class TargetErrorView(Schema):
    """Errors of the predictions of one target. An error is the prediction made at the time minus the outcome."""

    rows: int
    rmse: float | None
    """Root of the mean squared error. null without rows, and if an error is above 1e144."""
    mae: float | None
    """Mean absolute error."""
    bias: float | None
    """Mean error: positive if the predictions are too high."""
    interval_rows: int
    """Rows whose predictions had an interval."""
    interval_coverage: float | None
    """Share of these rows whose interval contains the outcome."""


class RollingErrorView(Schema):
    """Predictions that one version made in the window."""

    version: int
    recorded: int
    matched: int
    """Predictions with an outcome of at least one target."""
    waiting: int
    """Predictions without an outcome that are still recorded."""
    targets: dict[str, TargetErrorView]


class ActualsUsage(Schema):
    """The recorded predictions of all models."""

    days: float
    """Days for which a prediction waits for its outcome."""
    bytes: int
    max_bytes: int
    recorded: int
    matched: int
    waiting: int
    removed: int
    """Predictions that were removed before an outcome came, because they were too old or the space was needed."""


class ActualsView(Schema):
    """Errors of predictions with known outcomes."""

    model: str
    window_seconds: float
    """Length of the window of prediction times. Its beginning is rounded down to a full hour."""
    level: float
    """Level of the intervals."""
    versions: list[RollingErrorView]
    usage: ActualsUsage


EXAMPLES: dict[str, Any] = {
    "The outcome of a prediction": {"actuals": [{"prediction_id": "field-17", "apples": 57, "oranges": 69}]},
    "A target that is not known yet": {"actuals": [{"prediction_id": "field-17", "apples": 57, "oranges": None}]},
}

CSV_EXAMPLE = "prediction_id,apples,oranges\nfield-17,57,69\nfield-18,81,\n"
