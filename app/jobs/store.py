"""The durable records of jobs, as the queue of a web process and the handler of a trainer see them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.jobs.job import Job, JobFilter, JobKey, Status
from app.training.progress import Progress
from app.training.request import TrainingRequest


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

    def adding(self, lock: Path) -> AbstractContextManager[None]:
        """Keep all other web processes from recording jobs. Those that share a state folder share the file `lock`.

        Raises OSError if the file cannot be opened.
        """

    def add(self, job_id: str, request: TrainingRequest, position: int) -> None:
        """Record a job durably, unless one with this id is recorded already."""

    def find(self, job_id: str) -> JobRecord | None:
        """Return the record of a job, or None."""

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Return the jobs that exist, by id."""

    def progress(self, job_ids: Sequence[str]) -> dict[str, Progress]:
        """Return how far jobs have come, by id, without those of which no trainer has reported anything."""

    def list_jobs(
        self, conditions: JobFilter, *, limit: int, after: JobKey | None = None
    ) -> tuple[Sequence[Job], JobKey | None]:
        """Return jobs, newest first, without progress and loss curves, and the key of the last one if more follow.

        The list begins after the job with the key `after`. A job that ends or is removed meanwhile may be missing.
        """

    def unfinished(self) -> Sequence[UnfinishedJob]:
        """Return the jobs that wait or run."""

    def has_cuda(self) -> bool | None:
        """Return True if a trainer on any machine has CUDA. None: not known, or the state folder has it."""

    def trainer_seen(self) -> float | None:
        """Return when a trainer was last seen, in seconds since 1970. None: never, or the state folder has it."""

    def cancel(self, job_id: str) -> None:
        """Cancel a job, unless it has ended. Raises Conflict if it already publishes its version."""


class JobHandler(Protocol):
    """Code that the trainer's store calls with the recorded request of a job."""

    def run_job(self, job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        """Run a job, and return its result: version, metrics and warnings.

        Raises JobFailed to end the job as failed, and JobCancelled if it was cancelled.
        """

    def clean_up(self, job_id: str, request: dict[str, Any]) -> None:
        """Remove the files of a job that has ended."""
