"""The contract of JobStore and of the trainer's store, with each kind of database in DATABASES."""

import contextlib
import queue
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from postgres import Postgres
from service import MAX_SECONDS, wait_for

from app.errors import Conflict
from app.jobs.dbos_database import new_engine, prepare
from app.jobs.dbos_store import DBOSStore
from app.jobs.job import Failure, Job, JobFailed, JobFilter, JobKey, Status
from app.jobs.store import JobHandler, JobStore, UnfinishedJob
from app.regression.solvers import Exact
from app.training.progress import PUBLISHING, JobCancelled, Progress
from app.training.request import TrainingRequest

if TYPE_CHECKING:
    from app.jobs.dbos_worker import DBOSWorkerStore

TIME = 1767225600000  # the beginning of 2026
FUTURE = 4102444800000  # the beginning of 2100
RESULT: dict[str, Any] = {"version": 3, "metrics": {"mse": 0.5}, "warnings": ["few rows"]}


@dataclass(frozen=True)
class Database:
    """Opens stores of the same records."""

    url: str
    store: Callable[[], JobStore]
    worker: Callable[[JobHandler], AbstractContextManager["DBOSWorkerStore"]]


@pytest.fixture(scope="module")
def file_with_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the tables of jobs, to copy, because they take a while to create."""
    made = tmp_path_factory.mktemp("tables") / "jobs.sqlite"
    prepare(f"sqlite:///{made}")
    assert [path.name for path in made.parent.iterdir()] == [made.name]  # Its log has been merged into it.
    return made


def open_database(request: pytest.FixtureRequest, folder: Path) -> Database:
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.new_job_database()
    else:
        url = f"sqlite:///{folder / 'jobs.sqlite'}"
        shutil.copy(request.getfixturevalue("file_with_tables"), folder / "jobs.sqlite")

    @contextlib.contextmanager
    def worker(handler: JobHandler) -> Iterator["DBOSWorkerStore"]:
        from dbos import DBOS
        from sqlalchemy import event

        from app.jobs.dbos_worker import DBOSWorkerStore
        from app.jobs.lease import FileLease, open_lease

        file = FileLease(
            "trainer",
            lambda name: folder / f"{name}.lock",
            inherited=False,
            capabilities=folder / "trainer.json",
            seen=folder / "seen",
        )
        lease = open_lease(url, "trainer", file)
        lease.acquire()
        store = DBOSWorkerStore(url, "trainer", lease, folder)
        store.open(handler)
        store.keep_polling()
        try:
            yield store
        finally:
            store._schedule.stop()
            assert store._polling is not None
            store._polling.join()
            if store._engine is not None:  # DBOS does so with an engine of its own, for threads that end later
                event.listen(store._engine, "checkin", lambda _, record: record.invalidate())
            for thread in threading.enumerate():
                if isinstance(thread, threading.Timer):  # looks at a cancelled job once more
                    thread.join()
            del store._dbos._background_threads[0]  # It sleeps for an hour, and DBOS would wait 10 s for it.
            DBOS.destroy(destroy_registry=True)
            if store._engine is not None:
                store._engine.dispose()
            lease.release()

    return Database(url, lambda: DBOSStore(url), worker)


def set_time(url: str, milliseconds: float, job_ids: Sequence[str]) -> None:
    """Change the time at which jobs were recorded."""
    with changing(url) as (connection, jobs):
        connection.execute(sa.update(jobs).where(jobs.c.workflow_uuid.in_(job_ids)).values(created_at=milliseconds))


def remove(url: str, *job_ids: str) -> None:
    """Remove records, as a trainer does that prunes them."""
    with changing(url) as (connection, jobs):
        connection.execute(sa.delete(jobs).where(jobs.c.workflow_uuid.in_(job_ids)))


@contextlib.contextmanager
def changing(url: str) -> Iterator[tuple[sa.Connection, sa.TableClause]]:
    schema = None if url.startswith("sqlite") else "dbos"
    columns = ("workflow_uuid", "created_at", "started_at_epoch_ms", "completed_at", "application_name")
    jobs = sa.table("workflow_status", *(sa.column(name) for name in columns), schema=schema)
    engine = new_engine(url)
    with engine.begin() as connection:
        yield connection, jobs
    engine.dispose()


DATABASES = ("sqlite", "postgres")


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return open_database(request, tmp_path)


@pytest.fixture
def store(database: Database) -> Iterator[JobStore]:
    opened = database.store()
    opened.connect()
    yield opened
    opened.close()


class Gate:
    """Holds a job inside its handler until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def wait(self) -> dict[str, Any]:
        self.reached.set()
        assert self.open.wait(MAX_SECONDS)
        return RESULT


def new_request(model: str = "crop", upload: str = "rows", fingerprint: str = "print") -> TrainingRequest:
    return TrainingRequest(
        model=model,
        upload=upload,
        format="csv",
        features=("a",),
        targets=("b",),
        solver=Exact(),
        promote="always",
        fingerprint=fingerprint,
    )


def add(store: JobStore, position: int = 1, **fields: str) -> str:
    job_id = str(uuid.uuid4())
    store.add(job_id, new_request(**fields), position)
    return job_id


def job_of(store: JobStore, job_id: str) -> Job:
    record = store.find(job_id)
    assert record is not None
    return record.job


def end_of(store: JobStore, job_id: str) -> Job:
    wait_for(lambda: job_of(store, job_id).status.ended)
    return job_of(store, job_id)


def ids(jobs: Iterable[Job | UnfinishedJob]) -> list[str]:
    return [job.id for job in jobs]


def page_of(
    store: JobStore, limit: int, after: JobKey | None = None, **conditions: Any
) -> tuple[list[str], JobKey | None]:
    jobs, last = store.list_jobs(JobFilter(**conditions), limit=limit, after=after)
    return ids(jobs), last


def listed(store: JobStore, **conditions: Any) -> list[str]:
    found, last = page_of(store, 99, **conditions)
    assert last is None
    return found


Work = Callable[[str, dict[str, Any]], dict[str, Any]]


class Handler:
    """Runs a job with the function for its model, and notes the ids of the jobs that are cleaned up."""

    def __init__(self) -> None:
        self.cleaned: queue.Queue[str] = queue.Queue()
        self.work: dict[str, Work] = {}

    def run_job(self, job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        return self.work[request["model"]](job_id, request)

    def clean_up(self, job_id: str, _: dict[str, Any]) -> None:
        self.cleaned.put(job_id)

    def wait_until_cleaned(self, job_id: str) -> None:
        while self.cleaned.get(timeout=MAX_SECONDS) != job_id:
            pass


@dataclass(frozen=True)
class Running:
    """A database with a worker. Each test uses a model of its own."""

    url: str
    store: JobStore
    worker: "DBOSWorkerStore"
    handler: Handler

    def add(self, model: str, work: Work, position: int = 1) -> str:
        self.handler.work[model] = work
        return add(self.store, position, model=model)


@pytest.fixture(scope="module", params=DATABASES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    database = open_database(request, tmp_path_factory.mktemp("running"))
    store, handler = database.store(), Handler()
    store.connect()
    with database.worker(handler) as worker:
        yield Running(database.url, store, worker, handler)
    store.close()


def test_a_new_job_is_queued_and_its_record_has_its_upload_and_fingerprint(store: JobStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    record = store.find(job_id := add(store))
    assert record is not None
    assert (record.upload, record.fingerprint) == ("rows", "print")
    job = record.job
    assert (job.id, job.status, job.model) == (job_id, Status.QUEUED, "crop")
    assert before <= job.created_at <= datetime.now(UTC) + timedelta(milliseconds=1)  # Postgres rounds it
    assert (job.started_at, job.finished_at, job.version, job.progress, job.error) == (None,) * 5


def test_a_job_is_recorded_once_whatever_comes_later_under_its_id(store: JobStore) -> None:
    job_id = add(store)
    store.add(job_id, new_request("other", "other-rows", "other-print"), 2)
    record = store.find(job_id)
    assert record is not None
    assert (record.job.model, record.upload, record.fingerprint) == ("crop", "rows", "print")
    assert ids(store.unfinished()) == [job_id]


def test_a_recorded_job_is_read_by_another_store_after_the_first_was_closed(database: Database) -> None:
    first = database.store()
    job_id = add(first)
    first.close()
    second = database.store()
    assert job_of(second, job_id).status == Status.QUEUED
    second.close()


def test_unknown_jobs_are_not_found(store: JobStore) -> None:
    job_id = add(store)
    unknown = str(uuid.uuid4())
    assert store.find(unknown) is None
    assert store.get_many([unknown, job_id]).keys() == {job_id}


def test_jobs_are_listed_newest_first_in_pages(store: JobStore) -> None:
    first, second, third, fourth, fifth = [add(store, position) for position in range(1, 6)]
    assert page_of(store, 9) == ([fifth, fourth, third, second, first], None)
    page, last = page_of(store, 2)
    assert page == [fifth, fourth]
    page, last = page_of(store, 2, last)
    assert page == [third, second]
    assert page_of(store, 2, last) == ([first], None)
    assert page_of(store, 1, last) == ([first], None)


@pytest.mark.parametrize("positions", [(1, 2, 3, 4), (1, 1, 2, 2)], ids=str)
def test_jobs_recorded_at_the_same_time_are_listed_once_in_the_order_of_their_positions(
    database: Database, store: JobStore, positions: tuple[int, ...]
) -> None:
    position_of = {add(store, position): position for position in positions}
    set_time(database.url, TIME, [*position_of])
    found = listed(store)
    assert [position_of[job_id] for job_id in found] == sorted(positions, reverse=True)
    pages, last = page_of(store, 1)
    while last is not None:
        page, last = page_of(store, 1, last)
        pages += page
    assert pages == found
    assert set(found) == set(position_of)


@pytest.mark.parametrize("same_time", [True, False])
def test_a_job_recorded_between_two_pages_does_not_shift_the_second(
    database: Database, store: JobStore, *, same_time: bool
) -> None:
    first, second, third = [add(store, position) for position in range(1, 4)]
    page, last = page_of(store, 1)
    fourth = add(store, 4)
    if same_time:
        assert last is not None
        set_time(database.url, last.created_at, [first, second, third, fourth])
    assert (page, page_of(store, 2, last)) == ([third], ([second, first], None))
    assert listed(store) == [fourth, third, second, first]


def test_jobs_that_end_between_two_pages_of_a_status_do_not_shift_the_second(store: JobStore) -> None:
    first, second, third, fourth, fifth = [add(store, position) for position in range(1, 6)]
    page, last = page_of(store, 2, status=Status.QUEUED)
    assert page == [fifth, fourth]
    store.cancel(fifth)
    store.cancel(fourth)
    store.cancel(second)
    assert page_of(store, 2, last, status=Status.QUEUED) == ([third, first], None)
    assert listed(store, status=Status.CANCELLED) == [fifth, fourth, second]


def test_a_list_continues_after_a_job_that_was_pruned(database: Database, store: JobStore) -> None:
    first, second, third, fourth = [add(store, position) for position in range(1, 5)]
    page, last = page_of(store, 2)
    assert page == [fourth, third]
    remove(database.url, third, fourth)
    assert page_of(store, 1, last)[0] == [second]
    added = add(store, 5)
    assert page_of(store, 9, last)[0][-2:] == [second, first]
    assert listed(store) == [added, second, first]


def test_a_list_begins_after_any_key(store: JobStore) -> None:
    job_id = add(store)
    largest = 2**63 - 1
    assert page_of(store, 1, JobKey(largest, largest, job_id)) == ([job_id], None)
    assert page_of(store, 1, JobKey(0, 0, job_id), since=datetime(1, 1, 1, tzinfo=UTC)) == ([], None)


def test_a_job_is_listed_although_the_clock_of_the_database_is_ahead(database: Database, store: JobStore) -> None:
    job_id = add(store)
    set_time(database.url, FUTURE, [job_id])
    assert listed(store) == [job_id]


def test_a_page_with_a_job_that_is_pruned_while_it_is_read_is_followed_by_the_next(
    database: Database, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = [add(store, position) for position in range(1, 4)]
    read = DBOSClient.list_workflows

    def prune_and_read(*arguments: Any, **conditions: Any) -> Any:
        remove(database.url, second)
        return read(*arguments, **conditions)

    monkeypatch.setattr(DBOSClient, "list_workflows", prune_and_read)
    page, last = page_of(store, 2)
    assert page == [third]
    assert page_of(store, 2, last) == ([first], None)


def test_a_list_has_only_the_jobs_that_meet_its_conditions(store: JobStore) -> None:
    crop, other = add(store), add(store, 2, model="other")
    store.cancel(crop)
    now = datetime.now(UTC)
    assert listed(store, model="other") == [other]
    assert listed(store, status=Status.CANCELLED) == [crop]
    assert listed(store, status=Status.QUEUED, model="crop") == []
    assert listed(store, since=now - timedelta(hours=1)) == [other, crop]
    assert listed(store, since=now + timedelta(hours=1)) == []


def test_a_list_has_no_workflow_of_another_application_and_one_of_an_unknown_application(
    database: Database, store: JobStore
) -> None:
    other, unknown = add(store), add(store, 2)
    with changing(database.url) as (connection, jobs):
        for job_id, application in ((other, "other"), (unknown, None)):
            change = sa.update(jobs).where(jobs.c.workflow_uuid == job_id).values(application_name=application)
            assert connection.execute(change).rowcount == 1
    assert listed(store) == ids(store.unfinished()) == [unknown]


@pytest.mark.parametrize("time", [TIME + 123, TIME + 122.9998])
def test_a_list_since_the_time_of_a_job_has_that_job(database: Database, store: JobStore, time: float) -> None:
    """DBOS multiplies a fraction of a second in SQLite, so a time may be just below its millisecond."""
    job_id = add(store)
    set_time(database.url, time, [job_id])
    created_at = job_of(store, job_id).created_at
    assert created_at == datetime(2026, 1, 1, microsecond=123_000, tzinfo=UTC)
    assert listed(store, since=created_at) == [job_id]
    assert listed(store, since=created_at + timedelta(milliseconds=1)) == []


def test_no_time_of_a_job_is_before_an_earlier_one(database: Database, store: JobStore) -> None:
    job_id = add(store)
    with changing(database.url) as (connection, jobs):
        connection.execute(sa.update(jobs).values(created_at=TIME + 2, started_at_epoch_ms=TIME + 1, completed_at=TIME))
    job = job_of(store, job_id)
    assert job.created_at == job.started_at == job.finished_at == datetime(2026, 1, 1, microsecond=2000, tzinfo=UTC)


def test_unfinished_jobs_have_their_model_and_position(store: JobStore) -> None:
    first, second, third = add(store, 4), add(store, 5, model="other"), add(store, 6)
    store.cancel(third)
    found = {job.id: (job.status, job.model, job.position) for job in store.unfinished()}
    assert found == {first: (Status.QUEUED, "crop", 4), second: (Status.QUEUED, "other", 5)}


def test_a_cancelled_job_has_ended_and_cancelling_it_again_changes_nothing(store: JobStore) -> None:
    job_id = add(store)
    store.cancel(job_id)
    cancelled = job_of(store, job_id)
    assert (cancelled.status, cancelled.started_at) == (Status.CANCELLED, None)
    store.cancel(job_id)
    assert job_of(store, job_id) == cancelled


def test_a_job_runs_with_its_request_and_its_result_is_recorded(running: Running) -> None:
    requests = []

    def work(job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        requests.append((job_id, TrainingRequest.from_json(request)))
        return RESULT

    job_id = running.add("succeeding", work)
    running.handler.wait_until_cleaned(job_id)
    job = end_of(running.store, job_id)
    assert requests == [(job_id, new_request("succeeding"))]
    assert (job.status, job.version, job.metrics) == (Status.SUCCEEDED, 3, {"mse": 0.5})
    assert job.warnings == ("few rows",)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.created_at <= job.started_at <= job.finished_at
    running.store.cancel(job_id)
    assert job_of(running.store, job_id) == job


def test_a_job_that_fails_has_its_failure_and_is_cleaned_up(running: Running) -> None:
    failure = Failure("InvalidInput", "Row 2 has no target.", version=7)

    def work(*_: Any) -> dict[str, Any]:
        raise JobFailed(failure)

    job_id = running.add("failing", work)
    running.handler.wait_until_cleaned(job_id)
    job = end_of(running.store, job_id)
    assert (job.status, job.error, job.version, job.metrics) == (Status.FAILED, failure, 7, None)


def test_an_unexpected_error_fails_the_job_and_is_not_shown(running: Running) -> None:
    def work(*_: Any) -> dict[str, Any]:
        raise ValueError("a value of somebody's row")

    job = end_of(running.store, running.add("broken", work))
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error.error == "TrainingFailed"
    assert "somebody" not in str(job)


def test_the_progress_of_a_running_job_is_read_but_not_listed(running: Running) -> None:
    gate = Gate()
    progress = Progress("fitting", rows=15, epoch=2, epochs=10, loss=1.5)

    def work(*_: Any) -> dict[str, Any]:
        running.worker.report(progress, [(0, 4.0), (2, 1.5)])
        return gate.wait()

    job_id = running.add("reporting", work)
    assert gate.reached.wait(MAX_SECONDS)
    job = job_of(running.store, job_id)
    assert (job.status, job.progress, job.loss_curve) == (Status.RUNNING, progress, ((0, 4.0), (2, 1.5)))
    unknown = "00000000-0000-0000-0000-000000000000"
    assert running.store.progress([unknown, job_id]) == {job_id: progress}
    ((job,), _) = running.store.list_jobs(JobFilter(model="reporting"), limit=9)
    assert (job.status, job.progress, job.loss_curve) == (Status.RUNNING, None, None)
    gate.open.set()
    assert end_of(running.store, job_id).progress == progress


def test_a_running_job_learns_that_it_was_cancelled(running: Running) -> None:
    gate = Gate()

    def work(job_id: str, _: dict[str, Any]) -> dict[str, Any]:
        assert not running.worker.is_cancelled(job_id)
        gate.wait()
        assert running.worker.is_cancelled(job_id)
        raise JobCancelled

    job_id = running.add("cancelled", work)
    assert gate.reached.wait(MAX_SECONDS)
    running.store.cancel(job_id)
    gate.open.set()
    running.handler.wait_until_cleaned(job_id)
    job = job_of(running.store, job_id)
    assert job.status == Status.CANCELLED
    assert job.started_at is not None


def test_a_cancelled_job_cannot_record_that_it_publishes(running: Running) -> None:
    gate = Gate()

    def work(*_: Any) -> dict[str, Any]:
        result = gate.wait()
        running.worker.report(Progress(PUBLISHING), [])
        return result

    job_id = running.add("too-late", work)
    assert gate.reached.wait(MAX_SECONDS)
    running.store.cancel(job_id)
    gate.open.set()
    running.handler.wait_until_cleaned(job_id)
    assert job_of(running.store, job_id).status == Status.CANCELLED


def test_a_job_that_publishes_is_not_cancelled(running: Running) -> None:
    gate = Gate()

    def work(*_: Any) -> dict[str, Any]:
        running.worker.report(Progress(PUBLISHING), [])
        return gate.wait()

    job_id = running.add("publishing", work)
    assert gate.reached.wait(MAX_SECONDS)
    with pytest.raises(Conflict):
        running.store.cancel(job_id)
    gate.open.set()
    assert end_of(running.store, job_id).status == Status.SUCCEEDED


def test_a_job_that_was_claimed_but_never_started_is_taken_again_and_a_running_one_is_not(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def fail(*_: Any) -> None:
        monkeypatch.undo()
        failed.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("dbos._queue.execute_dequeued_workflow", fail)
    lost = running.add("lost", lambda *_: RESULT)
    assert failed.wait(MAX_SECONDS)
    gate, starts = Gate(), []

    def work(job_id: str, _: dict[str, Any]) -> dict[str, Any]:
        starts.append(job_id)
        return gate.wait()

    other = running.add("started", work)
    assert gate.reached.wait(MAX_SECONDS)
    statuses = []
    for _ in range(2):  # a single look may come between the claim of a job and its start
        running.worker.take_over()
        statuses.append(job_of(running.store, lost).status)
    gate.open.set()
    assert statuses == [Status.RUNNING, Status.QUEUED]
    assert end_of(running.store, lost).status == end_of(running.store, other).status == Status.SUCCEEDED
    assert starts == [other]


def test_a_job_that_publishes_stays_running_if_the_service_dies_while_it_cancels_it(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()

    def work(*_: Any) -> dict[str, Any]:
        running.worker.report(Progress(PUBLISHING), [])
        return gate.wait()

    class Died(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Died

    job_id = running.add("publishing-late", work)
    assert gate.reached.wait(MAX_SECONDS)
    # A replica that looked just before the trainer recorded that it publishes, and dies before it reverts its change.
    looks: Iterator[dict[str, Any]] = iter([{}])
    publishing = {"progress": {"phase": PUBLISHING}}
    monkeypatch.setattr(DBOSStore, "_read_reports", lambda _, ids: {job: next(looks, publishing) for job in ids})
    monkeypatch.setattr("dbos.DBOSClient.resume_workflow", die)
    with contextlib.suppress(Died, Conflict):
        running.store.cancel(job_id)
    monkeypatch.undo()
    status = job_of(running.store, job_id).status
    gate.open.set()
    assert status == Status.RUNNING
    assert end_of(running.store, job_id).status == Status.SUCCEEDED


def test_a_job_whose_record_is_pruned_while_it_is_cancelled_has_ended(store: JobStore) -> None:
    store.cancel(str(uuid.uuid4()))


def test_jobs_of_a_model_run_one_after_another_in_the_order_of_their_positions(running: Running) -> None:
    gate = Gate()
    order = []

    def work(job_id: str, _: dict[str, Any]) -> dict[str, Any]:
        order.append(job_id)
        return gate.wait()

    first = running.add("ordered", work, 1)
    assert gate.reached.wait(MAX_SECONDS)
    third, second = running.add("ordered", work, 3), running.add("ordered", work, 2)
    assert order == [first]
    gate.open.set()
    end_of(running.store, third)
    assert order == [first, second, third]


def test_the_oldest_ended_jobs_are_pruned_and_unfinished_ones_stay(running: Running) -> None:
    gate = Gate()
    waiting = running.add("unpruned", lambda *_: gate.wait())
    assert gate.reached.wait(MAX_SECONDS)
    ended = [add(running.store, position, model="unpruned") for position in (10, 11, 12)]
    for job_id in ended:
        running.store.cancel(job_id)
    set_time(running.url, FUTURE, ended)  # other tests added jobs to the same store just now
    running.worker.prune(2)
    left, _ = running.store.list_jobs(JobFilter(), limit=99)
    gate.open.set()
    end_of(running.store, waiting)
    assert ids(job for job in left if job.status.ended) == [ended[2], ended[1]]
    assert ids(job for job in left if job.status == Status.RUNNING) == [waiting]


def test_the_uploads_of_all_jobs_are_known_and_which_have_ended(running: Running) -> None:
    gate = Gate()
    started = running.add("uploaded", lambda *_: gate.wait())
    assert gate.reached.wait(MAX_SECONDS)
    cancelled = add(running.store, 2, model="uploaded", upload="others")
    running.store.cancel(cancelled)
    uploads = {upload.id: (upload.upload, upload.ended) for upload in running.worker.uploads()}
    gate.open.set()
    end_of(running.store, started)
    assert (uploads[started], uploads[cancelled]) == (("rows", False), ("others", True))
