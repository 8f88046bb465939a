"""Limits hold for concurrent requests, and records stay short and private."""

import json
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import numpy as np
import pytest
from backports import zstd
from service import MAX_SECONDS, NOTEBOOK, Service

QUEUED = 3
ROOM = 10_000_000
CSV = {"content-type": "text/csv"}
TARGETS = {"targets": "y", "model": "other"}
ROWS = b"x,y\n1,2\n2,4\n3,6\n"
START = {"weights": [[0.5, -0.25, 0.125]] * 2, "intercept": [1.0, 2.0]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of two workers without a trainer."""
    running = Service(
        tmp_path_factory.mktemp("small"),
        workers=2,
        trainer_mode="external",
        max_queued_jobs=str(QUEUED),
        max_spool_bytes=str(ROOM),
        transfer_grace="600",
    ).start()
    yield running
    running.stop()


@pytest.fixture
def small(shared: Service) -> Iterator[Service]:
    """The service with no job in its queue."""
    yield shared
    for job in queued(shared):
        shared.client.post(f"/jobs/{job['id']}/cancel")


def queued(service: Service) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = service.client.get("/jobs?status=queued").json()["items"]
    return jobs


def upload_concurrently(service: Service, count: int, content: bytes, headers: dict[str, str]) -> Counter[int]:
    """Return the statuses of `count` uploads, each of which ends only when all have begun."""
    together = Barrier(count)

    def body() -> Iterator[bytes]:
        yield content[:1]
        together.wait(MAX_SECONDS)
        yield content[1:]

    def send(_: int) -> int:
        return httpx.post(
            f"{service.url}/train", params=TARGETS, content=body(), headers={**CSV, **headers}, timeout=MAX_SECONDS
        ).status_code

    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(send, range(count)))


def test_concurrent_uploads_do_not_exceed_the_limit_of_queued_jobs(small: Service) -> None:
    assert upload_concurrently(small, 20, ROWS, {}) == {202: QUEUED, 429: 20 - QUEUED}
    assert len(list((small.state / "spool").iterdir())) == QUEUED


def test_concurrent_uploads_do_not_exceed_the_limit_of_stored_bytes(small: Service) -> None:
    content = zstd.compress(b"x,y\n" + b"1.000000,2.000000\n" * 220_000)  # 4 MB; two such uploads fit
    statuses = upload_concurrently(small, 12, content, {"content-encoding": "zstd"})
    assert set(statuses) <= {202, 507}
    assert statuses[507] >= 10
    assert sum(path.stat().st_size for path in (small.state / "spool").iterdir()) <= ROOM


def test_a_repeated_upload_names_its_job_while_the_queue_is_full(small: Service) -> None:
    key = {**CSV, "idempotency-key": "first"}
    first = small.client.post("/train", params=TARGETS, content=ROWS, headers=key)
    for _ in range(QUEUED - 1):
        assert small.client.post("/train", params=TARGETS, content=ROWS, headers=CSV).status_code == 202
    assert small.client.post("/train", params=TARGETS, content=ROWS, headers=CSV).status_code == 429
    again = small.client.post("/train", params=TARGETS, content=ROWS, headers=key)
    assert again.status_code == 202
    assert again.json()["id"] == first.json()["id"]
    assert len(list((small.state / "spool").iterdir())) == QUEUED


def test_initial_coefficients_are_stored_with_the_rows_and_not_in_the_record(small: Service) -> None:
    wide = 300
    rows = {"instances": np.eye(2, wide).tolist(), "targets": np.eye(2, wide).tolist()}
    names = {f"{kind}_names": [f"{kind[0]}{i}" for i in range(wide)] for kind in ("feature", "target")}
    start = {"weights": np.full((wide, wide), 1 / 3).tolist(), "intercept": [0.0] * wide}
    job = small.submit(**rows, **names, model="wide", solver={"kind": "gradient_descent", "start": start})
    with closing(sqlite3.connect(small.state / "jobs.sqlite", timeout=60)) as database:
        ((inputs,),) = database.execute("SELECT inputs FROM workflow_input WHERE workflow_uuid = ?", [job])
    assert len(inputs) < 64_000
    spool = small.state / "spool"
    assert max(path.stat().st_size for path in spool.iterdir()) >= 8 * wide * wide
    assert [one["model"] for one in queued(small)] == ["wide"]
    small.client.post(f"/jobs/{job}/cancel")
    assert list(spool.iterdir()) == []


@pytest.mark.slow
def test_a_descent_starts_from_the_coefficients_in_the_request_and_its_card_has_them(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    try:
        solver = {"kind": "gradient_descent", "epochs": 1, "learning_rate": 1e-30, "start": START}
        assert service.train(**NOTEBOOK, solver=solver)["version"] == 2
        card = service.client.get("/models/crop-yield").json()
        assert [list(row.values()) for row in card["coefficients"].values()] == START["weights"]
        assert list(card["intercept"].values()) == START["intercept"]
        assert card["solver"]["start"] == START
        assert list((service.state / "spool").iterdir()) == []
    finally:
        service.stop()


def test_jobs_that_were_recorded_without_a_summary_are_read_and_cancelled(small: Service) -> None:
    job = small.submit(**NOTEBOOK)
    with closing(sqlite3.connect(small.state / "jobs.sqlite", timeout=60)) as database, database:
        database.execute("UPDATE workflow_status SET attributes = NULL")
    assert small.job(job)["model"] == "crop-yield"
    assert [one["model"] for one in queued(small)] == ["crop-yield"]
    small.client.post(f"/jobs/{job}/cancel")
    assert json.loads(small.client.get(f"/jobs/{job}").text)["status"] == "cancelled"


def test_other_users_can_read_neither_uploaded_rows_nor_the_job_database(small: Service) -> None:
    small.submit(**NOTEBOOK)
    places = [small.state, *(small.state / name for name in ("spool", "jobs.sqlite", "jobs.sqlite-wal"))]
    assert [place.name for place in places if stat.S_IMODE(place.stat().st_mode) & 0o077] == []


def test_without_a_trainer_the_metrics_have_no_time_when_one_ran(small: Service) -> None:
    small.submit(**NOTEBOOK)
    lines = small.client.get("/metrics").text.splitlines()
    assert not any(line.startswith("linserve_trainer_seen_timestamp_seconds ") for line in lines)
