"""A job in responses."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field

from app.jobs.job import Job, Status
from app.web.problems import problem_from_error
from app.web.schemas.openapi_schema import DocumentedAs, Schema
from app.web.schemas.problems import Problem


class ProgressView(Schema):
    phase: Literal["reading", "fitting", "diagnosing", "publishing"]
    rows: int
    epoch: int | None
    epochs: int | None
    loss: float | None
    fragments: int | None
    """Parts of the files of a `source` that are summarised; null for uploaded rows."""
    fragments_total: int | None
    learning_rate: float | None
    """Learning rate of a gradient descent; null for other solvers."""
    largest_learning_rate: float | None
    """The bound below which full batches of these rows cannot diverge, from which the learning rate may be chosen."""


# Documented as an array of two numbers, because client generators disagree about tuples.
LossPoint: TypeAlias = Annotated[
    tuple[int, float], DocumentedAs(Annotated[list[float], Field(min_length=2, max_length=2)])
]


class JobView(Schema):
    """A training job. It ends as exactly one of succeeded, failed and cancelled."""

    id: str
    status: Status
    model: str
    version: int | None
    """The version that it published."""
    created_at: datetime
    started_at: datetime | None
    """When a trainer last started it. Kept if the job is cancelled."""
    finished_at: datetime | None
    progress: ProgressView | None
    loss_curve: list[LossPoint] | None
    """[epoch, loss], at most 500; epoch 0 is before the first step. The loss is the mean squared error of the rows
    trained on, plus the penalty of the solver's `weight_decay`. `metrics.mse` is without the penalty. Not in lists."""
    metrics: dict[str, Any] | None = Field(
        examples=[{"apples": {"r2": 0.999, "rmse": 1.0}, "oranges": {"r2": 0.999, "rmse": 0.9}, "mse": 0.909}]
    )
    warnings: list[str]
    """Warnings about the result, and the reason if the version was not promoted as requested."""
    error: Problem | None
    """The reason if it failed."""


class JobList(BaseModel):
    items: list[JobView]
    next: str | None = Field(description="The `next` of the next page; null on the last.")


def job_to_view(job: Job) -> dict[str, Any]:
    """Return the job in the form of JobView."""
    view = asdict(job)
    if job.error is not None:
        view["error"] = problem_from_error(job.error.error, job.error.message, job.error.details)
        view["error"].pop("request_id", None)  # the job did not fail in the request that reads it
    return view
