"""The JobStore of a web process: jobs as DBOS workflows.

DBOS and SQLAlchemy are imported when the first connection is made, because they take 0.4 s to load.
"""

import contextlib
import errno
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from app.errors import Conflict, Unavailable
from app.jobs import dbos_database as database
from app.jobs.dbos_database import PROGRESS, QUEUE, STARTED, SUMMARY, WORKFLOW
from app.jobs.job import Failure, Job, JobFilter, JobKey, Status
from app.jobs.store import JobRecord, UnfinishedJob
from app.permissions import why_denied, why_unwritable
from app.storage.file_lock import FileLock, identity
from app.training.progress import Progress
from app.training.request import TrainingRequest

if TYPE_CHECKING:
    from dbos import DBOSClient, WorkflowStatus
    from sqlalchemy import Connection, Engine

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


# Time for which a request waits for other requests, of any worker, before it is rejected.
TURN_SECONDS = 5.0
TRAINERS_SECONDS = 3.0  # Age up to which the rows of the trainers are not read again.
ADDING_LOCK = 0x6C696E6A6F6273  # Advisory lock of the web processes that record a job.
# Whether a living trainer has CUDA, and when one was last seen. Trainers renew their rows every 3 seconds.
_TRAINERS = """
    SELECT bool_or(cuda) FILTER (WHERE executor IS NOT NULL AND seen > clock_timestamp() - interval '15 seconds'),
    extract(epoch FROM max(seen)) FROM dbos.linserve_trainers
"""
# The client of DBOS would read them one by one. DBOS documents this table and its columns.
_REPORTS = """
    SELECT workflow_uuid, value, serialization FROM dbos.workflow_events
    WHERE key = :key AND workflow_uuid = ANY(:ids)
"""


@dataclass(frozen=True)
class _Trainers:
    cuda: bool | None
    seen: float | None  # seconds since 1970
    read_at: float


class DBOSStore:
    """Jobs in the database at a URL."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._file = database.database_file(database_url)
        self._client: DBOSClient | None = None
        self._engine: Engine | None = None
        self._connected: tuple[int, int] | None = None  # Identity of the database file that the client has open.
        self._connecting = threading.Lock()
        self._adding = threading.Lock()  # Keeps requests that wait for the lock in Postgres from using all connections.
        self._trainers: _Trainers | None = None

    def connect(self) -> "DBOSClient":
        """Return the DBOS client, and make it if there is none or the database file was replaced."""
        # Not during the turn, because other requests would wait the seconds that this takes on a busy machine.
        from dbos import DBOSClient, DBOSPortableJSONSerializer

        with self._database_errors(), self._turn(self._connecting):
            if self._client is not None and self._present_file() != self._connected:
                # A removed file disappears with this process, and everything written to it.
                _log.error("job database replaced", extra={"database": database.redact_url(self._url)})
                self._client.destroy()
                self._client = None
            if self._client is None:
                database.prepare(self._url)
                self._connected = self._present_file()
                if self._engine is None:
                    self._engine = database.new_engine(self._url, connections=10)
                self._client = DBOSClient(
                    system_database_url=self._url,
                    system_database_engine=None if self._file else self._engine,
                    serializer=DBOSPortableJSONSerializer(),
                    application_name=database.APPLICATION,
                    retry_connection_errors=False,  # the client gets a 503 instead of waiting
                )
            return self._client

    def close(self) -> None:
        """Close the connection. One that another thread is opening ends with the process."""
        if not self._connecting.acquire(blocking=False):  # the other thread may be waiting for a locked database
            return
        try:
            if self._client is not None:
                self._client.destroy()
                self._client = None
            if self._engine is not None:
                self._engine.dispose()
        finally:
            self._connecting.release()

    @contextlib.contextmanager
    def _turn(self, lock: threading.Lock) -> Iterator[None]:
        """Hold the lock. With Postgres, raise TimeoutError if another thread holds it for long."""
        if not lock.acquire(timeout=-1 if self._file else TURN_SECONDS):
            raise TimeoutError(errno.ETIMEDOUT, "Other requests wait for the job database")
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def adding(self, lock: Path) -> Iterator[None]:
        if self._file is not None:
            with FileLock(lock):
                yield
            return
        from sqlalchemy import text

        with contextlib.ExitStack() as held:
            with self._database_errors():
                self.connect()
                assert self._engine is not None
                held.enter_context(self._turn(self._adding))
                connection = self._engine.connect()
                held.callback(_free, connection)
                connection.execute(text(f"SET LOCAL lock_timeout = {round(1000 * TURN_SECONDS)}"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADDING_LOCK})
            yield

    def has_cuda(self) -> bool | None:
        trainers = self._living_trainers()
        return trainers.cuda if trainers else None

    def trainer_seen(self) -> float | None:
        trainers = self._living_trainers()
        return trainers.seen if trainers else None

    def _living_trainers(self) -> "_Trainers | None":
        """Return what the trainers of a database in Postgres stated up to TRAINERS_SECONDS ago."""
        if self._file is not None:
            return None
        if self._trainers is None or time.monotonic() - self._trainers.read_at > TRAINERS_SECONDS:
            from sqlalchemy import text

            with self._database_errors():
                self.connect()
                assert self._engine is not None
                with self._engine.connect() as connection:
                    cuda, seen = connection.execute(text(_TRAINERS)).one()
            self._trainers = _Trainers(cuda, None if seen is None else float(seen), time.monotonic())
        return self._trainers

    def _present_file(self) -> tuple[int, int] | None:
        return identity(self._file) if self._file else None

    def add(self, job_id: str, request: TrainingRequest, position: int) -> None:
        with self._database_errors():
            from dbos import WorkflowSerializationFormat

            client, file = self.connect(), self._connected
            client.enqueue(
                {
                    "workflow_name": WORKFLOW,
                    "queue_name": QUEUE,
                    "queue_partition_key": request.model,
                    "priority": position,  # DBOS orders by the time of the record, which is in seconds
                    "workflow_id": job_id,
                    "app_version": database.APPLICATION_VERSION,
                    "serialization_type": WorkflowSerializationFormat.PORTABLE,
                    "attributes": {name: getattr(request, name) for name in SUMMARY},
                },
                request.to_json(),
            )
            if self._present_file() != file:
                raise FileNotFoundError(errno.ENOENT, "The job database was removed just now")

    def find(self, job_id: str) -> JobRecord | None:
        rows = self._workflows(workflow_ids=[job_id])
        if not rows:
            return None
        summary = self._summary(rows[0])
        return JobRecord(self._job(rows[0], self._reports(rows)), summary["upload"], summary["fingerprint"])

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        rows = self._workflows(workflow_ids=[*job_ids])
        reports = self._reports(rows)
        return {row.workflow_id: self._job(row, reports) for row in rows}

    def progress(self, job_ids: Sequence[str]) -> dict[str, Progress]:
        reports = self._read_reports(job_ids)
        return {job_id: progress for job_id in reports if (progress := _progress(reports[job_id]))}

    def list_jobs(
        self, conditions: JobFilter, *, limit: int, after: JobKey | None = None
    ) -> tuple[list[Job], JobKey | None]:
        names = [name for name, status in _STATUS.items() if conditions.status in (None, status)]
        with self._database_errors():
            self.connect()
            assert self._engine is not None
            keys = database.job_keys(
                self._engine, names, model=conditions.model, since=conditions.since, after=after, limit=limit + 1
            )
        listed = [key.id for key in keys[:limit]]
        found = self._workflows(workflow_ids=listed, status=names) if listed else []
        rows = sorted(found, key=lambda row: listed.index(row.workflow_id))
        return [self._job(row, {}) for row in rows], keys[limit - 1] if len(keys) > limit else None

    def unfinished(self) -> list[UnfinishedJob]:
        names = [name for name, status in _STATUS.items() if not status.ended]
        return [
            UnfinishedJob(row.workflow_id, _STATUS[row.status], self._summary(row)["model"], row.priority or 0)
            for row in self._workflows(status=names, load_output=False)
        ]

    def cancel(self, job_id: str) -> None:
        with self._database_errors():
            client = self.connect()
            for row in self._workflows(workflow_ids=[job_id]):  # none if the record was pruned
                if row.dequeued_at is not None and row.attributes and not _STATUS[row.status].ended:
                    # DBOS forgets the start of a cancelled job.
                    client.update_workflow_attributes(job_id, {STARTED: row.dequeued_at}, merge=True)
            cancelled = database.cancel(self._url, job_id)
        if not cancelled:
            raise Conflict("The job is already publishing its version, so it cannot be cancelled.")

    def _workflows(self, **conditions: Any) -> "list[WorkflowStatus]":
        with self._database_errors():
            return self.connect().list_workflows(name=WORKFLOW, load_input=False, **conditions)

    def _summary(self, row: "WorkflowStatus") -> dict[str, str]:
        with self._database_errors():
            return database.request_summary(row, self.connect().list_workflows)

    def _reports(self, rows: "Sequence[WorkflowStatus]") -> dict[str, dict[str, Any]]:
        return self._read_reports([row.workflow_id for row in rows if _STATUS[row.status] != Status.QUEUED])

    def _read_reports(self, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the trainers' last reports, progress and loss curve, by job."""
        if not job_ids:
            return {}
        with self._database_errors():
            self.connect()
            if self._file is not None:
                found = database.reports_in_file(self._file, job_ids)
            else:
                from sqlalchemy import text

                assert self._engine is not None
                with self._engine.connect() as connection:
                    values = {"key": PROGRESS, "ids": [*job_ids]}
                    found = [(*row,) for row in connection.execute(text(_REPORTS), values)]
        return {job_id: database.decode_report(value, serialization) for job_id, value, serialization in found}

    def _job(self, row: "WorkflowStatus", reports: Mapping[str, dict[str, Any]]) -> Job:
        """Return the job of a row, with its times in order: recorded, started, finished.

        In a row of Postgres, the start may be before the record, because the transaction in which a trainer takes a job
        may begin before the one that records it.
        """
        status = _STATUS[row.status]
        if isinstance(row.output, str):  # DBOS returns the text of an output that it does not decode
            status = Status.FAILED
        result: dict[str, Any] = (row.output or {}) if status == Status.SUCCEEDED else {}
        reported = reports.get(row.workflow_id, {})
        curve = reported.get("loss_curve")
        error = _failure(row) if status == Status.FAILED else None
        created: int = row.created_at or 0
        started: int | None = row.dequeued_at or (row.attributes or {}).get(STARTED)
        return Job(
            id=row.workflow_id,
            status=status,
            model=self._summary(row)["model"],
            version=error.version if error else result.get("version"),
            created_at=_time(created),
            started_at=None if started is None else _time(max(created, started)),
            finished_at=None if row.completed_at is None else _time(max(created, started or 0, row.completed_at)),
            progress=_progress(reported),
            loss_curve=tuple((int(epoch), float(loss)) for epoch, loss in curve) if curve else None,
            metrics=result.get("metrics"),
            warnings=tuple(result.get("warnings", ())),
            error=error,
        )

    @contextlib.contextmanager
    def _database_errors(self) -> Iterator[None]:
        """Raise Unavailable, and log the reason, if the database is missing, full or damaged."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            if isinstance(error, OSError):
                denied = why_denied(error)
            else:  # SQLite reports only that it cannot open the file
                denied = why_unwritable(self._file) if self._file else None
            fields = {
                "database": database.redact_url(self._url),
                "reason": denied or database.driver_message(error),
            }
            _log.error("job database out of reach", extra=fields)
            message = denied or "The job database cannot be reached."
            raise Unavailable(f"{message} Predictions continue. Send the training again later.") from None


def _free(connection: "Connection") -> None:
    """Return a connection to its pool, which frees its locks. The server may have closed it."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        connection.close()
    except SQLAlchemyError:
        with contextlib.suppress(SQLAlchemyError):
            connection.invalidate()


def _failure(row: "WorkflowStatus") -> Failure:
    if isinstance(row.output, str) or isinstance(row.error, str):
        return database.NOT_DECODED
    data = getattr(row.error, "data", None)
    if isinstance(data, dict) and "error" in data:
        return msgspec.convert(data, Failure)
    if row.status == "ERROR":
        return Failure("TrainingFailed", "The training failed for an unexpected reason, which is in the trainer's log.")
    return Failure("TrainerCrashed", "The trainer crashed repeatedly while running this job. The job was abandoned.")


def _progress(report: Mapping[str, Any]) -> Progress | None:
    return msgspec.convert(report["progress"], Progress) if "progress" in report else None


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
