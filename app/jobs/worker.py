"""The trainer's side of the queue: takes jobs, one at a time, runs them, records how they end."""

import contextlib
import functools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from dbos import DBOS, DBOSPortableJSONSerializer
from dbos import error as dbos_errors
from dbos._queue import queue_worker_thread
from sqlalchemy.exc import SQLAlchemyError

from app.errors import LinserveError, PromotionFailed, Unavailable
from app.jobs.crash_loop import CrashLoopGuard
from app.jobs.database import (
    APPLICATION_VERSION,
    MAX_RECOVERIES,
    PROGRESS,
    QUEUE,
    UNFINISHED,
    WORKFLOW,
    file_of,
    place_in_partitions,
    prepare,
    reason,
    redact_url,
    summary,
)
from app.jobs.host.cpu_affinity import PredictionActivity, yield_cores_to_predictions
from app.jobs.host.devices import write_capabilities
from app.jobs.host.memory_limit import within_memory
from app.jobs.job import Failure, Progress
from app.jobs.progress import JobCancelled, ProgressReporter
from app.jobs.wakeup import PollSchedule
from app.logs import job_id
from app.storage.file_lock import FileLock, identity
from app.training.parent import finish_promotion
from app.training.pipeline import TrainerContext, train
from app.training.request import TrainingRequest

# Between two polls, if no message of a new job wakes the trainer: it then idles below 2 % of a core.
POLL_SECONDS = 0.8
SETTLED_SECONDS = 1.0  # after which a cancelling stands
WATCH_SECONDS = 2.0
TIDY_SECONDS = 60.0
PRUNED_AT_ONCE = 500
ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]

_log = logging.getLogger(__name__)


class JobFailed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.data = msgspec.to_builtins(failure)


def run_worker(
    database_url: str,
    executor: str,
    workshop: TrainerContext,
    *,
    traffic: PredictionActivity,
    capabilities: Path,
    seen: Path,
    lock_of: Callable[[str], Path],
    attempts: CrashLoopGuard,
    max_job_seconds: float,
    max_retained_jobs: int,
    stop: threading.Event,
) -> None:
    """Run jobs until `stop` is set; the process is then to exit. A job under way goes on with the next start.

    A job may take so many seconds (0: as long as it likes). Of those that ended, the newest so many are kept.

    `executor` names this trainer; of two alive at once no two may have the same name. Whether it has CUDA is written
    to the file `capabilities`, so that a job that wants it can be refused at once. The file `seen` is touched for as
    long as this goes on. `lock_of` names the file that the trainer of a name holds while it lives.

    Raises Unavailable, and says so in the log, where the database cannot be reached at the start; and where it, or the
    lock of this trainer, is removed: what is still written there is read by nobody.
    """
    with _reaching(database_url):
        prepare(database_url)
        place_in_partitions(database_url)
        watched = {path: identity(path) for path in (lock_of(executor), file_of(database_url)) if path}
        dbos = DBOS(
            config={
                "name": "linserve",
                "system_database_url": database_url,
                "executor_id": executor,
                "application_version": APPLICATION_VERSION,
                "serializer": DBOSPortableJSONSerializer(),
                "log_level": "WARNING",
                "max_executor_threads": 4,
                "notification_listener_polling_interval_sec": 3600.0,  # nothing here waits for a notification
            }
        )
        logging.getLogger("dbos").addFilter(_is_news)
        schedule = PollSchedule(seen.parent, executor)
        _register(workshop, traffic, attempts, max_job_seconds, schedule)
        DBOS.listen_queues([])  # the thread below polls instead: DBOS's own wakes up at its interval alone
        DBOS.launch()
        # A partition is a model. Its jobs run one after another, in the order in which they were recorded, whichever
        # trainers take them; a trainer whose next job would have to wait takes one of another model.
        queue = DBOS.register_queue(
            QUEUE,
            worker_concurrency=1,
            partition_concurrency=1,
            polling_interval_sec=POLL_SECONDS,
            on_conflict="always_update",
        )
        _tell_of_other_versions()
    write_capabilities(capabilities)
    _log.info("trainer ready")
    polling: threading.Thread | None = None
    tidied = -TIDY_SECONDS
    while True:
        for path, file in watched.items():
            if identity(path) != file:
                _log.error("state folder replaced", extra={"file": str(path)})
                raise Unavailable("The state folder was removed.")
        _touch(seen)
        if polling is None or not polling.is_alive():  # it ends if the queue's record is missing for a moment
            polling = threading.Thread(target=queue_worker_thread, args=(schedule, dbos, queue), daemon=True)
            polling.start()
        if time.monotonic() - tidied >= TIDY_SECONDS:
            tidied = time.monotonic()
            _tidy_up(workshop, max_retained_jobs, executor, lock_of, database_url)
        if stop.wait(WATCH_SECONDS):
            break
    # Nothing else is wound up: what a kill -9 may not lose, a stop need not save.
    attempts.end()


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError, dbos_errors.DBOSException) as error:
        _log.critical("job database out of reach", extra={"database": redact_url(url), "reason": reason(error)})
        raise Unavailable("The job database cannot be reached.") from error


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # a full disk, or no folder: that is noticed elsewhere
        path.touch(mode=0o600)


def _tell_of_other_versions() -> None:
    waiting = DBOS.list_workflows(name=WORKFLOW, status=UNFINISHED, load_input=False, load_output=False)
    if count := sum(job.app_version != APPLICATION_VERSION for job in waiting):
        _log.warning("jobs of another version wait", extra={"jobs": count})


def _register(
    workshop: TrainerContext,
    traffic: PredictionActivity,
    attempts: CrashLoopGuard,
    seconds: float,
    schedule: PollSchedule,
) -> None:
    publish = DBOS.step(name="publish")(functools.partial(_publish, workshop, traffic, attempts, seconds))
    promote = DBOS.step(name="promote")(functools.partial(_promote, workshop))

    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=MAX_RECOVERIES)
    def run(request: dict[str, Any]) -> dict[str, Any]:
        try:
            result = publish(request)
            if result.get("promote"):  # recorded by an earlier release, in which promotion was a step of its own
                promote(request, result["version"])
        except JobFailed:
            _clean(workshop, DBOS.workflow_id, request)  # its end is recorded with the step: it needs the rows no more
            raise
        except dbos_errors.DBOSWorkflowCancelledError:
            # One that came too late is taken back at once, and the rows may be needed after all.
            cancelled = (workshop, DBOS.workflow_id, request)
            threading.Timer(SETTLED_SECONDS, _clean_if_cancelled, cancelled).start()
            raise
        finally:
            schedule.job_ended()
        _clean(workshop, DBOS.workflow_id, request)
        return result


def _publish(
    workshop: TrainerContext,
    traffic: PredictionActivity,
    attempts: CrashLoopGuard,
    seconds: float,
    request: dict[str, Any],
) -> dict[str, Any]:
    job = DBOS.workflow_id
    assert job is not None
    tracker = ProgressReporter(_report, lambda: _is_cancelled(job), seconds)
    named = job_id.set(job)
    try:
        attempts.begin(job, workshop.checkpoint(job))
        with yield_cores_to_predictions(traffic), within_memory():
            card = train(TrainingRequest.from_json(request), job, workshop, tracker)
    except (JobCancelled, dbos_errors.DBOSWorkflowConflictIDError):
        # The second is raised where progress was to be recorded for a job that is no longer ours to record.
        if _is_cancelled(job):
            _clean(workshop, job, request)
            _log.info("job cancelled")
        raise dbos_errors.DBOSWorkflowCancelledError(f"job {job} was cancelled") from None
    except LinserveError as error:
        _report(tracker.progress, tracker.curve.with_last())
        raise _failed(job, error, error.version if isinstance(error, PromotionFailed) else None) from None
    else:
        _log.info("version published", extra={"model": card.model, "version": card.version})
    finally:
        attempts.end()
        job_id.reset(named)
    return {
        "version": card.version,
        "metrics": card.metrics,
        "warnings": list(card.warnings),
    }


def _promote(workshop: TrainerContext, request: dict[str, Any], version: int) -> None:
    try:
        card = workshop.registry.version(request["model"], version).card
        finish_promotion(TrainingRequest.from_json(request), card, workshop.registry)
    except LinserveError as error:
        raise _failed(DBOS.workflow_id, error, version) from None


def _clean(workshop: TrainerContext, job: str | None, request: dict[str, Any]) -> None:
    assert job is not None
    workshop.spool.remove(request["upload"])
    workshop.checkpoint(job).unlink(missing_ok=True)


def _clean_if_cancelled(workshop: TrainerContext, job: str, request: dict[str, Any]) -> None:
    if _is_cancelled(job):
        _clean(workshop, job, request)


def _failed(job: str | None, error: LinserveError, version: int | None = None) -> JobFailed:
    name, message = type(error).__name__, error.message
    if version is not None:
        message = f"Version {version} is published, but could not be promoted. {message}"
    _log.info("job failed", extra={"job": job, "error": name, "reason": message})
    return JobFailed(Failure(name, message, error.details, version))


def _is_news(record: logging.LogRecord) -> bool:
    """DBOS logs a traceback for every workflow that ends by an exception; ours end so on purpose."""
    raised = record.exc_info[1] if record.exc_info else None
    expected = (JobFailed, dbos_errors.DBOSAwaitedWorkflowCancelledError, dbos_errors.DBOSWorkflowCancelledError)
    return not isinstance(raised, expected) and "recorded outcome" not in record.getMessage()


def _report(progress: Progress, curve: list[tuple[int, float]]) -> None:
    DBOS.set_event(PROGRESS, {"progress": msgspec.to_builtins(progress), "loss_curve": curve})


def _is_cancelled(job: str) -> bool:
    status = DBOS.get_workflow_status(job)
    return status is None or status.status == "CANCELLED"  # and pruned since


def _tidy_up(
    workshop: TrainerContext, kept_jobs: int, executor: str, lock_of: Callable[[str], Path], database_url: str
) -> None:
    try:
        place_in_partitions(database_url)  # a service of an earlier release may still record jobs
        _take_over(executor, lock_of)
        _prune(kept_jobs)
        if not workshop.spool.is_empty() or any(workshop.checkpoints.glob("*")):
            _sweep(workshop)
        workshop.registry.sweep()
    except Exception as error:  # the database is out of reach, or a disk full; that passes
        _log.warning("not tidied up", extra={"reason": reason(error)})


def _take_over(executor: str, lock_of: Callable[[str], Path]) -> None:
    """Queue again what trainers of other names were at when they ended, and did not come back to.

    Whoever holds a trainer's lock knows that it is not alive, and keeps it from starting: no job has two trainers.
    """
    running = DBOS.list_workflows(name=WORKFLOW, status="PENDING", load_input=False, load_output=False)
    for other in {job.executor_id for job in running} - {executor, None}:
        lock = FileLock(lock_of(str(other)), os.O_RDWR)
        try:
            # A job that is cancelled or finished meanwhile is left alone; DBOS's public `resume_workflow` would not.
            if lock.acquire(timeout=0) and (taken := DBOS._recover_pending_workflows([str(other)])):  # noqa: SLF001
                _log.warning("jobs taken over", extra={"trainer": other, "jobs": [job.workflow_id for job in taken]})
        except FileNotFoundError:  # no trainer of that name uses this state folder
            continue
        finally:
            lock.close()


def _prune(most: int) -> None:
    """Remove the oldest of the jobs that ended, where there are more than so many."""
    while old := DBOS.list_workflows(
        name=WORKFLOW,
        status=ENDED,
        sort_desc=True,
        offset=most,
        limit=PRUNED_AT_ONCE,
        load_input=False,
        load_output=False,
    ):
        DBOS.delete_workflows([job.workflow_id for job in old])


def _sweep(workshop: TrainerContext) -> None:
    """Remove what jobs and requests left behind when they were killed."""
    jobs = DBOS.list_workflows(name=WORKFLOW, load_input=False, load_output=False)
    unfinished = {job.workflow_id for job in jobs if job.status in UNFINISHED}
    uploads = {job.workflow_id: summary(job, DBOS.list_workflows)["upload"] for job in jobs}
    wanted = {upload for job, upload in uploads.items() if job in unfinished}
    workshop.spool.sweep(wanted, ended=set(uploads.values()) - wanted)
    for checkpoint in workshop.checkpoints.glob("*"):
        if checkpoint.stem not in unfinished:
            checkpoint.unlink(missing_ok=True)
