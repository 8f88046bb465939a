"""A training job, as anyone may see it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.errors import FieldError


class Status(StrEnum):
    """A job ends in exactly one of the last three."""

    QUEUED = "queued"  # recorded; no trainer has taken it
    RUNNING = "running"  # a trainer works on it, or did when it was killed and will again
    SUCCEEDED = "succeeded"  # its version is published, and promoted if that was wanted
    FAILED = "failed"  # `error` says why; no version was published, unless `version` names one
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True)
class Progress:
    """How far a job is. What does not apply is None."""

    phase: str = "reading"  # then fitting, then publishing
    rows: int = 0
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None


@dataclass(frozen=True)
class Failure:
    """Why a job failed: the name of an error in `app.errors`, its message and its places."""

    error: str
    message: str
    details: tuple[FieldError, ...] = ()
    version: int | None = None  # published all the same, where it was the promotion that failed


@dataclass(frozen=True)
class Job:
    """A frozen value: what the record said when it was asked."""

    id: str
    status: Status
    model: str
    version: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: Progress | None
    loss_curve: tuple[tuple[int, float], ...] | None  # (epoch, loss), at most 500; None where nothing descends
    metrics: dict[str, Any] | None
    warnings: tuple[str, ...]
    error: Failure | None
