"""The worker of a trainer: runs the jobs that the store hands to it, and removes files that are no longer needed."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.errors import LinserveError, PromotionFailed, Unavailable
from app.jobs.crash_loop import CrashLoopGuard
from app.jobs.host.cpu_affinity import PredictionActivity, yield_cores_to_predictions
from app.jobs.host.memory_limit import within_memory
from app.jobs.job import Failure, JobFailed
from app.jobs.lease import TrainerLease
from app.logs import job_id as logged_job_id
from app.storage.file_lock import identity
from app.training.checkpoints import remove_checkpoint, sweep_checkpoints
from app.training.pipeline import TrainerContext, train
from app.training.progress import JobCancelled, ProgressReporter
from app.training.request import TrainingRequest

if TYPE_CHECKING:  # loading it takes a while
    from app.jobs.dbos_worker import DBOSWorkerStore

WATCH_SECONDS = 2.0
TIDY_SECONDS = 60.0
STORE_SECONDS = 600.0  # between two sweeps of the store

_log = logging.getLogger(__name__)
_repeated_log = logging.getLogger(f"{__name__}.repeated")  # limited to one record of a kind in 10 seconds


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
    swept: dict[str, float] = field(default_factory=dict)  # when the store was swept

    def run_job(self, job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        progress = ProgressReporter(self.store.report, lambda: self.store.is_cancelled(job_id), self.max_job_seconds)
        token = logged_job_id.set(job_id)
        try:
            self.crash_loop.begin(job_id, self.context.checkpoint(job_id))
            with yield_cores_to_predictions(self.activity), within_memory():
                card = train(TrainingRequest.from_json(request), job_id, self.context, progress)
        except JobCancelled:
            if self.store.is_cancelled(job_id):  # for good, and not taken over by another trainer
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
        remove_checkpoint(self.context.checkpoint(job_id), self.context.store)

    def stop(self) -> None:
        """Note that a job under way was interrupted by a stop, and not by a crash."""
        self.crash_loop.end()

    def take_over(self) -> None:
        """Take over the jobs of dead trainers."""
        try:
            self.store.take_over()
        except Exception as error:  # the database is unreachable; a later call will succeed
            _repeated_log.warning("no jobs taken over", extra={"reason": str(error)})

    def tidy_up(self) -> None:
        """Remove old records and files that nothing needs."""
        try:
            self.store.place_in_partitions()
            self.store.prune(self.max_retained_jobs)
            lists_store = self._is_store_due()
            if lists_store or not self.context.spool.is_empty() or any(self.context.checkpoints.glob("*")):
                self._sweep(lists_store=lists_store)
            self.context.registry.sweep()
        except Exception as error:  # the database is unreachable or the disk full; a later call will succeed
            _log.warning("not tidied up", extra={"reason": str(error)})

    def _is_store_due(self) -> bool:
        """Return True if there is a store that was not swept for STORE_SECONDS. Listing it takes a request."""
        if self.context.store is None or time.monotonic() - self.swept.get("store", -STORE_SECONDS) < STORE_SECONDS:
            return False
        self.swept["store"] = time.monotonic()
        return True

    def _sweep(self, *, lists_store: bool) -> None:
        """Remove the files of jobs and requests that were killed."""
        jobs = self.store.uploads()
        unfinished = {job.id for job in jobs if not job.ended}
        needed = {job.upload for job in jobs if not job.ended}
        ended = {job.upload for job in jobs} - needed
        self.context.spool.sweep(needed, ended)
        for checkpoint in self.context.checkpoints.glob("*"):
            if checkpoint.stem not in unfinished:
                checkpoint.unlink(missing_ok=True)
        if lists_store and self.context.store is not None:
            self.context.spool.sweep_store(needed, ended)
            sweep_checkpoints(self.context.store, unfinished)


class Repeated:
    """Calls a function in a thread, because it may wait for the database or the store, but not twice at once."""

    def __init__(self, call: Callable[[], None], seconds: float) -> None:
        self._call = call
        self._seconds = seconds
        self._began = -seconds
        self._thread: threading.Thread | None = None

    def begin_if_due(self) -> None:
        """Call the function if the last call began `seconds` ago, and has ended."""
        due = time.monotonic() - self._began >= self._seconds
        if due and (self._thread is None or not self._thread.is_alive()):
            self._began = time.monotonic()
            self._thread = threading.Thread(target=self._call, name=self._call.__name__, daemon=True)
            self._thread.start()


def run_worker(worker: Worker, stop: threading.Event) -> None:
    """Run jobs until `stop` is set. The process then has to exit; a job under way continues at the next start.

    Raises Unavailable if the database cannot be reached at the start, and if the database or the lock of this trainer
    is removed, because no other process would read what this one records.
    """
    store, lease = worker.store, worker.lease
    store.open(worker)
    lease.announce()
    _log.info("trainer ready")
    chores = [Repeated(worker.take_over, lease.claim_seconds), Repeated(worker.tidy_up, TIDY_SECONDS)]
    while True:
        for path, known in store.files.items():
            if identity(path) != known:
                _log.error("state folder replaced", extra={"file": str(path)})
                raise Unavailable("The state folder was removed.")
        lease.check()
        store.keep_polling()
        for chore in chores:
            chore.begin_if_due()
        if stop.wait(WATCH_SECONDS):
            break
    # No other clean-up is needed: a job that survives a kill -9 also survives a stop.
    worker.stop()
    lease.release()


def _failed(error: LinserveError) -> JobFailed:
    name, version = type(error).__name__, error.version if isinstance(error, PromotionFailed) else None
    _log.info("job failed", extra={"error": name, "reason": error.message})
    return JobFailed(Failure(name, error.message, error.details, version))
