"""Services and trainers that share a database in Postgres, and no state folder."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgres import Postgres
from service import MAX_SECONDS, NOTEBOOK, Service, arm, copy_models, wait_for
from trainers import trainer, wait_until_ready

ENDLESS = {"kind": "gradient_descent", "epochs": 10_000_000, "learning_rate": 1e-9}
UPDATE: dict[str, Any] = {**NOTEBOOK, "mode": "update", "promote": "always"}
QUEUED = 3
CSV = {"content-type": "text/csv"}


class Cluster:
    """Two services with state folders of their own. They share a database, a models folder and a spool."""

    def __init__(self, folder: Path, url: str, **settings: str) -> None:
        self.url = url
        copy_models(folder)
        self.services = []
        for name in ("first", "second"):
            own = folder / name
            own.mkdir()
            (own / "models").symlink_to(folder / "models")
            service = Service(own, database_url=url, trainer_mode="external", **settings)
            service.state.mkdir()
            (folder / "spool").mkdir(exist_ok=True)
            (service.state / "spool").symlink_to(folder / "spool")
            self.services.append(service.start())

    def stop(self) -> None:
        for service in self.services:
            service.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"), postgres.new_database(), max_queued_jobs=str(QUEUED))
    yield started
    started.stop()


@pytest.fixture
def pair(cluster: Cluster) -> Iterator[list[Service]]:
    """Two services without jobs."""
    yield cluster.services
    first = cluster.services[0]
    for job in first.client.get("/jobs?status=queued").json()["items"]:
        first.client.post(f"/jobs/{job['id']}/cancel")


def send_at_once(services: list[Service], count: int, key: str | None = None) -> list[httpx.Response]:
    """Send `count` uploads to the services in turn. Each ends only when all have begun."""
    together = threading.Barrier(count)

    def body() -> Iterator[bytes]:
        yield b"x"
        together.wait(MAX_SECONDS)
        yield b",y\n1,2\n2,4\n3,6\n"

    def send(number: int) -> httpx.Response:
        headers = CSV if key is None else {**CSV, "idempotency-key": key}
        url = f"{services[number % len(services)].url}/train?targets=y&model=other"
        return httpx.post(url, content=body(), headers=headers, timeout=MAX_SECONDS)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(send, range(count)))


def test_two_services_together_keep_to_the_limit_of_queued_jobs(pair: list[Service]) -> None:
    statuses = Counter(response.status_code for response in send_at_once(pair, 12))
    assert statuses == {202: QUEUED, 429: 12 - QUEUED}
    assert len(list((pair[0].state / "spool").iterdir())) == QUEUED


def test_a_request_that_two_services_receive_at_once_makes_one_job(pair: list[Service]) -> None:
    responses = send_at_once(pair, 2, key="once")
    assert {response.status_code for response in responses} == {202}
    assert len({response.json()["id"] for response in responses}) == 1
    assert len(list((pair[0].state / "spool").iterdir())) == 1


def test_a_job_of_one_service_is_run_by_a_trainer_elsewhere_and_seen_by_the_other(
    pair: list[Service], cluster: Cluster
) -> None:
    first, second = pair
    job = first.submit(**NOTEBOOK)
    assert second.job(job)["status"] == "queued"
    refused = second.client.post("/train", json={**NOTEBOOK, "solver": {"kind": "gradient_descent", "device": "cuda"}})
    assert refused.status_code == 202  # no trainer has run yet, so the job itself would check
    second.client.post(f"/jobs/{refused.json()['id']}/cancel")
    with trainer(second, "elsewhere", LINSERVE_DATABASE_URL=cluster.url):
        wait_until_ready(second, "elsewhere")
        assert first.end_of(job)["status"] == "succeeded"
        assert second.predict([75, 63, 44])["version"] == first.job(job)["version"]
        seen = "linserve_trainer_seen_timestamp_seconds "
        wait_for(lambda: all(seen in service.client.get("/metrics").text for service in pair))


@pytest.mark.slow
def test_a_killed_trainer_is_taken_over_within_30_seconds_and_a_stopped_one_publishes_nothing(
    pair: list[Service], cluster: Cluster, tmp_path: Path
) -> None:
    first, second = pair
    elsewhere = {"LINSERVE_DATABASE_URL": cluster.url}
    before = first.client.get("/models/crop-yield").json()
    with trainer(second, "rescuer", **elsewhere):
        wait_until_ready(second, "rescuer")
        first.client.post(f"/jobs/{first.submit(**UPDATE, model='warm')}/cancel")
        arm(tmp_path, "fitted", signal.SIGSTOP)
        jobs = [first.submit(**UPDATE)]
        with trainer(first, "stopped", CHAOS_FAILPOINTS=str(tmp_path), **elsewhere) as stopped:
            wait_until_ready(first, "stopped")
            jobs += [first.submit(**UPDATE) for _ in range(2)]
            assert stopped.poll() is None
            assert [first.end_of(job)["status"] for job in jobs] == ["succeeded"] * 3
    assert first.client.get("/models/crop-yield").json()["rows"] == before["rows"] + 3 * len(NOTEBOOK["instances"])
