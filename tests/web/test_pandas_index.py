"""Arrow and Parquet that pandas wrote with a frame's index: it is no feature unless somebody says so."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from service import Service
from tables import MEDIA_TYPES, written

TABLES = Path(__file__).parents[1] / "tables"
RIGHT = [1.8876204977038102, 2.016210052953706, 0.028920681326809916]
BINARY: list[str] = ["arrow", "parquet"]


def framed(index: list[Any], **columns: Any) -> pa.Table:
    """A table as pandas writes it: its metadata names the index."""
    return pa.table(columns).replace_schema_metadata({"pandas": json.dumps({"index_columns": index})})


def train(service: Service, model: str, form: str, content: bytes, **query: str) -> httpx.Response:
    return service.client.post(
        "/train",
        params={"model": model, "targets": "y", **query},
        content=content,
        headers={"content-type": MEDIA_TYPES[form], "prefer": "wait=60"},
    )


def predict(service: Service, model: str, form: str, content: bytes, **query: str) -> httpx.Response:
    return service.client.post(
        f"/models/{model}/predict",
        params=query,
        content=content,
        headers={"content-type": MEDIA_TYPES[form], "accept": "application/json"},
    )


@pytest.mark.parametrize(
    ("name", "index"), [("parquet-pandas-index", "__index_level_0__"), ("parquet-pandas-named-index", "k")]
)
def test_the_index_of_a_frame_is_left_out_with_a_warning(service: Service, name: str, index: str) -> None:
    content = (TABLES / f"{name}.parquet").read_bytes()
    job = service.ended_job(train(service, name, "parquet", content))
    assert job["status"] == "succeeded", job
    assert [warning for warning in job["warnings"] if f'"{index}" is the index' in warning]
    card = service.client.get(f"/models/{name}").json()
    assert (card["features"], card["unused_columns"]) == (["x1", "x2"], [index])
    assert [card["intercept"]["y"], *card["coefficients"]["y"].values()] == pytest.approx(RIGHT, rel=1e-9)
    assert predict(service, name, "parquet", content).status_code == 200
    kept = predict(service, name, "parquet", content, keep=index).json()["predictions"]
    assert [*kept[0]] == [index, "y"]


@pytest.mark.parametrize("form", BINARY)
def test_an_index_of_several_columns_is_left_out_of_what_is_predicted_for(service: Service, form: str) -> None:
    model, x = f"indexed-{form}", np.arange(9.0)
    job = service.ended_job(train(service, model, "csv", b"x,y\n1,2\n2,3\n3,5\n"))
    assert job["status"] == "succeeded", job
    table = framed(["a", {"kind": "range", "start": 0}, "b", "gone"], a=x, x=x, b=list("abcdefghi"))
    answer = predict(service, model, form, written(table, form))
    assert answer.status_code == 200, answer.text
    unknown = predict(service, model, form, written(framed(["a"], a=x, x=x, c=x), form))
    assert unknown.status_code == 422


@pytest.mark.parametrize("form", BINARY)
def test_an_index_that_is_named_as_a_feature_or_a_target_is_one(service: Service, form: str) -> None:
    model, x = f"index-named-{form}", np.arange(9.0)
    content = written(framed(["k"], x=x, k=x * x, y=x % 4), form)
    job = service.ended_job(train(service, model, form, content, features="x,k"))
    assert job["status"] == "succeeded", job
    assert not [warning for warning in job["warnings"] if "index" in warning]
    again = service.ended_job(train(service, model, form, content))  # The current version has it as a feature.
    assert again["status"] == "succeeded", again
    assert service.client.get(f"/models/{model}").json()["features"] == ["x", "k"]
    assert predict(service, model, form, content).status_code == 200
    target = service.ended_job(train(service, f"{model}-target", form, content, targets="k"))
    assert target["status"] == "succeeded", target
    assert service.client.get(f"/models/{model}-target").json()["features"] == ["x", "y"]


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"\xff",
        b"null",
        b"[" * 10_000,
        b'{"index_columns": 1}',
        b'{"index_columns": [[], 1, null, "\\ud800"]}',
        b"{}",
    ],
)
def test_metadata_that_is_not_of_pandas_names_no_index(service: Service, metadata: bytes) -> None:
    x = [75.0, 80.0]
    table = pa.table({"temp": x, "rainfall": x, "humidity": x}).replace_schema_metadata({b"pandas": metadata})
    for form in BINARY:
        assert predict(service, "crop-yield", form, written(table, form)).status_code == 200
