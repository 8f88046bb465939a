"""POST /train with the URL of files instead of rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import buckets
import httpx
import pytest
from service import INPUTS, TARGETS, Service
from threaded_service import ThreadedService

from app.storage import open_store

NAMES = ["temp", "rainfall", "humidity", "apples", "oranges"]
OPTIONS: dict[str, Any] = {"targets": ["apples", "oranges"], "promote": "never"}


def csv(rows: slice) -> str:
    cells: list[list[float]] = [[*x, *y] for x, y in zip(INPUTS[rows], TARGETS[rows], strict=True)]
    return "\n".join([",".join(NAMES), *(",".join(map(str, row)) for row in cells)]) + "\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files that are allowed, and others."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("data", "database"):
        (folder / name).mkdir()
    (folder / "secret.csv").write_text(csv(slice(15)))
    (folder / "database/x.csv").write_text(csv(slice(15)))
    (folder / "data/link.csv").symlink_to(folder / "secret.csv")
    for number in range(3):
        (folder / f"data/part-{number}.csv").write_text(csv(slice(5 * number, 5 * number + 5)))
    return folder


@pytest.fixture(scope="module")
def bucket() -> str:
    return buckets.bucket_url()


@pytest.fixture(scope="module")
def reader(place: Path, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that may read files in a folder and in a bucket, with a trainer that reads them in its own process.

    tests/training/fragments reads files in several processes.
    """
    missing = bucket.replace("bucket-", "missing-")
    allowed = f"file://{place}/data, {bucket}, {missing}"
    folder = tmp_path_factory.mktemp("reader")
    running = ThreadedService(folder, trainer=True, sources=allowed, trainer_threads="1").start()
    yield running
    running.stop()


def post(service: Service, source: str, **options: Any) -> httpx.Response:
    body = {"source": source, **OPTIONS, **options}
    return service.client.post("/train", json=body, headers={"prefer": "wait=60"})


def assert_is_the_shipped_model(service: Service, answer: httpx.Response) -> None:
    job = service.ended_job(answer)
    assert job["status"] == "succeeded", job
    trained = service.client.get(f"/models/crop-yield/versions/{job['version']}").json()
    shipped = service.client.get("/models/crop-yield/versions/1").json()
    assert trained["rows"] == 15
    for target in OPTIONS["targets"]:
        assert trained["coefficients"][target] == pytest.approx(shipped["coefficients"][target], rel=1e-9)


def test_files_of_a_folder_train_the_same_model_as_their_rows(reader: Service, place: Path) -> None:
    assert_is_the_shipped_model(reader, post(reader, f"file://{place}/data/part-*.csv"))


def test_files_of_a_bucket_train_the_same_model_as_their_rows(reader: Service, bucket: str) -> None:
    store = open_store(bucket)
    for number in range(3):
        store.put(f"rows/part-{number}.txt", csv(slice(5 * number, 5 * number + 5)).encode())
    assert_is_the_shipped_model(reader, post(reader, f"{bucket}/rows/*.txt", format="csv"))


def test_a_source_takes_the_options_of_a_file(reader: Service, place: Path) -> None:
    answer = post(
        reader,
        f"file://{place}/data/part-*.csv",
        model="optional",
        features=["temp", "humidity"],
        targets=["apples"],
        solver={"kind": "exact", "l2": 0.5},
        validation={"folds": 3},
        columns={"temp": {"kind": "number"}},
        promote="always",
    )
    assert reader.ended_job(answer)["status"] == "succeeded", answer.text
    card = reader.client.get("/models/optional").json()
    assert list(card["coefficients"]["apples"]) == ["temp", "humidity"]

    changes = {"model": "optional", "mode": "update", "promote": "always"}
    update = post(reader, f"file://{place}/data/part-0.csv", **changes)
    assert update.status_code == 422
    update = post(
        reader, f"file://{place}/data/part-0.csv", **changes, features=["temp", "humidity"], targets=["apples"]
    )
    assert reader.ended_job(update)["status"] == "succeeded", update.text
    assert reader.client.get("/models/optional").json()["rows"] == 20


@pytest.mark.parametrize(
    "path",
    [
        "/secret.csv",
        "/none.csv",
        "/database/x.csv",
        "/data/../secret.csv",
        "/data/%2e%2e/secret.csv",
        "/data/link.csv",
        "/*/part-0.csv",
        "/../../../../etc/passwd",
    ],
)
def test_files_elsewhere_are_refused_in_the_same_words(reader: Service, place: Path, path: str) -> None:
    refused = post(reader, f"file://{place}{path}")
    nowhere = post(reader, "s3://no-such-bucket/none.csv")
    assert refused.status_code == 403
    assert without_id(refused) == without_id(nowhere)
    assert "secret" not in refused.text


def without_id(answer: httpx.Response) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    problem.pop("request_id")
    return problem


def test_nothing_is_read_without_the_setting(place: Path, tmp_path: Path) -> None:
    service = ThreadedService(tmp_path).start()
    refused = post(service, f"file://{place}/data/part-0.csv")
    service.stop()
    assert refused.status_code == 403
    assert "LINSERVE_SOURCES" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"source": "http://example.org/x.csv"}, 422, "Expected s3://"),
        ({"source": "file:///data"}, 403, "may not read"),
        ({"source": ""}, 422, "source"),
        ({"source": 5}, 422, "source"),
        ({"source": "PLACE/part-9.csv"}, 422, "No file has this URL"),
        ({"source": "PLACE/part-0.csv", "targets": ["pears"]}, 422, "pears"),
        ({"source": "PLACE/part-0.csv", "sheet": 2}, 422, "sheet"),
        ({"source": "PLACE/part-0.csv", "format": "ndjson"}, 422, "format"),
        ({"source": "PLACE/part-0.csv", "format": "parquet"}, 422, "part-0.csv"),
        ({"source": "PLACE/part-0.csv", "instances": [[1]]}, 422, "source"),
        ({"source": "PLACE/part-0.csv", "sauce": 1}, 422, "sauce"),
    ],
)
def test_requests_at_fault_get_a_problem(
    reader: Service, place: Path, body: dict[str, Any], status: int, word: str
) -> None:
    reader.finish_jobs()
    text = json.dumps({**OPTIONS, **body}).replace("PLACE", f"file://{place}/data")
    answer = reader.client.post("/train", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert word in answer.text
    assert not list((reader.state / "spool").glob("*"))


def test_a_source_is_inspected_as_a_file_is(reader: Service, place: Path) -> None:
    answer = reader.client.post("/inspect", json={"source": f"file://{place}/data/part-*.csv", "targets": ["apples"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["rows"] == 15
    assert [column["name"] for column in answer.json()["columns"]] == [*NAMES[:3], "oranges", "apples"]
    assert reader.client.post("/inspect", json={"source": f"file://{place}/secret.csv"}).status_code == 403


def test_a_bucket_that_is_gone_is_unavailable_before_the_job_is_acknowledged(reader: Service, bucket: str) -> None:
    answer = post(reader, f"{bucket.replace('bucket-', 'missing-')}/x/*.csv")
    assert answer.status_code == 503
    assert buckets.SECRET_KEY not in answer.text
    assert "retry-after" in answer.headers


def test_a_row_at_fault_is_named_with_its_file(reader: Service, place: Path) -> None:
    (place / "data/bad-0.csv").write_text(csv(slice(5)))
    (place / "data/bad-1.csv").write_text(csv(slice(5, 10)).replace("44,", "4x4,"))
    job = reader.ended_job(post(reader, f"file://{place}/data/bad-*.csv", numbers=["rainfall"]))
    assert job["status"] == "failed"
    assert job["error"]["errors"][0] | {"detail": ""} == {
        "detail": "",
        "file": "bad-1.csv",
        "row": 5,
        "column": "rainfall",
    }


def test_a_repeated_request_names_the_same_job(reader: Service, place: Path) -> None:
    body = {"source": f"file://{place}/data/part-*.csv", **OPTIONS}
    headers = {"idempotency-key": "files", "prefer": "wait=60"}
    one, other = (reader.client.post("/train", json=body, headers=headers).json() for _ in range(2))
    assert one["id"] == other["id"]
    changed = reader.client.post("/train", json=body | {"mode": "update"}, headers=headers)
    assert changed.status_code == 422
