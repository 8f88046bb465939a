"""Reads of the job table that requests cause which follow jobs or wait for them, on a clock that never waits."""

import asyncio
import selectors
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.jobs.job import Job, Status
from app.jobs.queue import JobQueue
from app.web import job_watcher
from app.web.job_watcher import MAX_SAVED_READS, JobSnapshot, JobWatcher

FOLLOWERS = 50
STARTED = datetime(2026, 1, 1, tzinfo=UTC)


class _ImpatientSelector(selectors.DefaultSelector):
    """Advances the time of its loop instead of waiting."""

    loop: "_VirtualLoop"

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "every task waits, and nothing will wake one"
        self.loop.now += timeout + 1e-6  # a loop takes time even if it does not wait
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 1000.0
        selector = _ImpatientSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class _Table:
    """A job table that counts its reads. Every job ends at the same time."""

    def __init__(self, loop: _VirtualLoop, ends_after: float) -> None:
        self.store = self
        self.reads: list[float] = []
        self.finds = 0
        self._loop = loop
        self._ends_at = loop.time() + ends_after

    def job(self, job_id: str) -> Job:
        ended = self._loop.time() >= self._ends_at
        status, finished = (Status.SUCCEEDED, STARTED) if ended else (Status.RUNNING, None)
        return Job(job_id, status, "m", None, STARTED, STARTED, finished, None, None, None, (), None)

    def get(self, job_id: str) -> Job:
        self.finds += 1
        return self.job(job_id)

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        self.reads.append(self._loop.time())
        return {job_id: self.job(job_id) for job_id in job_ids}


async def _here(call: Any, *arguments: Any) -> Any:
    await asyncio.sleep(0)
    return call(*arguments)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(job_watcher, "run_in_threadpool", _here)
    loop = _VirtualLoop()
    yield loop
    loop.close()


def _watched(loop: _VirtualLoop, ends_after: float) -> tuple[_Table, JobWatcher]:
    table = _Table(loop, ends_after)
    return table, JobWatcher(cast("JobQueue", table), asyncio.Event())


async def _follow(watcher: JobWatcher, job_id: str, *, after: float = 0) -> tuple[JobSnapshot, float]:
    """Return the last snapshot of a job, and when it came."""
    await asyncio.sleep(after)
    async for snapshot in watcher.watch(await watcher.find(job_id)):
        last = snapshot
    return last, asyncio.get_running_loop().time()


@pytest.mark.parametrize("jobs", [1, FOLLOWERS])
def test_fifty_followers_cost_one_read_of_the_job_table_per_second(loop: _VirtualLoop, jobs: int) -> None:
    table, watcher = _watched(loop, ends_after=60)
    began = loop.time()

    async def follow_all() -> list[tuple[JobSnapshot, float]]:
        pages = [_follow(watcher, f"job-{page % jobs}", after=page / 10) for page in range(FOLLOWERS)]
        return await asyncio.gather(*pages)

    ends = loop.run_until_complete(follow_all())

    assert len(table.reads) <= 60 + MAX_SAVED_READS + 1  # with the read that finds the end
    for second in range(5, 60):
        assert sum(began + second <= read < began + second + 0.999 for read in table.reads) <= 1
    assert table.finds == jobs  # the pages of one job share what is known of it
    assert {snapshot.job.status for snapshot, _ in ends} == {Status.SUCCEEDED}
    assert max(at for _, at in ends) <= began + 61


def test_a_follower_sees_the_end_of_a_short_job_at_once(loop: _VirtualLoop) -> None:
    table, watcher = _watched(loop, ends_after=0.3)
    began = loop.time()

    _, at = loop.run_until_complete(_follow(watcher, "job"))

    assert at - began <= 0.41
    assert len(table.reads) == 2


def test_the_version_of_a_job_is_looked_for_before_a_follower_sees_the_end(loop: _VirtualLoop) -> None:
    class Promoting(_Table):
        def job(self, job_id: str) -> Job:
            job = super().job(job_id)
            return replace(job, version=2, finished_at=datetime.now(UTC)) if job.status.ended else job

    looked_for: list[str] = []
    watcher = JobWatcher(cast("JobQueue", Promoting(loop, ends_after=3)), asyncio.Event(), looked_for.append)

    async def follow() -> list[tuple[Status, list[str]]]:
        known = await watcher.find("job")
        return [(snapshot.job.status, [*looked_for]) async for snapshot in watcher.watch(known)]

    *before, end = loop.run_until_complete(follow())

    assert end == (Status.SUCCEEDED, ["m"])
    assert {(status, *models) for status, models in before} == {(Status.RUNNING,)}


def test_a_request_that_waits_is_answered_at_once_although_others_follow(loop: _VirtualLoop) -> None:
    table, watcher = _watched(loop, ends_after=30.0)

    async def wait() -> float:
        following.extend(asyncio.create_task(_follow(watcher, f"job-{page}")) for page in range(FOLLOWERS))
        await asyncio.sleep(29.9)
        job = await watcher.wait_for_end(table.job("job-0"), 10)
        assert job.status == Status.SUCCEEDED
        return asyncio.get_running_loop().time()

    following: list[asyncio.Task[Any]] = []
    began = loop.time()
    at = loop.run_until_complete(wait())
    loop.run_until_complete(asyncio.gather(*following))

    assert at - began <= 30.03
    assert len(table.reads) <= 30 + MAX_SAVED_READS + 12


def test_a_client_that_reconnects_gets_only_what_was_read_after_it_came(loop: _VirtualLoop) -> None:
    table, watcher = _watched(loop, ends_after=3.5)
    began = loop.time()

    async def reconnect() -> list[float]:
        following = asyncio.create_task(_follow(watcher, "job"))
        await asyncio.sleep(2.9)
        came_at = loop.time()
        snapshots = [snapshot async for snapshot in watcher.watch(await watcher.find("job"), since=came_at)]
        assert all(snapshot.read_at >= came_at for snapshot in snapshots)
        assert snapshots[-1] == (await following)[0]
        return [snapshot.read_at for snapshot in snapshots]

    times = loop.run_until_complete(reconnect())

    assert table.reads[0] < began + 2.9 < times[0] <= began + 4
    assert table.finds == 1


def test_followers_end_when_the_service_stops(loop: _VirtualLoop) -> None:
    table = _Table(loop, ends_after=1e9)

    async def stop() -> float:
        stopping = asyncio.Event()
        watcher = JobWatcher(cast("JobQueue", table), stopping)
        following = asyncio.create_task(_follow(watcher, "job"))
        await asyncio.sleep(20.5)
        stopping.set()
        _, at = await following
        return at

    began = loop.time()
    assert loop.run_until_complete(stop()) - began == pytest.approx(20.5)
