"""Requests and responses of /models/{model}/traffic."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from app.web.schemas.openapi_schema import Schema


class TrafficTarget(Schema):
    """Percentages of the clients by version, which sum to 100, and a shadow version. Without percentages: 100 for the
    current.

    A shadow is a version that predicts too. Its predictions are never returned.
    """

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, Annotated[int, Field(ge=0, le=100)]]

    shadow: int | None = Field(None, ge=1)
    """Version that also predicts. Its differences from the returned predictions are summarised."""


class AnsweredView(Schema):
    requests: int
    rows: int


class DifferencesView(Schema):
    """The shadow's predictions minus the returned ones."""

    count: int
    mean: float | None
    mean_absolute: float | None
    largest: float | None
    """The largest absolute difference."""


class ShadowView(Schema):
    version: int
    compared_rows: int
    failed_rows: int
    """Rows for which the shadow has no prediction, for example because a value is missing."""
    skipped_rows: int
    """Rows that the shadow did not predict for, because there were too many."""
    targets: dict[str, DifferencesView]
    """Differences by target, for the targets that both versions have. null if there are no rows yet."""


class ColumnDifferenceView(Schema):
    column: str
    detail: str
    """Why the version rejects or misreads rows with or without this column."""


class TrafficView(Schema):
    model: str
    current: int | None
    shares: dict[str, int]
    """Percentages by version. Without a split: 100 for the current version."""
    set_at: str | None
    """Time at which the split was set. Requests are counted from this time on. null without a split."""
    answered: dict[str, AnsweredView]
    """Requests and rows by version that answered them, over all workers. Without a split: none."""
    shadow: ShadowView | None
    column_differences: dict[str, list[ColumnDifferenceView]]
    """Columns because of which a version with a share rejects or misreads rows that the current version accepts, by
    version. At most 20 for each. Empty unless the split was set with `force` or by an earlier release."""


EXAMPLES: dict[str, Any] = {"All clients get version 1": {"1": 100}}
