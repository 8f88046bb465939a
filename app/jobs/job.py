"""A training job, as every reader sees it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from app.errors import FieldError
from app.training.progress import Progress


class Status(StrEnum):
    """A job ends in exactly one of the last three."""

    QUEUED = "queued"  # recorded; no trainer has taken it
    RUNNING = "running"  # a trainer runs it, or was killed while running it and will run it again
    SUCCEEDED = "succeeded"  # its version is published, and promoted if requested
    FAILED = "failed"  # `error` gives the reason; no version was published, unless `version` names one
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True)
class Failure:
    """Why a job failed: the name of an error in `app.errors`, its message and its places."""

    error: str
    message: str
    details: tuple[FieldError, ...] = ()
    version: int | None = None  # published although the job failed, because only the promotion failed


class JobFailed(Exception):
    """Raised to end a job as failed. `data` is recorded as the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.data = msgspec.to_builtins(failure)


@dataclass(frozen=True)
class Job:
    """A job as its record was when it was read."""

    id: str
    status: Status
    model: str
    version: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: Progress | None
    loss_curve: tuple[tuple[int, float], ...] | None  # (epoch, loss), at most 500; None for the exact solver
    metrics: dict[str, Any] | None
    warnings: tuple[str, ...]
    error: Failure | None
