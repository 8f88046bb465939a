"""Jobs of one model run one after another on any trainers."""

import base64
import json
import os
import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from service import NOTEBOOK, Service, wait_for
from threaded_service import ThreadedService
from trainers import log_of, trainer, wait_until_ready

DESCENT = {"kind": "gradient_descent", "epochs": 20, "learning_rate": 1e-5, "start": "current"}
ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}
NAMES: dict[str, Any] = {"feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two trainers."""
    running = ThreadedService(tmp_path_factory.mktemp("shared")).start()
    with ExitStack() as trainers:
        for name in ("one", "two"):
            trainers.enter_context(trainer(running, name))
        for name in ("one", "two"):
            wait_until_ready(running, name)
        yield running
    running.stop()


def card(service: Service, version: int, model: str = "crop-yield") -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(f"/models/{model}/versions/{version}").json()
    return found


def test_a_job_waits_for_the_previous_one_of_its_model_while_trainers_run_other_models(shared: Service) -> None:
    first = shared.submit(**NOTEBOOK, **NAMES, model="busy", solver=ENDLESS)
    next(job for job in shared.follow(first) if job["status"] == "running" and job["progress"])
    second = shared.submit(**NOTEBOOK, **NAMES, model="busy")
    third = shared.submit(**NOTEBOOK, **NAMES, model="idle")
    assert shared.end_of(third)["status"] == "succeeded"
    assert shared.job(second)["status"] == "queued"

    cancelled = shared.client.post(f"/jobs/{first}/cancel").json()
    listed = {job["id"]: job for job in shared.client.get("/jobs").json()["items"]}
    assert cancelled["status"] == "cancelled"
    for job in (cancelled, shared.job(first), listed[first]):
        assert datetime.fromisoformat(job["created_at"]) <= datetime.fromisoformat(job["started_at"])
        assert datetime.fromisoformat(job["started_at"]) <= datetime.fromisoformat(job["finished_at"])
    assert shared.end_of(second)["status"] == "succeeded"


def test_a_job_that_was_cancelled_before_it_began_never_started(shared: Service) -> None:
    first = shared.submit(**NOTEBOOK, **NAMES, model="waiting", solver=ENDLESS)
    second = shared.submit(**NOTEBOOK, **NAMES, model="waiting")
    assert shared.client.post(f"/jobs/{second}/cancel").json()["started_at"] is None
    shared.client.post(f"/jobs/{first}/cancel")


def test_descents_from_the_current_version_that_are_queued_together_continue_from_each_other(shared: Service) -> None:
    jobs = [shared.submit(**NOTEBOOK, solver=DESCENT) for _ in range(3)]
    versions = [shared.end_of(job)["version"] for job in jobs]
    for before, version in zip([1, *versions], versions, strict=False):
        found = card(shared, version)
        assert found["solver"]["start"] == {"version": before}
        assert found["parent"] == before
        assert found["warnings"] == [warning for warning in found["warnings"] if "promoted" not in warning]
    assert shared.client.get("/models/crop-yield").json()["version"] == versions[-1]


def test_updates_that_are_queued_together_add_up(shared: Service) -> None:
    shared.train(**NOTEBOOK, **NAMES, model="updated")
    jobs = [shared.submit(**NOTEBOOK, **NAMES, model="updated", mode="update") for _ in range(4)]
    assert {shared.end_of(job)["status"] for job in jobs} == {"succeeded"}
    assert shared.client.get("/models/updated").json()["rows"] == 5 * len(NOTEBOOK["instances"])


def test_a_start_from_a_missing_current_version_is_refused(shared: Service) -> None:
    answer = shared.client.post("/train", json={**NOTEBOOK, **NAMES, "model": "newcomer", "solver": DESCENT})
    assert answer.status_code == 422
    (place,) = answer.json()["errors"]
    assert (place["pointer"], place["detail"]) == (
        "/solver/start",
        "The model has no current version to start from.",
    )


class Harmful:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickled_values_in_the_job_database_are_not_decoded(shared: Service, tmp_path: Path) -> None:
    marks = [tmp_path / str(number) for number in range(8)]
    pickled = [base64.b64encode(pickle.dumps(Harmful(mark))).decode() for mark in marks]
    whole = shared.submit(**NOTEBOOK, **NAMES, model="planted")
    assert shared.end_of(whole)["status"] == "succeeded"
    ids = {kind: f"00000000-0000-4000-8000-{number:012d}" for number, kind in enumerate(("queued", "ended", "failed"))}
    with closing(sqlite3.connect(shared.state / "jobs.sqlite", timeout=60)) as database, database:
        names = [row[1] for row in database.execute("PRAGMA table_info(workflow_status)")]
        row = dict(
            zip(
                names,
                database.execute("SELECT * FROM workflow_status WHERE workflow_uuid = ?", (whole,)).fetchone(),
                strict=True,
            )
        )
        inputs_in_status = "inputs" in names

        def plant(kind: str, **columns: Any) -> None:
            planted = {**row, "workflow_uuid": ids[kind], "serialization": "py_pickle", **columns}
            if inputs_in_status:
                planted["inputs"] = pickled[0]
            marks_of = ", ".join("?" for _ in planted)
            database.execute(
                f"INSERT INTO workflow_status ({', '.join(planted)}) VALUES ({marks_of})",  # noqa: S608 - names of DBOS
                tuple(planted.values()),
            )
            database.execute(
                "INSERT INTO workflow_input (workflow_uuid, inputs) VALUES (?, ?)", (ids[kind], pickled[0])
            )

        plant("ended", output=pickled[1])
        plant("failed", status="ERROR", output=None, error=pickled[2])
        plant(
            "queued",
            status="ENQUEUED",
            output=None,
            completed_at=None,
            started_at_epoch_ms=None,
            owner_xid=None,
            attributes=None,
            queue_partition_key="planted",
        )
        for kind in ("ended", "failed"):
            database.execute(
                "INSERT INTO workflow_events (workflow_uuid, key, value, serialization) VALUES (?, ?, ?, ?)",
                (ids[kind], "progress", pickled[3], "py_pickle"),
            )

    wait_for(lambda: shared.job(ids["queued"])["status"] == "failed")
    for planted in ids.values():
        job = shared.job(planted)
        assert job["status"] == "failed"
        assert job["error"]["detail"].startswith("The record of this job in the job database is not in JSON")
    listed = {job["id"]: job["status"] for job in shared.client.get("/jobs").json()["items"]}
    assert {listed[planted] for planted in ids.values()} == {"failed"}
    assert shared.client.post(f"/jobs/{ids['queued']}/cancel").json()["status"] == "failed"
    assert shared.train(**NOTEBOOK, **NAMES, model="planted", mode="update")["status"] == "succeeded"
    assert [mark.name for mark in marks if mark.exists()] == []


@pytest.mark.slow
def test_a_pickled_step_fails_its_job_and_is_not_decoded(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external").start()
    mark = tmp_path / "mark"
    job = service.submit(**NOTEBOOK)
    with closing(sqlite3.connect(service.state / "jobs.sqlite", timeout=60)) as database, database:
        database.execute(
            "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, output, serialization) "
            "VALUES (?, 1, 'publish', ?, 'py_pickle')",
            (job, base64.b64encode(pickle.dumps(Harmful(mark))).decode()),
        )
        # As recorded by an earlier release, which had no partitions.
        database.execute("UPDATE workflow_status SET queue_partition_key = NULL")
    later = service.submit(**NOTEBOOK)
    with trainer(service, "one"):
        ended = service.end_of(job)
        assert ended["status"] == "failed"
        assert ended["error"]["detail"].startswith("The record of this job in the job database is not in JSON")
        assert service.end_of(later)["status"] == "succeeded"
    assert not mark.exists()
    logged = [json.loads(line) for line in log_of(service, "one").read_text().splitlines() if line.startswith("{")]
    assert not any("Traceback" in json.dumps(line) for line in logged if line["level"] == "CRITICAL")
    service.stop()
