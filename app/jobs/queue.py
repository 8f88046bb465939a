"""The web's side of the queue: record jobs, read them, cancel them."""

import contextlib
import errno
import logging
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from app.errors import Conflict, JobNotFound, KeyReused, QueueFull, Unavailable
from app.failpoints import failpoint
from app.jobs.database import (
    APPLICATION_VERSION,
    NOT_DECODED,
    PROGRESS,
    QUEUE,
    STARTED,
    SUMMARY,
    UNFINISHED,
    WORKFLOW,
    NotDecoded,
    file_of,
    ids_in_file,
    prepare,
    reason,
    redact_url,
    summary,
)
from app.jobs.job import Failure, Job, Progress, Status
from app.jobs.job_list import PAGE, JobFilter, Page, position
from app.jobs.uploads import UploadStore
from app.jobs.wakeup import wake_trainers
from app.permissions import why_denied, why_unwritable
from app.storage.file_lock import FileLock, identity
from app.training.request import TrainingRequest

if TYPE_CHECKING:
    from dbos import DBOSClient, WorkflowStatus

JOB_ID = r"[0-9a-f-]{36}"
PUBLISHING = "publishing"  # the phase in which a job is not cancelled any more
LATEST = "latest"  # in place of an id: the newest job

_log = logging.getLogger(__name__)

_STATUS = {
    "DELAYED": Status.QUEUED,
    "ENQUEUED": Status.QUEUED,
    "PENDING": Status.RUNNING,
    "SUCCESS": Status.SUCCEEDED,
    "ERROR": Status.FAILED,
    "CANCELLED": Status.CANCELLED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": Status.FAILED,
}


class JobQueue:
    """Jobs as durable records. Its methods wait for the database: call them off the event loop."""

    def __init__(self, database_url: str, spool: UploadStore, *, max_queued: int, lock: Path) -> None:
        """All workers of a service share the file `lock`, so that together they let in no more jobs than may wait."""
        self.spool = spool
        self._url = database_url
        self._max_queued = max_queued
        self._lock = lock
        self._client: DBOSClient | None = None
        self._file: tuple[int, int] | None = None  # that the client is connected to, of a database that is one
        self._connecting = threading.Lock()

    def connect(self) -> "DBOSClient":
        """The DBOS client, made when first asked for: DBOS takes 0.4 s to import, more than all the rest.

        Raises Unavailable, and says so in the log.
        """
        with self._connecting, self._reaching():
            if self._client is not None and self._present_file() != self._file:
                # What is written to a removed file is gone with the process.
                _log.error("job database replaced", extra={"database": redact_url(self._url)})
                self._client.destroy()
                self._client = None
            if self._client is None:
                from dbos import DBOSClient, DBOSPortableJSONSerializer

                prepare(self._url)
                self._file = self._present_file()
                self._client = DBOSClient(
                    system_database_url=self._url,
                    serializer=DBOSPortableJSONSerializer(),
                    application_name="linserve",
                    retry_connection_errors=False,  # a caller is told, not kept waiting
                )
            return self._client

    def close(self) -> None:
        """Close the connection. One that another thread is making is left to end with the process."""
        if not self._connecting.acquire(blocking=False):  # it may be waiting for a locked database
            return
        try:
            if self._client is not None:
                self._client.destroy()
                self._client = None
        finally:
            self._connecting.release()

    def _present_file(self) -> tuple[int, int] | None:
        path = file_of(self._url)
        return identity(path) if path else None

    def check_room(self, job_id: str) -> int:
        """Return a job's place in the queue, behind all that wait or run.

        Raises QueueFull where as many jobs wait as may, unless this one is recorded already.
        """
        with self._reaching():
            found = self.connect().list_queued_workflows(
                queue_name=QUEUE, status=UNFINISHED, load_input=False, load_output=False
            )
        waiting = [job for job in found if job.status == "ENQUEUED"]
        if len(waiting) >= self._max_queued and self._find(job_id) is None:
            raise QueueFull(
                f"{self._max_queued} training jobs are waiting already, which is the limit. Send the request again "
                "later, or cancel a job that waits."
            )
        return 1 + max((job.priority or 0 for job in found), default=0)

    def counts(self) -> dict[str, int]:
        """How many jobs are queued, and how many are running. Raises Unavailable."""
        unfinished = [name for name, meaning in _STATUS.items() if not meaning.ended]
        with self._reaching():
            found = self.connect().list_workflows(name=WORKFLOW, status=unfinished, load_input=False, load_output=False)
        statuses = [_STATUS[one.status] for one in found]
        return {status: statuses.count(status) for status in Status if not status.ended}

    def repeated(self, job_id: str, fingerprint: str) -> Job | None:
        """The job recorded under this id before, if one was. Raises KeyReused where it is another request's."""
        status = self._find(job_id)
        if status is None:
            return None
        if self._summary(status)["fingerprint"] != fingerprint:
            raise KeyReused("This Idempotency-Key was used before, for another request.")
        return self._job(status)

    def submit(self, request: TrainingRequest, job_id: str) -> Job:
        """Record a job. When this returns, the job outlives any crash.

        A job of that id that exists already is returned as it is, and this request's rows are removed; KeyReused
        where it was asked for something else. QueueFull, and the rows are removed, where too many came meanwhile.
        """
        try:
            with self._reaching(), FileLock(self._lock):
                self._record(request, job_id, self.check_room(job_id))
        except QueueFull:
            self.spool.remove(request.upload)
            raise
        wake_trainers(self._lock.parent)
        failpoint("recorded")
        # From here on the rows are the job's. Where its record is another's, they are nobody's.
        status = self._status(job_id)
        if self._summary(status)["upload"] == request.upload:
            return self._job(status)
        self.spool.remove(request.upload)
        found = self.repeated(job_id, request.fingerprint)
        assert found is not None
        return found

    def _record(self, request: TrainingRequest, job_id: str, place: int) -> None:
        from dbos import WorkflowSerializationFormat  # as in `connect`

        client, file = self.connect(), self._file
        client.enqueue(
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "queue_partition_key": request.model,
                "priority": place,  # the time of the record, by which DBOS orders, is in seconds
                "workflow_id": job_id,
                "app_version": APPLICATION_VERSION,
                "serialization_type": WorkflowSerializationFormat.PORTABLE,
                "attributes": {name: getattr(request, name) for name in SUMMARY},
            },
            request.to_json(),
        )
        if self._present_file() != file:
            raise FileNotFoundError(errno.ENOENT, "The job database was removed just now")

    def get(self, job_id: str) -> Job:
        """The job of that id, or the newest if the id is `latest`. Raises JobNotFound."""
        return self._job(self._status(job_id))

    def found(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Those of the jobs that there are, by their ids."""
        with self._reaching():
            found = self.connect().list_workflows(workflow_ids=[*job_ids], name=WORKFLOW, load_input=False)
        return {one.workflow_id: self._job(one) for one in found}

    def list(self, wanted: JobFilter = JobFilter(), *, limit: int = PAGE, token: str | None = None) -> Page:  # noqa: B008 - frozen
        """Return a page of jobs, newest first, without progress and loss curves. A token continues its list.

        Raises InvalidInput if the token is invalid or belongs to another list.
        """
        start = position(token, wanted)
        with self._reaching():
            found = self._listed(start.filter, start.end, limit + 1, start.offset)
        following = start.token(limit) if len(found) > limit else None
        return Page([self._job(one, brief=True) for one in found[:limit]], following)

    def _listed(self, wanted: JobFilter, end: datetime, limit: int, offset: int) -> "Sequence[WorkflowStatus]":
        client = self.connect()
        statuses = [name for name, meaning in _STATUS.items() if wanted.status in (None, meaning)]
        if path := file_of(self._url):
            ids = ids_in_file(
                path,
                model=wanted.model,
                statuses=statuses,
                since=wanted.since,
                until=end,
                limit=limit,
                offset=offset,
            )
            found = client.list_workflows(workflow_ids=ids, name=WORKFLOW, load_input=False) if ids else []
            return sorted(found, key=lambda one: ids.index(one.workflow_id))
        return client.list_workflows(
            name=WORKFLOW,
            status=statuses,
            start_time=None if wanted.since is None else wanted.since.isoformat(),
            end_time=end.isoformat(),
            attributes={"model": wanted.model} if wanted.model is not None else None,
            sort_desc=True,
            limit=limit,
            offset=offset,
            load_input=False,
        )

    def cancel(self, job_id: str) -> Job:
        """Cancel a waiting or running job. A job that has ended stays as it is.

        Raises JobNotFound; Conflict if the job publishes its version: that is not stopped.
        """
        job = self._job(status := self._status(job_id))
        if job.status.ended:
            return job
        if job.progress is not None and job.progress.phase == PUBLISHING:
            raise Conflict("The job is already publishing its version, so it cannot be cancelled.")
        with self._reaching():
            if status.dequeued_at is not None and status.attributes:  # DBOS forgets the first
                started = {STARTED: status.dequeued_at}
                self.connect().update_workflow_attributes(job.id, started, merge=True)
            self.connect().cancel_workflow(job.id)
            # The trainer records that it publishes only while the job is not cancelled, so one of the two is first.
            if self._reported(job.id).get("progress", {}).get("phase") == PUBLISHING:
                self.connect().resume_workflow(job.id, queue_name=QUEUE)  # does nothing to a job that has ended
                if not (ended := self.get(job.id)).status.ended:
                    raise Conflict("The job is already publishing its version, so it cannot be cancelled.")
                return ended
        status = self._status(job.id)
        if job.status == Status.QUEUED:
            self.spool.remove(self._summary(status)["upload"])  # a running one's are removed by the trainer
        return self._job(status)

    def cancel_all(self, model: str) -> Sequence[str]:
        """Cancel the waiting and running jobs of a model. Return the ids of those that publish already."""
        unfinished = [name for name, meaning in _STATUS.items() if not meaning.ended]
        with self._reaching():
            found = self.connect().list_workflows(name=WORKFLOW, status=unfinished, load_input=False, load_output=False)
        publishing = []
        for one in found:
            if self._summary(one)["model"] == model:
                try:
                    self.cancel(one.workflow_id)
                except Conflict:
                    publishing.append(one.workflow_id)
        return publishing

    def _status(self, job_id: str) -> "WorkflowStatus":
        found = self._find(job_id)
        if found is None:
            if job_id == LATEST:
                raise JobNotFound("There is no job yet.")
            raise JobNotFound("There is no such job. The answer to POST /train has its id; GET /jobs lists those kept.")
        return found

    def _find(self, job_id: str) -> "WorkflowStatus | None":
        if job_id != LATEST and not re.fullmatch(JOB_ID, job_id):
            return None
        with self._reaching():
            found = (
                self._listed(JobFilter(), datetime.now(UTC), 1, 0)
                if job_id == LATEST
                else self.connect().list_workflows(workflow_ids=[job_id], name=WORKFLOW, load_input=False)
            )
        return found[0] if found else None

    def _summary(self, status: "WorkflowStatus") -> dict[str, str]:
        with self._reaching():
            return summary(status, self.connect().list_workflows)

    def _reported(self, job_id: str) -> dict[str, Any]:
        """What the trainer reported last: progress and loss curve."""
        with self._reaching(), contextlib.suppress(NotDecoded):
            return self.connect().get_event(job_id, PROGRESS, timeout_seconds=0) or {}
        return {}

    def _job(self, status: "WorkflowStatus", *, brief: bool = False) -> Job:
        meaning = _STATUS[status.status]
        if isinstance(status.output, str):  # DBOS gives the text of what it does not decode
            meaning = Status.FAILED
        result: dict[str, Any] = (status.output or {}) if meaning == Status.SUCCEEDED else {}
        reported = {} if brief or meaning == Status.QUEUED else self._reported(status.workflow_id)
        curve = reported.get("loss_curve")
        error = _failure(status) if meaning == Status.FAILED else None
        return Job(
            id=status.workflow_id,
            status=meaning,
            model=self._summary(status)["model"],
            version=error.version if error else result.get("version"),
            created_at=_time(status.created_at) or datetime.fromtimestamp(0, UTC),
            started_at=_time(status.dequeued_at or (status.attributes or {}).get(STARTED)),
            finished_at=_time(status.completed_at),
            progress=msgspec.convert(reported["progress"], Progress) if "progress" in reported else None,
            loss_curve=tuple((int(epoch), float(loss)) for epoch, loss in curve) if curve else None,
            metrics=result.get("metrics"),
            warnings=tuple(result.get("warnings", ())),
            error=error,
        )

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn what a missing, full or damaged database raises into an error of ours."""
        from sqlalchemy.exc import SQLAlchemyError  # comes with DBOS, as slowly

        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            denied = self._why_denied(error)
            fields = {"database": redact_url(self._url), "reason": denied or reason(error)}
            _log.error("job database out of reach", extra=fields)
            message = denied or "The job database cannot be reached."
            raise Unavailable(f"{message} Predictions continue. Send the training again later.") from None

    def _why_denied(self, error: Exception) -> str | None:
        if isinstance(error, OSError):
            return why_denied(error)
        path = file_of(self._url)
        return why_unwritable(path) if path else None  # SQLite says no more than that it cannot open the file


def _failure(status: "WorkflowStatus") -> Failure:
    if isinstance(status.output, str) or isinstance(status.error, str):
        return NOT_DECODED
    data = getattr(status.error, "data", None)
    if isinstance(data, dict) and "error" in data:
        return msgspec.convert(data, Failure)
    if status.status == "ERROR":
        return Failure("TrainingFailed", "The training failed for a reason that only the trainer's log knows.")
    return Failure("TrainerCrashed", "The trainer crashed repeatedly while running this job. The job was abandoned.")


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
