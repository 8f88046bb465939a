"""A job that exceeds a limit on memory, time or crashes fails, and the next job succeeds."""

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from service import NOTEBOOK, Service, wait_for
from tables import MEDIA_TYPES
from trainers import trainer

from app.jobs.crash_loop import MAX_CRASHES

ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}


def upload(service: Service, table: pa.Table, **query: Any) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=1 << 16)
    return service.ended_job(
        service.client.post(
            "/train",
            params=query,
            content=sink.getvalue().to_pybytes(),
            headers={"content-type": MEDIA_TYPES["arrow"], "prefer": "wait=60"},
        )
    )


@pytest.mark.slow
def test_rows_that_do_not_fit_into_the_trainers_memory_fail_their_job_and_nothing_else(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_memory=str(1 << 30)).start()
    table = pa.table({name: np.arange(8e6) % 97 for name in ("a", "b", "c", "y")})
    try:
        service.train(**NOTEBOOK, solver={"kind": "gradient_descent", "epochs": 1})  # loads torch
        before = service.trainers()
        # A descent in mini-batches needs all rows in memory. One pass does not.
        batches = {"solver": "gradient_descent", "batch_size": 100_000, "learning_rate": 1e-9, "epochs": 1}
        failed = upload(service, table, model="large", targets="y", **batches)
        assert failed["status"] == "failed"
        assert failed["error"]["type"] == "urn:linserve:problem:memory-exceeded"
        assert "LINSERVE_TRAINER_MEMORY" in failed["error"]["detail"]
        assert upload(service, table, model="large", targets="y")["status"] == "succeeded"
        assert service.trainers() == before  # it did not crash
        assert list((service.state / "spool").glob("*")) == []
    finally:
        service.stop()


@pytest.mark.slow
def test_a_training_that_exceeds_the_time_limit_fails_and_names_the_limit(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external").start()
    try:
        with trainer(service, "strict", LINSERVE_MAX_JOB_SECONDS="2") as strict:
            failed = service.train(**NOTEBOOK, solver=ENDLESS)
            assert failed["status"] == "failed"
            assert failed["error"]["type"] == "urn:linserve:problem:time-exceeded"
            assert "2 seconds" in failed["error"]["detail"]
            # The trainer takes the next job. On a busy machine, that may exceed the limit too.
            taken = service.train(**NOTEBOOK, promote="never")
            assert taken["status"] == "succeeded" or taken["error"]["type"] == failed["error"]["type"]
            assert strict.poll() is None  # it did not crash
        with trainer(service, "patient"):
            assert service.train(**NOTEBOOK)["status"] == "succeeded"
    finally:
        service.stop()


@pytest.mark.slow
def test_a_job_whose_trainer_crashes_every_time_fails_and_the_next_job_succeeds(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    try:
        job_id = cross_validated(service)  # It writes no checkpoint, so all crashes count.
        for attempt in range(1, MAX_CRASHES + 1):
            wait_for(lambda attempt=attempt: counted_attempts(service) == (job_id, attempt))  # type: ignore[misc]
            (victim,) = service.trainers()
            os.kill(victim, signal.SIGKILL)
        job = service.end_of(job_id)
        assert job["status"] == "failed"
        assert job["error"]["type"] == "urn:linserve:problem:trainer-crashed"
        assert service.train(**NOTEBOOK)["version"] == 2
        assert service.predict([75, 63, 44])["version"] == 2
        assert list((service.state / "spool").glob("*")) == []
    finally:
        service.stop()


def counted_attempts(service: Service) -> tuple[str, int] | None:
    with contextlib.suppress(FileNotFoundError):
        job, _, _, attempt = json.loads((service.state / "attempt.local").read_text())
        return job, attempt
    return None


@pytest.mark.slow
def test_old_ended_jobs_are_removed_with_their_keys_and_their_versions_stay(tmp_path: Path) -> None:
    service = Service(tmp_path, max_retained_jobs="2").start()
    try:
        keyed = {"idempotency-key": "k", "prefer": "wait=60"}
        first = service.ended_job(service.client.post("/train", json=NOTEBOOK, headers=keyed))
        others = [service.train(**NOTEBOOK)["id"] for _ in range(2)]
        running = service.submit(**NOTEBOOK, solver=ENDLESS)
        next(job for job in service.follow(running) if job["status"] == "running")
        service.stop()
        service.start()  # and remove old jobs

        wait_for(lambda: service.client.get(f"/jobs/{first['id']}").status_code == 404)
        assert [service.job(job)["status"] for job in others] == ["succeeded", "succeeded"]
        assert service.job(running)["status"] in ("queued", "running")  # a job that has not ended is not removed
        assert service.client.get("/models/crop-yield").json()["versions"] == [1, 2, 3, 4]
        service.client.post(f"/jobs/{running}/cancel")
        again = service.ended_job(service.client.post("/train", json=NOTEBOOK, headers=keyed))
        assert again["version"] == 5
    finally:
        service.stop()


def cross_validated(service: Service, features: int = 400) -> str:
    """Submit a job that would take minutes of processor time: 34 penalties, with 30 fits for each."""
    random = np.random.default_rng(0)
    table = pa.table({f"x{i}": random.normal(size=1000) for i in range(features)} | {"y": random.normal(size=1000)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    answer = service.client.post(
        "/train",
        params={"model": "wide", "targets": "y", "l2": "auto", "folds": 30},
        content=sink.getvalue().to_pybytes(),
        headers={"content-type": MEDIA_TYPES["arrow"]},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def processor_seconds(pid: int) -> float:
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_an_exact_solution_stops_between_two_fits_when_it_is_cancelled_or_takes_too_long(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external").start()
    try:
        with trainer(service, "strict", LINSERVE_MAX_JOB_SECONDS="1"):
            late = service.end_of(cross_validated(service))
            assert late["status"] == "failed"
            assert late["error"]["type"] == "urn:linserve:problem:time-exceeded"
        with trainer(service, "patient") as patient:
            cancelled = cross_validated(service)
            next(job for job in service.follow(cancelled) if job["status"] == "running")
            service.client.post(f"/jobs/{cancelled}/cancel")
            before = processor_seconds(patient.pid)
            assert service.train(**NOTEBOOK)["status"] == "succeeded"  # because the trainer is free again
            assert processor_seconds(patient.pid) - before < 30  # The whole solution takes several times as long.
    finally:
        service.stop()
