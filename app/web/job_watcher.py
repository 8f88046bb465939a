"""Watch jobs for the requests that wait for or follow them. All jobs are read together, once for all requests."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from weakref import WeakValueDictionary

import orjson
from starlette.concurrency import run_in_threadpool

from app.errors import NotFound, Unavailable
from app.jobs.job import Job
from app.jobs.queue import JobQueue
from app.web.schemas.jobs import job_to_view

MAX_FOLLOWERS = 1000  # Requests that follow jobs in one worker at a time.
PAUSES = (0.01, 0.25)  # Seconds between two readings of the jobs: at first, and at most.
JUST_ENDED = timedelta(seconds=5)  # Time after the end of a job in which this worker may not know its version yet.
UNCHANGED_SECONDS = 2.0  # Time after which an unchanged job is yielded again, so that its followers check their keys.


@dataclass(frozen=True)
class JobSnapshot:
    """A job as it was read."""

    job: Job

    @cached_property
    def text(self) -> str:
        """The job as JSON, made once for all followers."""
        return orjson.dumps(job_to_view(self.job), option=orjson.OPT_UTC_Z).decode()

    @cached_property
    def event_id(self) -> str:
        """The id of the event with this job: the same in every worker and after every restart."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


@dataclass(eq=False)
class _Watched:
    """A job that at least one request watches."""

    snapshot: JobSnapshot
    over: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # replaced at each notification

    def update(self, job: Job | None) -> None:
        """Notify the watchers if the job changed. None is a removed job."""
        self.over = job is None or job.status.ended
        if job is not None and job != self.snapshot.job:
            self.snapshot = JobSnapshot(job)
        elif not self.over:
            return
        self.changed.set()
        self.changed = asyncio.Event()


class JobWatcher:
    """Watches the jobs of one worker, in its event loop."""

    def __init__(
        self, queue: JobQueue, stopping: asyncio.Event, refresh: Callable[[str], None] = lambda _model: None
    ) -> None:
        """`refresh` looks for a new current version of a model, if the registry is not read for each prediction."""
        self._queue = queue
        self._refresh = refresh
        self._stopping = stopping
        self._watched: WeakValueDictionary[str, _Watched] = WeakValueDictionary()  # Only their watchers keep them.
        self._polling: asyncio.Task[None] | None = None
        self._pause, self._max_pause = PAUSES
        self._slots_taken = 0

    @contextlib.contextmanager
    def acquire_slot(self) -> Iterator[None]:
        """Count a follower for the block. Raises Unavailable if there are MAX_FOLLOWERS already."""
        if self._slots_taken >= MAX_FOLLOWERS:
            raise Unavailable(f"{MAX_FOLLOWERS} requests already follow jobs in this worker. Try again later.")
        self._slots_taken += 1
        try:
            yield
        finally:
            self._slots_taken -= 1

    def serve_version_of(self, job: Job) -> Job:
        """Return the job, after looking for its version if it has just ended.

        So a client that learns of the end from this worker gets predictions of the new version from it. May wait.
        """
        if job.finished_at and job.version and datetime.now(UTC) - job.finished_at < JUST_ENDED:
            with contextlib.suppress(NotFound, Unavailable):
                self._refresh(job.model)
        return job

    async def wait_for_end(self, job: Job, seconds: float) -> Job:
        """Return the job once it has ended, or as it is after `seconds` or when the service stops."""
        if seconds <= 0:
            return job
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), contextlib.aclosing(self.watch(job)) as snapshots:
                async for snapshot in snapshots:
                    job = snapshot.job
        return job

    async def watch(self, job: Job) -> AsyncGenerator[JobSnapshot]:
        """Yield the job now, after each change, and after UNCHANGED_SECONDS, until it ends or the service stops."""
        if job.status.ended:
            yield JobSnapshot(job)
            return
        watched = self._watched.setdefault(job.id, _Watched(JobSnapshot(job)))
        self._pause = PAUSES[0]
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll())
        while True:
            changed, over = watched.changed, watched.over
            yield watched.snapshot
            if over:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), UNCHANGED_SECONDS)

    async def _poll(self) -> None:
        try:
            while self._watched and not self._stopping.is_set():
                await asyncio.sleep(self._pause)
                self._pause = min(1.2 * self._pause, self._max_pause)
                with contextlib.suppress(Unavailable):  # It is logged, and the database may come back.
                    await self._read_jobs()
        finally:
            self._polling = None
            for watched in list(self._watched.values()):
                watched.update(None)
            self._watched.clear()

    async def _read_jobs(self) -> None:
        pending = dict(self._watched)
        jobs = await run_in_threadpool(self._jobs_now, list(pending))
        for job_id, watched in pending.items():
            watched.update(jobs.get(job_id))
            if watched.over:
                self._watched.pop(job_id, None)

    def _jobs_now(self, job_ids: Sequence[str]) -> dict[str, Job]:
        jobs = self._queue.store.get_many(job_ids)
        return {job_id: self.serve_version_of(job) for job_id, job in jobs.items()}
