"""Jobs that requests wait for or follow: all are read together, once for all of them, not once for each."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import orjson
from starlette.concurrency import run_in_threadpool

from app.errors import Unavailable
from app.jobs.job import Job
from app.jobs.queue import JobQueue
from app.web.schemas.jobs import job_to_view

MAX_FOLLOWERS = 1000  # at a time, of one worker
PAUSES = (0.01, 0.25)  # between two looks at a job: so short at first, and so long later
UNCHANGED_SECONDS = 2.0  # after which followers are told that nothing changed: what they may see may have


@dataclass(frozen=True)
class JobSnapshot:
    """A job as it was found."""

    job: Job

    @cached_property
    def text(self) -> str:
        """The job as JSON, made once for all who follow it."""
        return orjson.dumps(job_to_view(self.job), option=orjson.OPT_UTC_Z).decode()

    @cached_property
    def identity(self) -> str:
        """The id of the event that shows the job so, the same from every worker and after every restart."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


@dataclass(eq=False)
class _Watched:
    """A job that somebody waits for."""

    look: JobSnapshot
    followers: int = 0
    over: bool = False
    told_at: float = field(default_factory=time.monotonic)
    told: asyncio.Event = field(default_factory=asyncio.Event)  # another for each time that they are told

    def found(self, job: Job | None) -> None:
        """Tell the followers where that is news to them. None is a job that is no more."""
        self.over = job is None or job.status.ended
        if job is not None and job != self.look.job:
            self.look = JobSnapshot(job)
        elif not self.over and time.monotonic() - self.told_at < UNCHANGED_SECONDS:
            return
        self.told_at = time.monotonic()
        self.told.set()
        self.told = asyncio.Event()


class JobWatcher:
    """Belongs to the event loop of one worker."""

    def __init__(self, queue: JobQueue, stopping: asyncio.Event) -> None:
        self._queue = queue
        self._stopping = stopping
        self._watched: dict[str, _Watched] = {}
        self._watching: asyncio.Task[None] | None = None
        self._pause, self._most_pause = PAUSES
        self._admitted = 0

    @contextlib.contextmanager
    def acquire_slot(self) -> Iterator[None]:
        """Count a follower for the block. Raises Unavailable if there are MAX_FOLLOWERS already."""
        if self._admitted >= MAX_FOLLOWERS:
            raise Unavailable(f"{MAX_FOLLOWERS} requests already follow jobs in this worker. Try again later.")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def watch(self, job: Job) -> AsyncGenerator[JobSnapshot]:
        """The job as it is, and whenever it changed or did not for a while; until it ends, or the service stops."""
        if job.status.ended:
            yield JobSnapshot(job)
            return
        watched = self._watched.setdefault(job.id, _Watched(JobSnapshot(job)))
        watched.followers += 1
        self._pause = PAUSES[0]
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            while True:
                told, over = watched.told, watched.over
                yield watched.look
                if over:
                    return
                await told.wait()
        finally:
            watched.followers -= 1
            if not watched.followers:
                self._forget(job.id, watched)

    async def _watch(self) -> None:
        try:
            while self._watched and not self._stopping.is_set():
                await asyncio.sleep(self._pause)
                self._pause = min(1.2 * self._pause, self._most_pause)
                asked = dict(self._watched)
                try:
                    found = await run_in_threadpool(self._queue.get_many, list(asked))
                except Unavailable:  # the log says so; it passes
                    continue
                for job_id, watched in asked.items():
                    watched.found(found.get(job_id))
                    if watched.over:
                        self._forget(job_id, watched)
        finally:
            self._watching = None
            for watched in self._watched.values():
                watched.found(None)
            self._watched.clear()

    def _forget(self, job_id: str, watched: _Watched) -> None:
        # Whoever comes from now on begins anew.
        if self._watched.get(job_id) is watched:
            del self._watched[job_id]
