"""A training job as every reader sees it, and pages of a list of jobs."""

import base64
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app.errors import FieldError, InvalidInput
from app.registry.names import MODEL_NAME
from app.training.progress import Progress

JOB_ID = r"[0-9a-f-]{36}"
PAGE = 50  # Jobs on a page, unless the caller gives a limit.
MAX_TOKEN = 500  # Characters of a token that are decoded.


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


@dataclass(frozen=True)
class JobFilter:
    """Conditions that all jobs of a list meet."""

    status: Status | None = None
    model: Annotated[str, Meta(pattern=rf"^{MODEL_NAME}\Z")] | None = None
    since: Annotated[datetime, Meta(tz=True)] | None = None  # recorded at this time or later


@dataclass(frozen=True)
class Page:
    """A page of jobs, newest first, and the token of the next page."""

    jobs: list[Job]
    next: str | None


class JobKey(msgspec.Struct, array_like=True, frozen=True):
    """The place of a job in the order of all jobs. It stays valid after the job's record is removed."""

    created_at: Annotated[int, Meta(ge=0, le=2**63 - 1)]  # milliseconds since 1970
    number: Annotated[int, Meta(ge=0, le=2**63 - 1)]  # the job's rowid in SQLite, its position in Postgres
    id: Annotated[str, Meta(pattern=rf"^{JOB_ID}\Z")]


class PageStart(msgspec.Struct, array_like=True, frozen=True):
    """The job after which a page begins. Jobs that are recorded, end or are removed meanwhile do not shift the page."""

    after: JobKey | None
    filter: JobFilter

    def token(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


def decode_token(token: str | None, conditions: JobFilter) -> PageStart:
    """Return the start of the token's page, or of the first page.

    Raises InvalidInput if the token is invalid, or belongs to a list with another filter.
    """
    if token is None:
        return PageStart(None, conditions)
    try:
        start = msgspec.json.decode(base64.urlsafe_b64decode(token[:MAX_TOKEN].encode()), type=PageStart)
    except (msgspec.MsgspecError, ValueError):
        raise InvalidInput.of_parameter("next", "The token is invalid. Send the `next` of the previous page.") from None
    if conditions not in (JobFilter(), start.filter):
        raise InvalidInput.of_parameter(
            "next", "The token belongs to a list with another filter. Repeat the parameters of the previous page."
        )
    return start
