"""Services and trainers that share a database in Postgres and a store, and no folder."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen
from typing import Any, Self

import httpx
import pytest
from postgres import Postgres
from service import MAX_SECONDS, NOTEBOOK, Service, arm, wait_for
from trainers import log_of, trainer, wait_until_ready

from app.logs import LOG_INTERVAL_SECONDS

UPDATE: dict[str, Any] = {**NOTEBOOK, "mode": "update", "promote": "always"}
ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}
ROWS = len(NOTEBOOK["instances"])


class Cluster:
    """Two services and their trainers, which share a database and a store."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url, self.store = url, f"file://{folder / 'store'}"
        self.services = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            service = Service(folder / name, database_url=url, storage=self.store, trainer_mode="external")
            self.services.append(service.start())

    def trainer(self, service: Service, name: str, steps: Path | None = None) -> AbstractContextManager["Popen[bytes]"]:
        """Run a trainer on the machine of a service. Files in the folder `steps` arm failpoints."""
        armed = {} if steps is None else {"CHAOS_FAILPOINTS": str(steps)}
        return trainer(service, name, group=None, LINSERVE_DATABASE_URL=self.url, LINSERVE_STORAGE=self.store, **armed)

    def rows(self) -> int:
        """Return the number of rows of which the current version was made."""
        return int(self.services[0].client.get("/models/crop-yield").json()["rows"])

    def stop(self) -> None:
        for service in self.services:
            service.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"), postgres.new_job_database())
    yield started
    started.stop()


@pytest.mark.slow
def test_a_job_of_one_service_is_run_by_a_trainer_elsewhere_and_seen_by_the_other(cluster: Cluster) -> None:
    first, second = cluster.services
    job = first.submit(**NOTEBOOK)
    assert second.job(job)["status"] == "queued"
    with cluster.trainer(second, "elsewhere"):
        assert first.end_of(job)["status"] == "succeeded"
        wait_for(lambda: second.predict([75, 63, 44])["version"] == first.job(job)["version"])
        seen = "linserve_trainer_seen_timestamp_seconds "
        wait_for(lambda: all(seen in service.client.get("/metrics").text for service in cluster.services))


@pytest.mark.slow
def test_the_job_of_a_killed_trainer_runs_elsewhere_within_30_seconds(cluster: Cluster, postgres: Postgres) -> None:
    first, second = cluster.services

    def executor(job: str) -> str:
        query = "SELECT executor_id FROM dbos.workflow_status WHERE workflow_uuid = %s AND status = 'PENDING'"
        return "".join(found for (found,) in postgres.execute(query, [job], url=cluster.url))

    with cluster.trainer(first, "left") as left, cluster.trainer(second, "right") as right:
        wait_until_ready(first, "left")
        wait_until_ready(second, "right")
        job = first.submit(**NOTEBOOK, solver=ENDLESS)
        wait_for(lambda: executor(job))
        before = executor(job)
        (left if before.startswith("left/") else right).kill()
        killed_at = time.monotonic()
        wait_for(lambda: executor(job) not in ("", before))
        assert time.monotonic() - killed_at < 30
        assert second.job(job)["status"] == "running"
        assert second.client.post(f"/jobs/{job}/cancel").json()["status"] == "cancelled"


@pytest.mark.slow
def test_a_frozen_trainer_is_replaced_and_publishes_nothing_when_it_wakes_up(cluster: Cluster, tmp_path: Path) -> None:
    first, second = cluster.services
    before = cluster.rows()
    reached = arm(tmp_path, "fitted", signal.SIGSTOP)
    with cluster.trainer(first, "frozen", tmp_path) as frozen:
        jobs = [first.submit(**UPDATE)]
        wait_for(reached.exists)
        jobs += [first.submit(**UPDATE) for _ in range(2)]
        with cluster.trainer(second, "rescuer"):
            assert [second.end_of(job)["status"] for job in jobs] == ["succeeded"] * 3
            assert "jobs taken over" in log_of(second, "rescuer").read_text()
            frozen.send_signal(signal.SIGCONT)
            assert frozen.wait(MAX_SECONDS) == 1
            assert "lease lost" in log_of(first, "frozen").read_text()
            wait_for(lambda: cluster.rows() == before + 3 * ROWS)
            versions = [second.job(job)["version"] for job in jobs]
            assert len(set(versions)) == 3
            assert second.client.get("/models/crop-yield").json()["versions"][-3:] == sorted(versions)


class Updates:
    """Sends updates to the services in turn, and predictions, until the block ends."""

    def __init__(self, cluster: Cluster) -> None:
        self.jobs: list[str] = []
        self.refusals: list[httpx.Response] = []
        self.longest = {"train": 0.0, "predict": 0.0}
        self._services = cluster.services
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._train, self._predict)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def post(self, kind: str, number: int, body: dict[str, Any]) -> httpx.Response:
        began = time.monotonic()
        response = httpx.post(f"{self._services[number % 2].url}/{kind}", json=body, timeout=60)
        self.longest[kind] = max(self.longest[kind], time.monotonic() - began)
        return response

    def _train(self) -> None:
        number = 0
        while not self._stop.wait(0.3):
            number += 1
            response = self.post("train", number, UPDATE)
            if response.status_code == 202:
                self.jobs.append(response.json()["id"])
            else:
                self.refusals.append(response)

    def _predict(self) -> None:
        number = 0
        while not self._stop.wait(0.05):
            number += 1
            assert self.post("predict", number, {"instances": [[75, 63, 44]]}).status_code == 200


@pytest.mark.slow
def test_a_failover_of_postgres_loses_nothing_and_predictions_do_not_notice(
    cluster: Cluster, postgres: Postgres
) -> None:
    first, second = cluster.services
    before = cluster.rows()
    began = time.monotonic()

    def wait_for_more(responses: Sequence[object]) -> None:
        count = len(responses)
        wait_for(lambda: len(responses) > count)

    with cluster.trainer(first, "one"), cluster.trainer(second, "two"), Updates(cluster) as updates:
        for name, service in (("one", first), ("two", second)):
            wait_until_ready(service, name)
        wait_for(lambda: len(updates.jobs) > 3)
        postgres.cut_connections()
        postgres.read_only(True)
        wait_for_more(updates.refusals)
        time.sleep(5)
        postgres.read_only(False)
        wait_for_more(updates.jobs)
        postgres.stop()
        wait_for_more(updates.refusals)
        postgres.start()
        wait_for_more(updates.jobs)
        postgres.restart()
        updates.__exit__()
        ended = [first.end_of(job) for job in updates.jobs]
    assert {job["status"] for job in ended} == {"succeeded"}
    assert len({job["version"] for job in ended}) == len(ended)
    assert {response.status_code for response in updates.refusals} <= {503}
    assert all("retry-after" in response.headers for response in updates.refusals)
    assert updates.longest["train"] < 20
    # A request that was refused may have been recorded all the same, just as the connection was cut.
    assert 0 <= cluster.rows() - before - ROWS * len(ended) <= ROWS * len(updates.refusals)
    for log in (first.log, second.log, log_of(first, "one"), log_of(second, "two")):
        lines = [line for line in log.read_text().splitlines() if "app.requests" not in line]
        assert "Traceback" not in "".join(lines)
        periods = 1 + (time.monotonic() - began) // LOG_INTERVAL_SECONDS
        assert len(lines) < 50 + 10 * periods + 5 * len(ended)
