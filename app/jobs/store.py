"""The durable records of jobs, as the queue and the worker use them.

Web processes use a JobStore, and the trainer uses a WorkerStore of the same database.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from app.jobs.job import Job, Status
from app.jobs.job_list import JobFilter
from app.training.progress import Progress
from app.training.request import TrainingRequest

FileIdentity: TypeAlias = tuple[int, int] | None  # see app.storage.file_lock.identity


@dataclass(frozen=True)
class JobRecord:
    """A job, the name of its upload, and the fingerprint of its request."""

    job: Job
    upload: str
    fingerprint: str


@dataclass(frozen=True)
class UnfinishedJob:
    """A job that waits or runs. Jobs start in the order of their positions."""

    id: str
    status: Status
    model: str
    position: int


@dataclass(frozen=True)
class JobUpload:
    """A recorded job, and the name of the upload that it needs until it ends."""

    id: str
    upload: str
    ended: bool


class JobStore(Protocol):
    """Durable records of jobs. Each method waits for the database, and raises Unavailable if that fails."""

    def connect(self) -> object:
        """Connect to the database, and create it if it does not exist."""

    def close(self) -> None:
        """Close the connection."""

    def add(self, job_id: str, request: TrainingRequest, position: int) -> None:
        """Record a job durably, unless one with this id is recorded already."""

    def find(self, job_id: str) -> JobRecord | None:
        """Return the record of a job, or None."""

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Return the jobs that exist, by id."""

    def list_jobs(self, conditions: JobFilter, *, end: datetime, limit: int, offset: int) -> Sequence[Job]:
        """Return the jobs recorded until `end`, newest first, without progress and loss curves."""

    def unfinished(self) -> Sequence[UnfinishedJob]:
        """Return the jobs that wait or run."""

    def cancel(self, job_id: str) -> None:
        """Cancel a job, unless it has ended. Raises Conflict if it already publishes its version."""


class JobHandler(Protocol):
    """Code that a WorkerStore calls with the recorded request of a job."""

    def run_job(self, job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        """Run a job, and return its result: version, metrics and warnings.

        Raises JobFailed to end the job as failed, and JobCancelled if it was cancelled.
        """

    def promote(self, job_id: str, request: dict[str, Any], version: int) -> None:
        """Promote a version that an earlier release published. Raises JobFailed."""

    def clean_up(self, job_id: str, request: dict[str, Any]) -> None:
        """Remove the files of a job that has ended."""


class WorkerStore(Protocol):
    """The trainer's connection to the records of jobs."""

    def open(self, handler: JobHandler) -> None:
        """Connect to the database, and take up the jobs that this trainer ran when it ended.

        Raises Unavailable if the database cannot be reached.
        """

    def files(self) -> Mapping[Path, FileIdentity]:
        """Return the files of the database on this machine, with their identities when the store was opened."""

    def keep_polling(self) -> None:
        """Start the thread that takes new jobs, unless it runs."""

    def report(self, progress: Progress, loss_curve: Sequence[tuple[int, float]]) -> None:
        """Record the progress of the job that this thread runs. Raises JobCancelled if the job is not its own now."""

    def is_cancelled(self, job_id: str) -> bool:
        """Return True if the job was cancelled or its record removed."""

    def take_over(self, lock_of: Callable[[str], Path]) -> None:
        """Queue the running jobs of dead trainers again. `lock_of` names the file that a trainer locks while alive."""

    def prune(self, max_ended: int) -> None:
        """Remove the records of the oldest ended jobs, except `max_ended`."""

    def uploads(self) -> Sequence[JobUpload]:
        """Return the uploads of all recorded jobs."""
