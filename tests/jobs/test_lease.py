"""Leases of trainers in Postgres. The chaos phase `three_trainers` and `test_external.py` test the lock files."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from leases import die, new_lease
from postgres import Postgres
from service import MAX_SECONDS, wait_for

from app.errors import Unavailable
from app.jobs.dbos_database import prepare
from app.jobs.lease import PostgresLease, default_name

OLD = "UPDATE dbos.linserve_trainers SET seen = seen - interval '20 seconds' WHERE name = %s"


class Trainers:
    """Leases that a test acquires, and the executors of trainers that exited because they lost theirs."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._leases: list[PostgresLease] = []

    def new(self, name: str, machine: str = "machine") -> PostgresLease:
        self._leases.append(new_lease(self.url, self._folder, name, machine))
        return self._leases[-1]

    def start(self, name: str, machine: str = "machine") -> PostgresLease:
        lease = self.new(name, machine)
        lease.acquire()
        return lease

    def end(self) -> None:
        for lease in self._leases:
            die(lease)


@pytest.fixture
def trainers(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainers]:
    monkeypatch.setattr("app.jobs.lease.RENEW_SECONDS", 0.05)
    monkeypatch.setattr("app.jobs.lease.WAIT_SECONDS", 0.05)
    started = Trainers(postgres.new_job_database(), tmp_path)
    yield started
    started.end()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that is set instead of ending this process."""
    exited = threading.Event()

    monkeypatch.setattr("os._exit", lambda _: exited.set())
    return exited


def dead(lease: PostgresLease, *executors: PostgresLease | str) -> list[str]:
    """Return the dead ones among the executors."""
    names = [executor if isinstance(executor, str) else executor.executor for executor in executors]
    with lease.claim(names) as found:
        return found


def steady(lease: PostgresLease) -> PostgresLease:
    """Make a lease as it is once it was renewed for some time."""
    lease._renewing_since -= 1000
    return lease


def shaken(lease: PostgresLease) -> PostgresLease:
    """Make a lease as it is just after an outage of its database."""
    lease._renewing_since = time.monotonic()
    return lease


def test_only_trainers_that_have_died_are_claimed(trainers: Trainers, postgres: Postgres) -> None:
    first, second = steady(trainers.start("first")), trainers.start("second")
    assert dead(first, second, first, "of an earlier release") == ["of an earlier release"]
    die(second)
    assert dead(first, second) == []  # it may only be slow
    postgres.execute(OLD, ["second"], url=trainers.url)
    assert dead(first, second) == [second.executor]


def test_a_trainer_that_ended_in_order_is_claimed_at_once(trainers: Trainers) -> None:
    first, second = trainers.start("first"), trainers.start("second")
    second.release()
    assert dead(first, second) == [second.executor]


def test_the_outage_of_a_database_makes_nobody_dead(trainers: Trainers, postgres: Postgres) -> None:
    first, second = trainers.start("first"), trainers.start("second")
    die(second)
    postgres.execute(OLD, ["second"], url=trainers.url)
    assert dead(shaken(first), second) == []  # the first has not renewed for as long either
    assert dead(steady(first), second) == [second.executor]


def test_of_two_that_claim_at_once_one_gets_the_jobs(trainers: Trainers) -> None:
    first, second = trainers.start("first"), trainers.start("second")
    with first.claim(["gone"]) as found:
        assert found == ["gone"]
        assert dead(second, "gone") == []
    assert dead(second, "gone") == ["gone"]


def test_a_trainer_that_was_taken_for_dead_exits_at_once(
    trainers: Trainers, postgres: Postgres, exits: threading.Event
) -> None:
    lease = trainers.start("stopped")
    postgres.execute("UPDATE dbos.linserve_trainers SET executor = NULL", url=trainers.url)
    assert exits.wait(MAX_SECONDS)
    assert lease.executor.startswith("stopped/")


def test_a_second_trainer_of_a_name_waits_and_a_restarted_one_does_not(
    trainers: Trainers, exits: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    first = trainers.start("name", "here")
    second = trainers.new("name", "there")
    waiting = threading.Thread(target=second.acquire)
    waiting.start()
    wait_for(lambda: "another trainer has this name" in caplog.messages)
    assert waiting.is_alive()
    first.release()
    waiting.join(MAX_SECONDS)
    die(second)  # as by kill -9: its row is as fresh as a row can be
    caplog.clear()
    trainers.start("name", "there")
    assert "another trainer has this name" not in caplog.messages
    assert not exits.is_set()


def test_a_lease_survives_a_restart_of_the_database(
    trainers: Trainers, postgres: Postgres, exits: threading.Event
) -> None:
    lease = trainers.start("name")
    postgres.stop()
    with pytest.raises(Unavailable), lease.claim(["gone"]):
        pass
    postgres.start()
    renewed = time.monotonic()
    wait_for(lambda: lease._renewed > renewed)
    assert dead(lease, "gone") == ["gone"]
    assert not exits.is_set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_trainer_whose_lease_is_not_renewed_any_more_exits(
    trainers: Trainers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_thread(*_: object) -> None:
        raise SystemExit  # as a MemoryError while an error is logged

    lease = trainers.start("name")
    lease.check()
    monkeypatch.setattr(lease, "_transaction", end_thread)
    wait_for(lambda: not lease._keeper.is_alive())
    with pytest.raises(Unavailable):
        lease.check()


def test_any_number_of_processes_may_create_the_tables_at_once(postgres: Postgres) -> None:
    url = postgres.new_database()
    failed: list[Exception] = []

    def create() -> None:
        try:
            prepare(url)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_default_names_differ_by_state_folder_and_are_names_of_trainers(tmp_path: Path) -> None:
    names = {default_name(tmp_path / str(number)) for number in range(3)}
    assert len(names) == 3
    assert all(len(os.fsencode(name)) <= 64 and "/" not in name for name in names)
