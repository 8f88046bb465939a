"""Training from files: every format, compressed or not."""

import gzip

import numpy as np
import pyarrow as pa
import pytest
from backports import zstd
from service import INPUTS, TARGETS, Service
from tables import ENCODINGS, MEDIA_TYPES, written

from app.data.formats import FileFormat

FEATURES, NAMES = ["temp", "rainfall", "humidity"], ["apples", "oranges"]
YIELDS = pa.table(
    dict(
        zip(
            ["note", *NAMES, *FEATURES],
            [["x"] * 15, *zip(*TARGETS, strict=True), *zip(*INPUTS, strict=True)],
            strict=True,
        )
    )
)
QUERY = {"targets": ",".join(NAMES), "features": ",".join(FEATURES), "promote": "never"}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_a_file_of_any_format_trains_what_its_rows_train_as_json(
    service: Service, form: FileFormat, encoding: str
) -> None:
    answer = service.client.post(
        "/train",
        params=QUERY,
        content=ENCODINGS[encoding](written(YIELDS, form)),
        headers={"content-type": MEDIA_TYPES[form], "content-encoding": encoding, "prefer": "wait=20"},
    )
    assert answer.json()["status"] == "succeeded", answer.text
    trained = service.client.get(f"/models/crop-yield/versions/{answer.json()['version']}").json()
    shipped = service.client.get("/models/crop-yield/versions/1").json()
    for target in NAMES:
        assert trained["coefficients"][target] == pytest.approx(shipped["coefficients"][target], rel=1e-9)


@pytest.mark.parametrize("form", ["json", *MEDIA_TYPES])
def test_rows_with_a_missing_value_are_dropped_and_counted_where_that_was_asked(service: Service, form: str) -> None:
    rows = [*INPUTS, [None, 1, 1], [5, None, 5]]
    targets = [*TARGETS, [3, 4], [None, 5]]
    if form == "json":
        job = service.train(instances=rows, targets=targets, missing="drop", promote="never")
    else:
        columns = [pa.array(column, pa.float64()) for column in (*zip(*rows, strict=True), *zip(*targets, strict=True))]
        table = pa.table(dict(zip([*FEATURES, *NAMES], columns, strict=True)))
        answer = service.client.post(
            "/train",
            params={**QUERY, "missing": "drop"},
            content=written(table, form),  # type: ignore[arg-type]
            headers={"content-type": MEDIA_TYPES[form], "prefer": "wait=20"},  # type: ignore[index]
        )
        job = answer.json()
    assert job["status"] == "succeeded", job
    card = service.client.get(f"/models/crop-yield/versions/{job['version']}").json()
    assert (card["rows"], card["dropped_rows"]) == (15, 2)
    assert "2 row(s) were left out" in card["warnings"][0]


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_a_missing_value_fails_the_job_with_its_place_otherwise(service: Service, form: FileFormat) -> None:
    table = YIELDS.set_column(3, "temp", pa.array([1.0, None, *range(13)], pa.float64()))
    answer = service.client.post(
        "/train",
        params=QUERY,
        content=written(table, form),
        headers={"content-type": MEDIA_TYPES[form], "prefer": "wait=20"},
    )
    assert answer.json()["status"] == "failed", answer.text
    (place,) = answer.json()["error"]["errors"]
    assert (place["row"], place["column"]) == (3 if form == "csv" else 2, "temp")


@pytest.mark.parametrize("form", ["arrow", "parquet", "ndjson"])
def test_a_file_that_is_not_what_its_type_says_is_refused_at_once(service: Service, form: FileFormat) -> None:
    answer = service.client.post(
        "/train", params=QUERY, content=b"a,b\n1,2\n", headers={"content-type": MEDIA_TYPES[form]}
    )
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:linserve:problem:invalid-input"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_body_may_be_compressed_in_several_members(service: Service, encoding: str) -> None:
    content = written(YIELDS, "csv")
    compress = ENCODINGS[encoding]
    answer = service.client.post(
        "/train",
        params=QUERY,
        content=b"".join(compress(content[i : i + 40]) for i in range(0, len(content), 40)),
        headers={"content-type": "text/csv", "content-encoding": encoding, "prefer": "wait=20"},
    )
    assert answer.json()["status"] == "succeeded", answer.text


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_large_compressed_body_inflates_to_the_last_byte(service: Service, encoding: str) -> None:
    rows = np.random.default_rng(0).integers(0, 9, size=(100_000, 4))
    content = b"a,b,c,y\n" + b"".join(b"%d,%d,%d,%d\n" % tuple(row) for row in rows)
    answer = service.client.post(
        "/train?model=inflated&targets=y",
        content=ENCODINGS[encoding](content),
        headers={"content-type": "text/csv", "content-encoding": encoding, "prefer": "wait=20"},
    )
    assert answer.json()["progress"]["rows"] == 100_000, answer.text


@pytest.mark.parametrize(
    "bomb", [gzip.compress(b"0" * 50_000_000), zstd.compress(b"0" * 500_000_000)], ids=["gzip", "zstd"]
)
def test_a_compressed_body_is_cut_off_at_the_limit_of_the_inflated_one(service: Service, bomb: bytes) -> None:
    encoding = "gzip" if bomb[:2] == b"\x1f\x8b" else "zstd"
    answer = service.client.post(
        "/train?targets=y", content=bomb, headers={"content-type": "text/csv", "content-encoding": encoding}
    )
    assert len(bomb) < 100_000
    assert answer.status_code == 413
    assert list((service.state / "spool").glob("*")) == []
