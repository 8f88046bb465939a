"""The trainer's connection to the records of jobs: DBOS hands out the jobs, and records how they end."""

import contextlib
import logging
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from dbos import DBOS, DBOSPortableJSONSerializer, Queue, WorkflowStatus
from dbos import error as dbos_errors
from dbos._queue import queue_worker_thread
from sqlalchemy.exc import SQLAlchemyError

from app.errors import Unavailable
from app.jobs import dbos_database as database
from app.jobs import postgres
from app.jobs.dbos_database import APPLICATION_VERSION, PROGRESS, QUEUE, UNFINISHED, WORKFLOW
from app.jobs.job import JobFailed
from app.jobs.lease import TrainerLease, name_of
from app.jobs.store import JobHandler, JobUpload
from app.jobs.wakeup import PollSchedule
from app.storage.file_lock import identity
from app.training.progress import JobCancelled, Points, Progress

# Seconds between two polls if no message of a new job wakes the trainer. It then idles below 2 % of a core.
POLL_SECONDS = 0.8
PRUNE_BATCH = 500
ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]

# The line of a traceback that has the error. The other lines are indented.
_ERROR_LINE = re.compile(r"[\w.]+(Error|Exception|Shutdown|Transaction)\b.*:")

_log = logging.getLogger(__name__)


class DBOSWorkerStore:
    """The jobs in the database at a URL, for the trainer that has the lease. DBOS allows one per process."""

    def __init__(self, database_url: str, trainer_name: str, lease: TrainerLease, state_dir: Path) -> None:
        self._url = database_url
        self._name = trainer_name
        self._lease = lease
        # A job must not fail because the database was slow, so DBOS retries what takes too long.
        is_file = database.database_file(database_url) is not None
        self._engine = None if is_file else postgres.new_engine(database_url, retries_timeouts=True)
        self._state_dir = state_dir
        # The files of the database on this machine, with their identities when it was opened.
        self.files: dict[Path, tuple[int, int] | None] = {}
        self._dbos: DBOS
        self._queue: Queue
        self._schedule: PollSchedule
        self._polling: threading.Thread | None = None
        self._without_thread: set[str] = set()  # own jobs that no thread ran when `take_over` looked

    def open(self, handler: JobHandler) -> None:
        """Connect to the database, and take up the jobs that this trainer ran when it ended.

        Raises Unavailable if the database cannot be reached.
        """
        try:
            self._launch(handler)
        except (SQLAlchemyError, sqlite3.Error, OSError, dbos_errors.DBOSException) as error:
            fields = {"database": database.redact_url(self._url), "reason": database.driver_message(error)}
            _log.critical("job database out of reach", extra=fields)
            raise Unavailable("The job database cannot be reached.") from error

    def _launch(self, handler: JobHandler) -> None:
        database.prepare(self._url)
        database.place_in_partitions(self._url)
        self.files = {path: identity(path) for path in [database.database_file(self._url)] if path}
        self._dbos = DBOS(
            config={
                "name": database.APPLICATION,
                "system_database_url": self._url,
                "system_database_engine": self._engine,
                "executor_id": self._lease.executor,
                "application_version": APPLICATION_VERSION,
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "WARNING",
                "max_executor_threads": 4,
                "notification_listener_polling_interval_sec": 3600.0,  # no code here waits for a notification
            }
        )
        logging.getLogger("dbos").addFilter(_is_unexpected)
        self._schedule = PollSchedule(self._state_dir, self._name)
        self._register(handler)
        DBOS.listen_queues([])  # `keep_polling` replaces DBOS's thread, which cannot be woken between two polls
        DBOS.launch()
        # A partition is a model. Its jobs run one after another, in the order of their positions, on any trainer.
        # A trainer whose next job would have to wait takes a job of another model.
        self._queue = DBOS.register_queue(
            QUEUE,
            worker_concurrency=1,
            partition_concurrency=1,
            polling_interval_sec=POLL_SECONDS,
            on_conflict="always_update",
        )
        _warn_of_other_versions()

    def _register(self, handler: JobHandler) -> None:
        @DBOS.step(name="publish")
        def publish(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
            try:
                return handler.run_job(job_id, request)
            except JobCancelled:
                message = f"job {job_id} was cancelled, or another trainer has it"
                raise dbos_errors.DBOSWorkflowCancelledError(message) from None

        def clean_up_if_cancelled(job_id: str, request: dict[str, Any]) -> None:
            if self.is_cancelled(job_id):
                handler.clean_up(job_id, request)

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=database.MAX_RECOVERIES)
        def run(request: dict[str, Any]) -> dict[str, Any]:
            job_id = DBOS.workflow_id
            assert job_id is not None
            try:
                result = publish(job_id, request)
            except JobFailed:
                handler.clean_up(job_id, request)  # the failure is recorded with the step, so no rerun needs the rows
                raise
            except dbos_errors.DBOSWorkflowCancelledError:
                # The job may have been cancelled before the handler was called. Another thread looks, because DBOS
                # raises this error for every call in a cancelled workflow.
                threading.Timer(0, clean_up_if_cancelled, (job_id, request)).start()
                raise
            finally:
                self._schedule.job_ended()
            handler.clean_up(job_id, request)
            return result

    def keep_polling(self) -> None:
        """Start the thread that takes new jobs, unless it runs."""
        if self._polling is None or not self._polling.is_alive():  # it ends if the queue's record is missing
            arguments = (self._schedule, self._dbos, self._queue)
            self._polling = threading.Thread(target=queue_worker_thread, args=arguments, daemon=True)
            self._polling.start()

    def report(self, progress: Progress, loss_curve: Points) -> None:
        """Record the progress of the job that this thread runs. Raises JobCancelled if the job is not its own now."""
        try:
            DBOS.set_event(PROGRESS, {"progress": msgspec.to_builtins(progress), "loss_curve": loss_curve})
        except dbos_errors.DBOSWorkflowConflictIDError:  # another trainer runs the job, or it was cancelled
            raise JobCancelled from None

    def is_cancelled(self, job_id: str) -> bool:
        """Return True if the job was cancelled or its record removed."""
        status = DBOS.get_workflow_status(job_id)
        return status is None or status.status == "CANCELLED"

    def take_over(self) -> None:
        """Queue the running jobs of dead trainers again, and those of this one that no thread runs."""
        with _driver_errors():
            pending = _workflows(status="PENDING")
            self._recover_own({job.workflow_id for job in pending if job.executor_id == self._lease.executor})
            running = {job.executor_id for job in pending} - {self._lease.executor, None}
            if not running:
                return
            with self._lease.claim([str(executor) for executor in running]) as dead:
                for executor in dead:
                    # Unlike the public `resume_workflow`, this leaves jobs alone that have ended meanwhile.
                    if taken := DBOS._recover_pending_workflows([executor]):  # noqa: SLF001
                        ids = [job.workflow_id for job in taken]
                        _log.warning("jobs taken over", extra={"trainer": name_of(executor), "jobs": ids})

    def _recover_own(self, pending: set[str]) -> None:
        """Queue jobs again that this trainer has claimed and no thread runs.

        That happens if the answer to a claim was lost, or an error kept the job from starting. A job that was claimed
        just now has no thread yet, so a job is queued only if the previous call found it without a thread too.
        """
        idle = pending - set(self._dbos._active_workflows_set.activeList())  # noqa: SLF001
        taken = sorted(
            job
            for job in idle & self._without_thread
            if self._dbos._sys_db.reenqueue_for_recovery(job, [self._lease.executor], QUEUE)  # noqa: SLF001
        )
        self._without_thread = idle - set(taken)
        if taken:
            _log.warning("jobs taken over", extra={"trainer": name_of(self._lease.executor), "jobs": taken})

    def place_in_partitions(self) -> None:
        """Give jobs that a service of an earlier release recorded their partitions."""
        with _driver_errors():
            database.place_in_partitions(self._url)

    def prune(self, max_ended: int) -> None:
        """Remove the records of the oldest ended jobs, except `max_ended`."""
        with _driver_errors():
            engine = self._engine or database.new_engine(self._url)
            while old := database.job_keys(engine, ENDED, offset=max_ended, limit=PRUNE_BATCH):
                DBOS.delete_workflows([job.id for job in old])

    def uploads(self) -> list[JobUpload]:
        """Return the uploads of all recorded jobs."""
        with _driver_errors():
            uploads = []
            for job in _workflows():
                upload = database.request_summary(job, DBOS.list_workflows)["upload"]
                uploads.append(JobUpload(job.workflow_id, upload, ended=job.status not in UNFINISHED))
            return uploads


@contextlib.contextmanager
def _driver_errors() -> Iterator[None]:
    """Raise Unavailable with the message of the database driver, without the statement and its values."""
    try:
        yield
    except SQLAlchemyError as error:
        raise Unavailable(database.driver_message(error)) from error


def _workflows(**conditions: Any) -> list[WorkflowStatus]:
    return DBOS.list_workflows(name=WORKFLOW, load_input=False, load_output=False, **conditions)


def _warn_of_other_versions() -> None:
    if count := sum(job.app_version != APPLICATION_VERSION for job in _workflows(status=UNFINISHED)):
        _log.warning("jobs of another version wait", extra={"jobs": count})


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Return False for the traceback that DBOS logs for a workflow that failed or was cancelled as intended.

    Shorten a message with a traceback in it to its first and last line.
    """
    before, traceback, after = record.getMessage().partition("Traceback (most recent call last):")
    if traceback:
        # SQLAlchemy adds the statement and a link to the last line.
        reason = next((line for line in after.splitlines() if _ERROR_LINE.match(line)), "")
        record.msg, record.args = f"{before}{reason}", ()
    raised = record.exc_info[1] if record.exc_info else None
    expected = (JobFailed, dbos_errors.DBOSAwaitedWorkflowCancelledError, dbos_errors.DBOSWorkflowCancelledError)
    return not isinstance(raised, expected) and "recorded outcome" not in record.getMessage()
