"""Watch jobs for the requests that wait for or follow them. All jobs are read together, once for all requests."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import orjson
from starlette.concurrency import run_in_threadpool

from app.errors import Unavailable
from app.jobs.job import Job
from app.jobs.queue import JobQueue
from app.web.schemas.jobs import job_to_view

MAX_FOLLOWERS = 1000  # Requests that follow jobs in one worker at a time.
PAUSES = (0.01, 0.25)  # Seconds between two readings of the jobs: at first, and at most.
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
    watchers: int = 0
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

    def __init__(self, queue: JobQueue, stopping: asyncio.Event) -> None:
        self._queue = queue
        self._stopping = stopping
        self._watched: dict[str, _Watched] = {}
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
        watched.watchers += 1
        self._pause = PAUSES[0]
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll())
        try:
            while True:
                changed, over = watched.changed, watched.over
                yield watched.snapshot
                if over:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), UNCHANGED_SECONDS)
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                self._forget(job.id, watched)

    async def _poll(self) -> None:
        try:
            while self._watched and not self._stopping.is_set():
                await asyncio.sleep(self._pause)
                self._pause = min(1.2 * self._pause, self._max_pause)
                pending = dict(self._watched)
                try:
                    jobs = await run_in_threadpool(self._queue.store.get_many, list(pending))
                except Unavailable:  # already logged; the database may come back
                    continue
                for job_id, watched in pending.items():
                    watched.update(jobs.get(job_id))
                    if watched.over:
                        self._forget(job_id, watched)
        finally:
            self._polling = None
            for watched in self._watched.values():
                watched.update(None)
            self._watched.clear()

    def _forget(self, job_id: str, watched: _Watched) -> None:
        # A later watcher of this job may already have its own entry.
        if self._watched.get(job_id) is watched:
            del self._watched[job_id]
