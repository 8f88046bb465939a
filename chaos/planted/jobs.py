"""Bugs that lose jobs, run them twice, remove their rows, or report a wrong status."""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any

from chaos.planting import after

if TYPE_CHECKING:
    from dbos import DBOSConfig


@after("app.jobs.queue")
def acknowledged_before_recorded() -> None:
    from app.jobs.job import Job, Status
    from app.jobs.queue import JobQueue
    from app.training.request import TrainingRequest

    submit = JobQueue.submit

    def submit_later(self: JobQueue, request: TrainingRequest, job_id: str) -> Job:
        threading.Timer(0.3, submit, (self, request, job_id)).start()
        now = datetime.now(UTC)
        return Job(job_id, Status.QUEUED, request.model, None, now, None, None, None, None, None, (), None)

    JobQueue.submit = submit_later


@after("app.training.pipeline")
def rows_removed_before_the_end() -> None:
    """The upload is removed before its version is published."""
    from app.registry.model_card import ModelCard
    from app.training import pipeline
    from app.training.pipeline import TrainerContext
    from app.training.progress import ProgressReporter
    from app.training.request import TrainingRequest

    train = pipeline.train

    def train_and_remove(
        request: TrainingRequest, job: str | None, context: TrainerContext, progress: ProgressReporter
    ) -> ModelCard:
        begin = progress.begin_publishing

        def begin_and_remove() -> None:
            context.spool.remove(request.upload)
            begin()

        progress.begin_publishing = begin_and_remove
        return train(request, job, context, progress)

    pipeline.train = train_and_remove


@after("app.training.checkpoints")
def checkpoints_written_in_place() -> None:
    """Checkpoints are written directly to their final name."""
    from app.storage.store import Store
    from app.training.checkpoints import Checkpoint

    class InPlace(PosixPath):
        __slots__ = ()

        def with_suffix(self, suffix: str) -> "InPlace":
            return self

    make = Checkpoint.__init__

    def make_in_place(self: Checkpoint, path: Path, columns: tuple[str, ...] = (), store: Store | None = None) -> None:
        make(self, InPlace(path), columns, store)

    Checkpoint.__init__ = make_in_place


@after("app.jobs.dbos_worker")
def trainer_forgets_its_name() -> None:
    """DBOS gets another name for the trainer at each start, so the trainer does not resume its own jobs."""
    from dbos import DBOS

    make = DBOS.__init__

    def make_with_new_name(self: DBOS, *, config: "DBOSConfig", **named: Any) -> None:
        config["executor_id"] = f"{config['executor_id']}-{time.time_ns()}"
        make(self, config=config, **named)

    DBOS.__init__ = make_with_new_name


@after("app.jobs.supervisor")
def lock_not_held() -> None:
    """Any number of trainers can hold the same lock."""
    from app.storage.file_lock import FileLock

    acquire = FileLock.acquire

    def share(self: FileLock, *, blocking: bool = True) -> bool:
        if not self.path.name.startswith("trainer."):
            return acquire(self, blocking=blocking)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            return False
        return True

    FileLock.acquire = share


@after("app.jobs.worker")
def failure_reported_as_success() -> None:
    from app.jobs.job import JobFailed
    from app.jobs.worker import Worker

    run_job = Worker.run_job

    def run_job_or_pretend(self: Worker, job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return run_job(self, job_id, request)
        except JobFailed:
            return {"version": 1, "promote": False, "metrics": {}, "warnings": []}

    Worker.run_job = run_job_or_pretend


@after("app.training.uploads")
def full_disk_is_an_internal_error() -> None:
    """A full disk is noticed only when a write fails, and that error does not become a problem."""
    from app.training import uploads
    from app.training.uploads import UploadStore

    def find_room(self: UploadStore, count: int = 0) -> None:
        pass

    @contextlib.contextmanager
    def no_errors() -> Iterator[None]:
        yield

    UploadStore.check_room = find_room
    uploads._storage_errors = no_errors
