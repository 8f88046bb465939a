"""Trainers started by hand, and a job database that cannot be reached."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from service import MAX_SECONDS, NOTEBOOK, POLL_SECONDS, ROOT, Service, arm, wait_for, written_lines
from threaded_service import ThreadedService
from trainers import log_of, trainer, wait_until_ready

from app.logs import LOG_INTERVAL_SECONDS

ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}
NOWHERE = "postgresql://linserve:hidden@127.0.0.1:1/jobs"  # pragma: allowlist secret


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The same for all tests that leave no job behind."""
    running = ThreadedService(tmp_path_factory.mktemp("shared")).start()
    yield running
    running.stop()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Service]:
    """A service without a trainer of its own."""
    running = Service(tmp_path, trainer_mode="external").start()
    yield running
    running.stop()


def lines_of(log: Path) -> list[dict[str, Any]]:
    """Return the records in a log."""
    return [json.loads(line) for line in written_lines(log) if line.startswith("{")]


@pytest.mark.slow
def test_a_job_whose_trainer_does_not_come_back_is_taken_over_by_another(alone: Service, tmp_path: Path) -> None:
    job_id = alone.submit(**NOTEBOOK)
    arm(tmp_path, "fitted")
    with trainer(alone, "first", CHAOS_FAILPOINTS=str(tmp_path)) as first:
        assert first.wait(MAX_SECONDS) == -signal.SIGKILL
    assert alone.job(job_id)["status"] == "running"
    with trainer(alone, "second"):
        assert alone.end_of(job_id)["status"] == "succeeded"
        log = log_of(alone, "second")
        wait_for(lambda: "jobs taken over" in log.read_text())  # written after the job is queued again
    (line,) = [record for record in lines_of(log) if record["message"] == "jobs taken over"]
    assert (line["trainer"], line["jobs"]) == ("first", [job_id])
    assert alone.client.get("/models/crop-yield").json()["versions"] == [1, 2]


@pytest.mark.slow
def test_the_job_of_a_stopped_trainer_is_not_taken_over(alone: Service) -> None:
    with trainer(alone, "first") as first:
        job_id = alone.submit(**NOTEBOOK, solver=ENDLESS)
        next(job for job in alone.follow(job_id) if job["status"] == "running" and job["progress"])
        first.send_signal(signal.SIGSTOP)
        with trainer(alone, "second"):
            wait_for(lambda: "trainer ready" in log_of(alone, "second").read_text())
            names = {"feature_names": ["a", "b", "c"], "target_names": ["d", "e"]}
            other = alone.submit(**NOTEBOOK, **names, model="other")
            assert alone.end_of(other)["status"] == "succeeded"  # so it has checked for jobs of dead trainers
            assert alone.job(job_id)["status"] == "running"
            assert "jobs taken over" not in log_of(alone, "second").read_text()
        alone.client.post(f"/jobs/{job_id}/cancel")


def test_waiting_jobs_of_another_version_are_logged(shared: Service) -> None:
    jobs = [shared.submit(**NOTEBOOK) for _ in range(2)]
    with closing(sqlite3.connect(shared.state / "jobs.sqlite", timeout=60)) as database, database:
        database.execute("UPDATE workflow_status SET application_version = '0'")
    with trainer(shared, "newer"):
        wait_until_ready(shared, "newer")
    (line,) = [
        record for record in lines_of(log_of(shared, "newer")) if record["message"] == "jobs of another version wait"
    ]
    assert (line["level"], line["jobs"]) == ("WARNING", 2)
    for job in jobs:
        shared.client.post(f"/jobs/{job}/cancel")


def test_the_metrics_have_the_time_when_a_trainer_last_ran(shared: Service) -> None:
    def seen() -> float | None:
        lines = shared.client.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith("linserve_trainer_seen_timestamp_seconds ")]
        return float(found[0].split()[1]) if found else None

    before = seen()  # None, unless a test ran a trainer
    began = time.time()
    with trainer(shared, "one"):
        wait_for(lambda: seen() != before)
        first = seen()
        assert first is not None
        assert began - 1 < first < time.time() + 1  # A file system rounds times.
        wait_for(lambda: seen() != first)
    last = seen()
    shared.client.post(f"/jobs/{shared.submit(**NOTEBOOK)}/cancel")
    assert seen() == last


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the idle class of Linux")
def test_a_trainer_takes_only_processor_time_that_no_other_process_needs(tmp_path: Path) -> None:
    given = {"LINSERVE_STATE_DIR": str(tmp_path), "LINSERVE_MODELS_DIR": str(tmp_path), "CHAOS_FAIR": ""}
    with subprocess.Popen([sys.executable, "-m", "app.trainer"], cwd=ROOT, env=os.environ | given) as process:
        try:
            wait_for(lambda: os.sched_getscheduler(process.pid) == os.SCHED_IDLE)
        finally:
            process.kill()


@pytest.mark.slow
def test_each_process_logs_in_one_line_that_it_cannot_reach_the_database(tmp_path: Path) -> None:
    began = time.monotonic()
    service = Service(tmp_path, trainer_mode="external", database_url=NOWHERE).start()
    try:
        wait_for(lambda: "job database out of reach" in service.log.read_text())
        for _ in range(50):
            assert service.client.get("/jobs").status_code == 503
        with trainer(service, "one", LINSERVE_DATABASE_URL=NOWHERE) as started:
            assert started.wait(MAX_SECONDS) == 1
        service.predict([75, 63, 44])
        logs = [service.log, log_of(service, "one")]
        periods = 1 + (time.monotonic() - began) // LOG_INTERVAL_SECONDS
        for log in logs:
            records = [line for line in lines_of(log) if line["message"] == "job database out of reach"]
            assert {line["database"] for line in records} == {NOWHERE.replace("hidden", "***")}
            assert len(records) <= 4 + periods  # one in ten seconds, not one per request
            assert "hidden" not in log.read_text()
            assert "Traceback" not in log.read_text()
    finally:
        service.stop()


def test_with_a_damaged_database_the_service_predicts_and_logs_which_database_it_is(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "jobs.sqlite").write_bytes(b"no database at all" * 1000)
    service = Service(tmp_path).start()

    def records() -> list[dict[str, Any]]:
        return [line for line in lines_of(service.log) if line["message"] == "job database out of reach"]

    try:
        wait_for(lambda: {line["logger"] for line in records()} == {"app.jobs.dbos_store", "app.jobs.dbos_worker"})
        assert all(line["database"].endswith("state/jobs.sqlite") for line in records())
        assert "Traceback" not in service.log.read_text()
        service.predict([75, 63, 44])
    finally:
        service.stop()


@pytest.mark.slow
def test_a_database_that_breaks_under_a_running_service_does_not_fill_the_log(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    try:
        service.train(**NOTEBOOK)
        with closing(sqlite3.connect(service.state / "jobs.sqlite", timeout=60)) as database, database:
            for name in ("workflow_status", "queues"):
                database.execute(f"ALTER TABLE {name} RENAME TO {name}_away")
        before = len(lines_of(service.log))
        began = time.monotonic()

        def records() -> list[dict[str, Any]]:
            return [line for line in lines_of(service.log)[before:] if line["logger"] != "app.requests"]

        # An idle trainer polls several times in these seconds.
        while time.monotonic() - began < 4 or not any(line["logger"] == "dbos" for line in records()):
            assert service.client.get("/jobs").status_code == 503
            time.sleep(POLL_SECONDS)
        periods = 1 + (time.monotonic() - began) // LOG_INTERVAL_SECONDS
        assert len(records()) < 6 * (1 + periods)  # one of each kind in ten seconds
        assert "SELECT" not in service.log.read_text()
        assert "[parameters" not in service.log.read_text()
    finally:
        service.stop()
