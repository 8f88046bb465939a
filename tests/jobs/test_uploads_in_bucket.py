"""A service whose uploads are in a bucket, which fails for a while."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import buckets
import httpx
import pytest
from service import NOTEBOOK, Service, arm, wait_for

from app.storage import Store, open_store

pytestmark = pytest.mark.slow  # tests/test_cluster.py has the fast tests of uploads in a bucket


@pytest.fixture(scope="module")
def proxy() -> Iterator[buckets.FaultyProxy]:
    with buckets.faulty_proxy() as running:
        yield running


@pytest.fixture(scope="module")
def url() -> str:
    return buckets.bucket_url()


@pytest.fixture(scope="module")
def store(url: str) -> Store:
    return open_store(url)


@pytest.fixture(scope="module")
def service(proxy: buckets.FaultyProxy, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    environment = buckets.environment(proxy.url) | {"CHAOS_FAILPOINTS": str(folder)}
    running = Service(folder, storage=url, environment=environment).start()
    yield running
    running.stop()


def uploads(store: Store) -> list[str]:
    return [blob.key for blob in store.list_blobs("uploads/")]


def test_rows_are_in_the_bucket_until_their_job_ends(service: Service, store: Store) -> None:
    assert service.train(**NOTEBOOK)["status"] == "succeeded"
    wait_for(lambda: not uploads(store))
    service.finish_jobs()


def test_a_training_gets_503_before_it_is_acknowledged(
    service: Service, store: Store, proxy: buckets.FaultyProxy
) -> None:
    jobs = service.client.get("/jobs").json()["items"]
    proxy.set("throttle")
    try:
        refused = service.client.post("/train", json=NOTEBOOK)
    finally:
        proxy.set("ok")
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert buckets.SECRET_KEY not in refused.text
    assert service.client.get("/jobs").json()["items"] == jobs
    assert not list((service.state / "spool").iterdir())
    assert uploads(store) == []


def test_a_job_that_was_acknowledged_outlasts_an_outage(
    service: Service, store: Store, proxy: buckets.FaultyProxy
) -> None:
    wait_for(service.trainers)
    (trainer,) = service.trainers()
    os.kill(trainer, signal.SIGSTOP)  # so that the job does not end before the outage begins
    job_id = service.submit(**NOTEBOOK)
    proxy.set("throttle")
    outage = threading.Timer(10, proxy.set, ("ok",))
    outage.start()
    os.kill(trainer, signal.SIGCONT)
    assert service.end_of(job_id)["status"] == "succeeded"
    outage.join()
    wait_for(lambda: not uploads(store))


def test_a_worker_that_is_killed_before_it_records_the_job_leaves_only_an_old_upload(
    service: Service, store: Store
) -> None:
    jobs = service.client.get("/jobs").json()["items"]
    reached = arm(Path(service.environment["CHAOS_FAILPOINTS"]), "handed_over", signal.SIGKILL)
    with pytest.raises(httpx.HTTPError):
        service.client.post("/train", json=NOTEBOOK)
    wait_for(reached.exists)
    service.kill()
    service.start()
    assert service.client.get("/jobs").json()["items"] == jobs
    (orphan,) = uploads(store)
    store.delete(orphan)
