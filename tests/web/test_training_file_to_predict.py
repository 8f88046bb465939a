"""The file that a model was trained on, sent to predict: what training did not read is ignored."""

import io
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from service import INPUTS, TARGETS, Service
from tables import MEDIA_TYPES, written

FEATURES, NAMES = ["temp", "rainfall", "humidity"], ["apples", "oranges"]
NOTES = [f"field {n}" for n in range(len(INPUTS))]
YIELDS = pa.table(
    dict(
        zip(["note", *NAMES, *FEATURES], [NOTES, *zip(*TARGETS, strict=True), *zip(*INPUTS, strict=True)], strict=True)
    )
).append_column("w", pa.array([1.0 + n % 3 for n in range(len(INPUTS))]))
JSON = "application/json"


def train(service: Service, model: str, form: str, content: bytes, **query: str) -> dict[str, Any]:
    answer = service.post_training(
        params={"model": model, "targets": "apples,oranges", **query},
        content=content,
        headers={"content-type": MEDIA_TYPES[form]},
    )
    assert answer.json()["status"] == "succeeded", answer.text
    card: dict[str, Any] = service.client.get(f"/models/{model}").json()
    return card


def predict(service: Service, model: str, form: str, content: bytes, **query: str) -> httpx.Response:
    return service.client.post(
        f"/models/{model}/predict", params=query, content=content, headers={"content-type": MEDIA_TYPES[form]}
    )


def rows_of(answer: httpx.Response, form: str) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    file = io.BytesIO(answer.content)
    if form == "ndjson":
        return [orjson.loads(line) for line in answer.content.splitlines()]
    if form == "csv":
        return list(pyarrow.csv.read_csv(file).to_pylist())
    table = pa.ipc.open_stream(file).read_all() if form == "arrow" else pyarrow.parquet.read_table(file)
    return list(table.to_pylist())


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_the_file_that_a_model_was_trained_on_is_one_to_predict_for(service: Service, form: str) -> None:
    model, content = f"own-file-{form}", written(YIELDS, form)
    card = train(service, model, form, content, features=",".join(FEATURES), weight="w")
    assert sorted(card["unused_columns"]) == ["note", "w"]
    expected = rows_of(predict(service, model, form, written(YIELDS.select(FEATURES), form)), form)

    assert rows_of(predict(service, model, form, content), form) == expected
    found = rows_of(predict(service, model, form, content, keep="apples,note", interval="0.9"), form)
    assert [*found[0]] == [
        *("apples", "note", "predicted_apples", "oranges"),
        *("predicted_apples_lower", "predicted_apples_upper", "oranges_lower", "oranges_upper"),
    ]
    assert [row["apples"] for row in found] == [apples for apples, _ in TARGETS]
    assert [row["note"] for row in found] == NOTES
    assert [[row["predicted_apples"], row["oranges"]] for row in found] == [[*row.values()] for row in expected]

    other = written(YIELDS.append_column("other", pa.array(NOTES)), form)
    assert predict(service, model, form, other).status_code == 422


def test_rows_in_json_may_have_targets_and_unused_columns_too(service: Service) -> None:
    train(service, "own-json", "csv", written(YIELDS, "csv"), features=",".join(FEATURES), groups="note", folds="3")
    rows = YIELDS.drop("w").to_pylist()
    plain = [{name: row[name] for name in FEATURES} for row in rows]
    url = "/models/own-json/predict"
    expected = service.client.post(url, json={"instances": plain}).json()
    assert service.client.post(url, json={"instances": rows}).status_code == 200
    assert service.client.post(url, json={"instances": rows}).json() == expected
    options = {"interval": 0.9, "explain": True}
    mixed = [rows[0], plain[1], *rows[2:]]
    assert (
        service.client.post(url, json={"instances": mixed, **options}).json()
        == service.client.post(url, json={"instances": plain, **options}).json()
    )
    found = service.client.post(url, params={"keep": "apples"}, json={"instances": rows}).json()["predictions"]
    assert [[row["apples"], row["predicted_apples"]] for row in found] == [
        [apples, row["apples"]] for (apples, _), row in zip(TARGETS, expected["predictions"], strict=True)
    ]
    unknown = service.client.post(url, json={"instances": [rows[0], {**rows[1], "nothing": 1}]})
    assert unknown.status_code == 422
    assert [place["pointer"] for place in unknown.json()["errors"]] == ["/instances/1/nothing"]


def test_columns_of_groups_in_json_rows_are_known_to_predict(service: Service) -> None:
    rows = [dict(zip(["x", "field"], [float(n), f"f{n % 4}"], strict=True)) for n in range(12)]
    job = service.train(
        model="own-groups",
        instances=rows,
        targets=[{"y": n % 5} for n in range(12)],
        validation={"folds": 2, "groups": "field"},
    )
    assert job["status"] == "succeeded", job
    assert service.client.get("/models/own-groups").json()["unused_columns"] == ["field"]
    assert service.client.post("/models/own-groups/predict", json={"instances": rows}).status_code == 200


def test_a_name_that_only_a_late_line_has_is_ignored_too(service: Service) -> None:
    lines = b'{"x":1,"y":2}\n{"x":2,"y":4}\n{"x":3,"y":7,"late":{"deep":[1]}}\n'
    card = train(service, "own-late", "ndjson", lines, targets="y", features="x")
    assert card["unused_columns"] == ["late"]
    assert len(rows_of(predict(service, "own-late", "ndjson", lines), "ndjson")) == 3


def test_an_update_adds_its_unused_columns_to_those_of_the_version_before(service: Service) -> None:
    options = {"targets": "y", "features": "x"}
    train(service, "own-update", "csv", b"id,x,y\n1,1,2\n2,2,3\n3,3,5\n", **options)
    card = train(service, "own-update", "csv", b"x,y,z\n1,2,a\n2,3,b\n3,5,c\n", mode="update", **options)
    assert card["unused_columns"] == ["id", "z"]
    assert predict(service, "own-update", "csv", b"id,z,x,y\n1,1,1,1\n").status_code == 200
