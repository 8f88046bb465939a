"""The worker of a trainer: runs the jobs that the store hands to it, and removes files that are no longer needed."""

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.errors import LinserveError, PromotionFailed, Unavailable
from app.jobs.crash_loop import CrashLoopGuard
from app.jobs.host.cpu_affinity import PredictionActivity, yield_cores_to_predictions
from app.jobs.host.memory_limit import within_memory
from app.jobs.job import Failure, JobFailed
from app.jobs.lease import TrainerLease
from app.logs import job_id as logged_job_id
from app.storage.file_lock import identity
from app.training.pipeline import TrainerContext, train
from app.training.progress import JobCancelled, ProgressReporter
from app.training.request import TrainingRequest

if TYPE_CHECKING:  # loading it takes a while
    from app.jobs.dbos_worker import DBOSWorkerStore

WATCH_SECONDS = 2.0
TIDY_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Worker:
    """Runs the jobs of a store as its JobHandler. Some of its files are shared with the web processes."""

    max_job_seconds: float  # 0: no limit
    max_retained_jobs: int
    lease: TrainerLease  # acquired
    store: "DBOSWorkerStore"
    context: TrainerContext
    activity: PredictionActivity
    crash_loop: CrashLoopGuard

    def run_job(self, job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        progress = ProgressReporter(self.store.report, lambda: self.store.is_cancelled(job_id), self.max_job_seconds)
        token = logged_job_id.set(job_id)
        try:
            self.crash_loop.begin(job_id, self.context.checkpoint(job_id))
            with yield_cores_to_predictions(self.activity), within_memory():
                card = train(TrainingRequest.from_json(request), job_id, self.context, progress)
        except JobCancelled:
            if self.store.is_cancelled(job_id):
                self.clean_up(job_id, request)
                _log.info("job cancelled")
            raise
        except LinserveError as error:
            progress.report()
            raise _failed(error) from None
        else:
            _log.info("version published", extra={"model": card.model, "version": card.version})
        finally:
            self.crash_loop.end()
            logged_job_id.reset(token)
        return {"version": card.version, "metrics": card.metrics, "warnings": list(card.warnings)}

    def clean_up(self, job_id: str, request: dict[str, Any]) -> None:
        self.context.spool.remove(request["upload"])
        self.context.checkpoint(job_id).unlink(missing_ok=True)

    def stop(self) -> None:
        """Note that a job under way was interrupted by a stop, and not by a crash."""
        self.crash_loop.end()

    def take_over(self) -> None:
        """Take over the jobs of dead trainers."""
        try:
            self.store.take_over()
        except Exception as error:  # the database is unreachable; a later call will succeed
            _log.warning("no jobs taken over", extra={"reason": str(error)})

    def tidy_up(self) -> None:
        """Remove old records and files that nothing needs."""
        try:
            self.store.place_in_partitions()
            self.store.prune(self.max_retained_jobs)
            if not self.context.spool.is_empty() or any(self.context.checkpoints.glob("*")):
                self._sweep()
            self.context.registry.sweep()
        except Exception as error:  # the database is unreachable or the disk full; a later call will succeed
            _log.warning("not tidied up", extra={"reason": str(error)})

    def _sweep(self) -> None:
        """Remove the files of jobs and requests that were killed."""
        jobs = self.store.uploads()
        unfinished = {job.id for job in jobs if not job.ended}
        needed = {job.upload for job in jobs if not job.ended}
        self.context.spool.sweep(needed, ended={job.upload for job in jobs} - needed)
        for checkpoint in self.context.checkpoints.glob("*"):
            if checkpoint.stem not in unfinished:
                checkpoint.unlink(missing_ok=True)


def run_worker(worker: Worker, stop: threading.Event) -> None:
    """Run jobs until `stop` is set. The process then has to exit; a job under way continues at the next start.

    Raises Unavailable if the database cannot be reached at the start, and if the database or the lock of this trainer
    is removed, because no other process would read what this one records.
    """
    store, lease = worker.store, worker.lease
    store.open(worker)
    lease.announce()
    _log.info("trainer ready")
    claimed = tidied = -max(TIDY_SECONDS, lease.claim_seconds)
    while True:
        for path, known in store.files.items():
            if identity(path) != known:
                _log.error("state folder replaced", extra={"file": str(path)})
                raise Unavailable("The state folder was removed.")
        lease.check()
        store.keep_polling()
        if time.monotonic() - claimed >= lease.claim_seconds:
            claimed = time.monotonic()
            worker.take_over()
        if time.monotonic() - tidied >= TIDY_SECONDS:
            tidied = time.monotonic()
            worker.tidy_up()
        if stop.wait(WATCH_SECONDS):
            break
    # No other clean-up is needed: a job that survives a kill -9 also survives a stop.
    worker.stop()
    lease.release()


def _failed(error: LinserveError) -> JobFailed:
    name, message, version = type(error).__name__, error.message, None
    if isinstance(error, PromotionFailed):
        version = error.version
        message = f"Version {version} is published, but could not be promoted. {message}"
    _log.info("job failed", extra={"error": name, "reason": message})
    return JobFailed(Failure(name, message, error.details, version))
