"""Two services with folders of their own, which share one Postgres and one bucket."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import ACCESS_KEY, SECRET_KEY, bucket_url, environment
from postgres import Postgres
from service import INPUTS, NOTEBOOK, TARGETS, Service, wait_for
from threaded_service import ThreadedService

ROW = [75.0, 63.0, 44.0]


@pytest.fixture(scope="module")
def pair(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    """A service with a trainer, and one without, on different machines as far as they know."""
    url, database = bucket_url(), postgres.new_job_database()
    one = Service(tmp_path_factory.mktemp("one"), environment=environment(), storage=url, database_url=database).start()
    two = ThreadedService(
        tmp_path_factory.mktemp("two"), environment=environment(), storage=url, database_url=database
    ).start()
    for service in (one, two):  # On a busy machine, the first connection takes longer than a request waits for it.
        wait_for(lambda: service.client.get("/jobs").status_code == 200)  # noqa: B023 - called at once
    yield one, two
    one.stop()
    two.stop()


def test_a_version_that_is_trained_on_one_is_served_by_the_other(pair: tuple[Service, Service]) -> None:
    one, two = pair
    job = one.train(**NOTEBOOK)
    assert job["status"] == "succeeded"
    for service in pair:  # Bucket reads have a time limit, after which a worker serves the version that it knows.
        wait_for(lambda: service.predict(ROW)["version"] == job["version"])  # noqa: B023 - called at once
    assert two.predict(ROW)["predictions"] == one.predict(ROW)["predictions"]
    assert two.job(job["id"])["version"] == job["version"]
    seen = "linserve_trainer_seen_timestamp_seconds "
    wait_for(lambda: all(seen in service.client.get("/metrics").text for service in pair))


def test_rows_that_one_receives_are_trained_on_by_the_trainer_of_the_other(pair: tuple[Service, Service]) -> None:
    one, two = pair
    csv = "a,b,c,d,e\n" + "".join(
        ",".join(map(str, [*row, *target])) + "\n" for row, target in zip(INPUTS, TARGETS, strict=True)
    )
    query = {"model": "sent-to-two", "targets": "d,e"}
    job = two.ended_job(two.client.post("/train", content=csv, headers={"content-type": "text/csv"}, params=query))
    assert job["status"] == "succeeded"
    assert not list((one.state / "spool").glob("*"))
    assert not list((two.state / "spool").glob("*"))
    assert one.client.get("/models/sent-to-two").json()["versions"] == [1]


def test_a_model_that_one_imports_is_served_by_the_other(pair: tuple[Service, Service]) -> None:
    one, two = pair
    line = {"features": ["x"], "targets": ["y"], "coefficients": [2], "intercept": 1}
    key = {"Idempotency-Key": "line"}
    first = two.client.post("/models/line/versions", json=line, headers=key)
    assert first.status_code == 201, first.text
    rows = {"instances": [[3]]}
    wait_for(lambda: one.client.post("/models/line/predict", json=rows).status_code == 200)
    assert one.client.post("/models/line/predict", json=rows).json()["predictions"] == [[7]]
    assert one.client.post("/models/line/versions", json=line, headers=key).json() == first.json()
    assert one.client.get("/models/line").json()["versions"] == [1]


def test_a_client_that_needs_its_own_promotion_waits_for_no_poll(pair: tuple[Service, Service]) -> None:
    one, two = pair
    two.predict(ROW)
    version = one.train(**NOTEBOOK)["version"]
    answer = two.client.post("/predict", json={"instances": [ROW]}, headers={"Linserve-Min-Version": str(version)})
    assert answer.status_code == 200
    assert int(answer.headers["linserve-version"]) >= version

    early = two.client.post("/predict", json={"instances": [ROW]}, headers={"Linserve-Min-Version": str(version + 1)})
    assert early.status_code == 503
    assert early.headers["retry-after"]


def test_the_answers_and_the_log_name_the_store_and_no_credential(pair: tuple[Service, Service]) -> None:
    for service in pair:
        wait_for(lambda: service.client.get("/health/ready").json()["storage"] == "store")  # noqa: B023 - called at once
        service.request_record(service.client.get("/health/ready"))
        log = service.log.read_text()
        assert ACCESS_KEY not in log
        assert SECRET_KEY not in log


@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_named_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    bucket_url()  # starts the server of buckets
    url = "s3://no-such-bucket/linserve"
    service = Service(tmp_path, environment=environment(), storage=url, trainer_mode="external").start("/health/live")
    try:
        for answer in (
            service.client.get("/health/ready"),
            service.client.post("/predict", json={"instances": [ROW]}),
            service.client.post("/train", json=NOTEBOOK),
        ):
            assert answer.status_code == 503
            assert url in answer.json()["detail"]
            assert "there is no such bucket" in answer.json()["detail"]
        assert service.client.get("/jobs").json()["items"] == []
        assert url in service.log.read_text()
    finally:
        service.stop()
