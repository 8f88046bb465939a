"""The queue of training jobs as a web process uses it: its limits, its uploads, and requests that are repeated."""

import re
from collections.abc import Sequence
from pathlib import Path

from app.errors import Conflict, DeviceUnavailable, JobNotFound, KeyReused, QueueFull, not_stored
from app.failpoints import failpoint
from app.jobs.host.devices import check_cuda
from app.jobs.job import JOB_ID, PAGE, Job, JobFilter, Page, PageStart, Status, decode_token
from app.jobs.store import JobRecord, JobStore
from app.jobs.wakeup import wake_trainers
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore

LATEST = "latest"  # Accepted instead of the id of the newest job.


class JobQueue:
    """Jobs and their uploads. Its methods wait for the database, so call them off the event loop.

    Raises Unavailable from each of them if the database cannot be reached.
    """

    def __init__(self, store: JobStore, uploads: UploadStore, *, max_queued: int, lock: Path) -> None:
        """All workers of a service share the file `lock`, so that together they keep to `max_queued`.

        Services that share a database in Postgres keep to it together.
        """
        self.uploads = uploads
        self.store = store
        self._max_queued = max_queued
        self._lock = lock

    def check_room(self, job_id: str) -> int:
        """Return the position of a new job, behind every unfinished job.

        Raises QueueFull if `max_queued` jobs wait, unless this one is recorded already.
        """
        unfinished = self.store.unfinished()
        waiting = sum(job.status == Status.QUEUED for job in unfinished)
        if waiting >= self._max_queued and self.store.find(job_id) is None:
            raise QueueFull(
                f"{self._max_queued} training jobs are waiting already, which is the limit. Send the request again "
                "later, or cancel a job that waits."
            )
        return 1 + max((job.position for job in unfinished), default=0)

    def counts(self) -> dict[str, int]:
        """Return the number of queued and of running jobs."""
        statuses = [job.status for job in self.store.unfinished()]
        return {status: statuses.count(status) for status in Status if not status.ended}

    def find_repeated(self, job_id: str, fingerprint: str) -> Job | None:
        """Return the job that is recorded under this id, or None. Raises KeyReused if another request made it."""
        record = self.store.find(job_id)
        if record is not None and record.fingerprint != fingerprint:
            raise KeyReused("This Idempotency-Key was used before, for another request.")
        return None if record is None else record.job

    def submit(self, request: TrainingRequest, job_id: str) -> Job:
        """Record a job. It survives any crash after this returns.

        If a job with this id exists, return it and remove this request's upload. Raises KeyReused if another request
        made it. Raises QueueFull or DeviceUnavailable, and removes the upload, if the queue has filled up meanwhile or
        no trainer has the device.
        """
        try:
            if request.solver.device == "cuda":
                check_cuda(self.store.has_cuda())
            with self.store.adding(self._lock):
                self.store.add(job_id, request, self.check_room(job_id))
        except (QueueFull, DeviceUnavailable):
            self.uploads.remove(request.upload)
            raise
        except OSError as error:
            raise not_stored("The job", error) from error
        wake_trainers(self._lock.parent)
        failpoint("recorded")
        # The upload now belongs to the job, unless another request recorded the job.
        record = self._find(job_id)
        if record.upload != request.upload:
            self.uploads.remove(request.upload)
            self.find_repeated(job_id, request.fingerprint)
        return record.job

    def get(self, job_id: str) -> Job:
        """Return the job with this id, or the newest if the id is `latest`. Raises JobNotFound."""
        return self._find(job_id).job

    def list(self, conditions: JobFilter = JobFilter(), *, limit: int = PAGE, token: str | None = None) -> Page:  # noqa: B008 - frozen
        """Return a page of jobs, newest first, without progress and loss curves. A token continues its list.

        Raises InvalidInput if the token is invalid or belongs to another list.
        """
        start = decode_token(token, conditions)
        jobs, last = self.store.list_jobs(start.filter, limit=limit, after=start.after)
        return Page(list(jobs), PageStart(last, start.filter).token() if last else None)

    def cancel(self, job_id: str) -> Job:
        """Cancel a waiting or running job, and return it. A job that has ended stays as it is.

        Raises JobNotFound, and Conflict if the job already publishes its version.
        """
        record = self._find(job_id)
        if record.job.status.ended:
            return record.job
        self.store.cancel(record.job.id)
        if record.job.status == Status.QUEUED:  # the trainer removes the upload of a running job
            self.uploads.remove(record.upload)
        return self._find(record.job.id).job

    def cancel_all(self, model: str) -> Sequence[str]:
        """Cancel the waiting and running jobs of a model. Return the ids of jobs that already publish."""
        publishing = []
        for job in self.store.unfinished():
            if job.model == model:
                try:
                    self.cancel(job.id)
                except Conflict:
                    publishing.append(job.id)
        return publishing

    def _find(self, job_id: str) -> JobRecord:
        if job_id == LATEST:
            newest, _ = self.store.list_jobs(JobFilter(), limit=1)
            if not newest:
                raise JobNotFound("There is no job yet.")
            job_id = newest[0].id
        record = self.store.find(job_id) if re.fullmatch(JOB_ID, job_id) else None
        if record is None:
            raise JobNotFound("There is no such job. The answer to POST /train has its id; GET /jobs lists those kept.")
        return record
