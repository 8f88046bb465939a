"""The queues of web processes on different machines, which share only a database in Postgres."""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from leases import new_lease
from postgres import Postgres
from service import MAX_SECONDS

from app.errors import DeviceUnavailable, QueueFull, Unavailable
from app.jobs.dbos_store import DBOSStore
from app.jobs.queue import JobQueue
from app.regression.solvers import Exact, GradientDescent
from app.training.request import TrainingRequest
from app.training.uploads import UploadStore

MAX_QUEUED = 3
Result = TypeVar("Result")


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_job_database()


@pytest.fixture
def queues(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[JobQueue]]:
    """Queues of two machines: each has its own folder of uploads and its own lock file."""
    monkeypatch.setattr("app.jobs.dbos_store.TURN_SECONDS", MAX_SECONDS)  # a busy machine records few jobs in 5 s
    opened = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        uploads = UploadStore(tmp_path / name / "spool")
        opened.append(JobQueue(DBOSStore(url), uploads, max_queued=MAX_QUEUED, lock=tmp_path / name / "queue.lock"))
        opened[-1].store.connect()
    yield opened
    for queue in opened:
        queue.store.close()


def upload(queue: JobQueue, *, cuda: bool = False) -> TrainingRequest:
    """Store rows, and return a request to train from them."""
    name = queue.uploads.new()
    with queue.uploads.open_new(name) as file:
        file.write(b"rows")
        queue.uploads.sync(file)
    return TrainingRequest(
        model="crop",
        upload=name,
        format="csv",
        features=("a",),
        targets=("b",),
        solver=GradientDescent(device="cuda") if cuda else Exact(),
        promote="always",
        fingerprint="print",
    )


def at_once(calls: list[Callable[[], Result]]) -> list[Result]:
    together = threading.Barrier(len(calls))

    def run(call: Callable[[], Result]) -> Result:
        together.wait(MAX_SECONDS)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def stored(queues: list[JobQueue]) -> list[int]:
    """Return how many uploads each queue has."""
    return [len(list(queue.uploads.path("").glob("*"))) for queue in queues]


def test_machines_keep_to_the_limit_of_queued_jobs_together(queues: list[JobQueue]) -> None:
    def submit(queue: JobQueue) -> Callable[[], bool]:
        request = upload(queue)

        def call() -> bool:
            try:
                queue.submit(request, str(uuid.uuid4()))
            except QueueFull:
                return False
            return True

        return call

    assert sum(at_once([submit(queue) for queue in queues * 6])) == MAX_QUEUED
    assert sum(stored(queues)) == MAX_QUEUED
    positions = sorted(job.position for job in queues[0].store.unfinished())
    assert positions == [1, 2, 3]


def test_a_request_that_two_machines_receive_at_once_makes_one_job(queues: list[JobQueue]) -> None:
    for _ in range(MAX_QUEUED):
        job_id = str(uuid.uuid4())
        requests = [upload(queue) for queue in queues]
        pairs = zip(queues, requests, strict=True)
        jobs = at_once([partial(queue.submit, request, job_id) for queue, request in pairs])
        assert [job.id for job in jobs] == [job_id] * 2
    assert sum(stored(queues)) == MAX_QUEUED


def test_a_machine_that_froze_while_it_recorded_a_job_does_not_stop_the_others(
    queues: list[JobQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.dbos_store.TURN_SECONDS", 0.1)
    frozen, other = queues
    with frozen.store.adding(Path("unused")), pytest.raises(Unavailable):
        other.submit(upload(other), str(uuid.uuid4()))
    assert other.submit(upload(other), str(uuid.uuid4())).status == "queued"


def test_machines_know_the_devices_of_trainers_elsewhere(
    queues: list[JobQueue], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.dbos_store.TRAINERS_SECONDS", 0)
    queue = queues[0]
    queue.submit(upload(queue, cuda=True), str(uuid.uuid4()))  # nothing is known yet
    leases = []
    for name, cuda in (("plain", False), ("fast", True)):
        monkeypatch.setattr("app.jobs.lease.has_cuda", partial(bool, cuda))
        lease = new_lease(url, tmp_path, name)
        lease.acquire()
        lease.announce()
        leases.append(lease)
        if not cuda:
            with pytest.raises(DeviceUnavailable):
                queue.submit(upload(queue, cuda=True), str(uuid.uuid4()))
    queue.submit(upload(queue, cuda=True), str(uuid.uuid4()))
    for lease in leases:
        lease.release()
    assert stored(queues)[0] == 2
    assert queue.store.trainer_seen() is not None
