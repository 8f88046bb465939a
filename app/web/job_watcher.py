"""Watch jobs for the requests that wait for or follow them. All jobs are read together, once for all requests."""

import asyncio
import contextlib
import hashlib
import math
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
PAUSES = (0.01, 0.25)  # Seconds between two reads of the jobs for requests that wait: at first, and at most.
FOLLOW_SECONDS = 1.0  # Seconds for each read of the jobs, if requests only follow them.
MAX_SAVED_READS = 4  # Reads that followers may make early after seconds without a read.
EARLY_SECONDS = 0.2  # Seconds between two early reads.
JUST_ENDED = timedelta(seconds=5)  # Time after the end of a job in which this worker may not know its version yet.
# Time without a read after which a job is yielded again, in seconds. Its followers then check their API keys again.
UNREAD_SECONDS = 2.0


@dataclass
class JobSnapshot:
    """A job as it was read, and when that read began, on the clock of the event loop."""

    job: Job
    read_at: float

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
    was_read: asyncio.Event = field(default_factory=asyncio.Event)  # replaced at each notification

    def update(self, job: Job | None, read_at: float) -> None:
        """Notify the watchers that the job was read. `job` is None if it was removed."""
        self.over = job is None or job.status.ended
        if job is None or job == self.snapshot.job:
            self.snapshot.read_at = read_at
        else:
            self.snapshot = JobSnapshot(job, read_at)
        self.was_read.set()
        self.was_read = asyncio.Event()


class _Pace:
    """Decides when the jobs are read next: soon for requests that wait, and once per second for those that follow.

    The end of a short job is seen early, because seconds without a read are saved. Any number of followers cause at
    most one read for each of FOLLOW_SECONDS, and MAX_SAVED_READS in addition.
    """

    def __init__(self) -> None:
        self._read_at = -math.inf  # or when the watch began
        self._pause, self._max_pause = PAUSES
        self._saved = float(MAX_SAVED_READS)
        self._saved_at = -math.inf

    def watch_begins(self, now: float) -> None:
        self._read_at = now  # by the first request

    def request_came(self) -> None:
        self._pause = PAUSES[0]

    def jobs_read(self, now: float) -> None:
        saved = min(self._saved + (now - self._saved_at) / FOLLOW_SECONDS, MAX_SAVED_READS)
        self._saved, self._saved_at = max(saved - 1, 0), now
        self._read_at = now
        self._pause = min(1.2 * self._pause, self._max_pause)

    def next_read(self, *, is_awaited: bool) -> float:
        """Return the time of the next read. `is_awaited` if a request waits, and does not only follow."""
        if is_awaited:
            return self._read_at + self._pause
        return max(self._read_at + EARLY_SECONDS, self._saved_at + (1 - self._saved) * FOLLOW_SECONDS)


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
        self._reads: dict[str, asyncio.Task[JobSnapshot]] = {}
        self._polling: asyncio.Task[None] | None = None
        self._pace = _Pace()
        self._waiting = 0  # requests that wait for the end of a job
        self._request_came = asyncio.Event()
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

    async def find(self, job_id: str) -> JobSnapshot:
        """Return the job as its followers know it, or read it. Requests for one job share the read.

        Raises as `JobQueue.get`.
        """
        if watched := self._watched.get(job_id):
            return watched.snapshot
        if job_id not in self._reads:
            self._reads[job_id] = asyncio.create_task(self._read(job_id))
            self._reads[job_id].add_done_callback(lambda _: self._reads.pop(job_id))
        return await asyncio.shield(self._reads[job_id])  # one that leaves does not cancel the read of the others

    async def _read(self, job_id: str) -> JobSnapshot:
        read_at = asyncio.get_running_loop().time()
        return JobSnapshot(await run_in_threadpool(self._queue.get, job_id), read_at)

    async def wait_for_end(self, job: Job, seconds: float) -> Job:
        """Return the job once it has ended, or as it is after `seconds` or when the service stops."""
        if seconds <= 0:
            return job
        self._waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                known = JobSnapshot(job, asyncio.get_running_loop().time())
                async with asyncio.timeout(seconds), contextlib.aclosing(self.watch(known)) as snapshots:
                    async for snapshot in snapshots:
                        job = snapshot.job
        finally:
            self._waiting -= 1
        return job

    async def watch(self, known: JobSnapshot, *, since: float = -math.inf) -> AsyncGenerator[JobSnapshot]:
        """Yield the job now, after each read, and after UNREAD_SECONDS, until it ends or the service stops.

        A job that has not ended is left out if its read began before `since`.
        """
        if known.job.status.ended:
            yield known
            return
        watched = self._watched.setdefault(known.job.id, _Watched(known))
        self._pace.request_came()
        self._request_came.set()
        if self._polling is None:
            self._pace.watch_begins(asyncio.get_running_loop().time())
            self._polling = asyncio.create_task(self._poll())
        while True:
            was_read, over = watched.was_read, watched.over
            if watched.snapshot.read_at >= since or watched.snapshot.job.status.ended:
                yield watched.snapshot
            if over:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(was_read.wait(), UNREAD_SECONDS)

    async def _poll(self) -> None:
        try:
            while self._watched and not self._stopping.is_set():
                await self._wait_until_due()
                with contextlib.suppress(Unavailable):  # It is logged, and the database may come back.
                    await self._read_jobs()
        finally:
            self._polling = None
            for watched in list(self._watched.values()):
                watched.update(None, watched.snapshot.read_at)
            self._watched.clear()

    async def _wait_until_due(self) -> None:
        """Wait until the next read is due, or the service stops. A request that waits makes it due sooner."""
        now = asyncio.get_running_loop().time
        while (seconds := self._pace.next_read(is_awaited=self._waiting > 0) - now()) > 0:
            self._request_came.clear()
            events = [asyncio.create_task(event.wait()) for event in (self._request_came, self._stopping)]
            await asyncio.wait(events, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for event in events:
                event.cancel()
            if self._stopping.is_set():
                break
        self._pace.jobs_read(now())

    async def _read_jobs(self) -> None:
        pending, read_at = dict(self._watched), asyncio.get_running_loop().time()
        jobs = await run_in_threadpool(self._jobs_now, list(pending))
        for job_id, watched in pending.items():
            watched.update(jobs.get(job_id), read_at)
            if watched.over:
                self._watched.pop(job_id, None)

    def _jobs_now(self, job_ids: Sequence[str]) -> dict[str, Job]:
        jobs = self._queue.store.get_many(job_ids)
        return {job_id: self.serve_version_of(job) for job_id, job in jobs.items()}
