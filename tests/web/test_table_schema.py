"""The schema of a version by itself, and rows in JSON that are trained as a table."""

from typing import Any

import pytest
from service import Service

CITIES = ["lima", "oslo", "rome"]
ROWS = [{"city": CITIES[row % 3], "open": row % 2 == 0, "x": row * 7 % 11} for row in range(24)]
TARGETS = [{"y": row * 5 % 13} for row in range(24)]
BODY: dict[str, Any] = {"instances": ROWS, "targets": TARGETS}
COEFFICIENTS = ["city[oslo]", "city[rome]", "open", "x"]


@pytest.fixture(scope="module")
def cities(service: Service) -> Service:
    job = service.train(model="cities-json", **BODY)
    assert job["status"] == "succeeded", job
    return service


def test_rows_in_json_may_have_words_and_booleans(cities: Service) -> None:
    card = cities.client.get("/models/cities-json").json()
    assert list(card["coefficients"]["y"]) == COEFFICIENTS
    arrays = {
        "instances": [list(row.values()) for row in ROWS],
        "targets": [list(row.values()) for row in TARGETS],
        "feature_names": ["city", "open", "x"],
        "target_names": ["y"],
    }
    assert cities.train(model="cities-arrays", **arrays)["status"] == "succeeded"
    again = cities.client.get("/models/cities-arrays").json()
    assert again["coefficients"]["y"] == pytest.approx(card["coefficients"]["y"], rel=1e-9)


def test_the_schema_of_a_version_is_a_file_of_its_own(cities: Service) -> None:
    answer = cities.client.get("/models/cities-json/schema")
    assert answer.headers["content-disposition"] == 'attachment; filename="cities-json-000001-schema.json"'
    schema = answer.json()
    assert (schema["model"], schema["version"], schema["columns"]) == ("cities-json", 1, COEFFICIENTS)
    assert [column["kind"] for column in schema["features"]] == ["category", "boolean", "number"]
    assert (schema["features"][0]["levels"], schema["features"][0]["reference"]) == (CITIES, "lima")
    assert cities.client.get("/models/cities-json/versions/1/schema").json() == schema
    condition = {"if-none-match": answer.headers["etag"]}
    assert cities.client.get("/models/cities-json/schema", headers=condition).status_code == 304
    card = cities.client.get("/models/cities-json").json()
    assert card["table"] == {name: schema[name] for name in card["table"]}
    assert cities.client.get("/models/no-such-model/schema").status_code == 404


def test_a_version_from_before_schemas_has_one_of_numbers(service: Service) -> None:
    schema = service.client.get("/models/crop-yield/versions/1/schema").json()
    assert {column["kind"] for column in (*schema["features"], *schema["targets"])} == {"number"}
    assert schema["columns"] == ["temp", "rainfall", "humidity"]


def test_an_update_in_json_adds_a_level_and_numbers_in_place_of_words_are_refused(cities: Service) -> None:
    cities.train(model="cities-update", **BODY)
    bonn = {"instances": [{"city": "bonn", "open": True, "x": 3}], "targets": [{"y": 1}]}
    job = cities.train(model="cities-update", mode="update", **bonn)
    assert job["status"] == "succeeded", job
    schema = cities.client.get("/models/cities-update/schema").json()
    assert schema["features"][0]["levels"] == [*CITIES, "bonn"]
    wrong = {"instances": [{"city": "oslo", "open": True, "x": "many"}], "targets": [{"y": 1}]}
    refused = cities.client.post("/train", json={"model": "cities-update", "mode": "update", **wrong})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/instances/0/x")


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"missing": "mean"}, "/missing"),
        ({"columns": {"city": {"kind": "word"}}}, "/columns/city/kind"),
        ({"columns": {"town": {"kind": "category"}}}, None),
        ({"drop": ["town"]}, None),
        ({"sep": ";"}, "/sep"),
    ],
)
def test_bad_options_of_columns_are_refused(cities: Service, options: dict[str, Any], place: str | None) -> None:
    answer = cities.client.post("/train", json={"model": "bad", **BODY, **options})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0].get("pointer") == place


def test_options_of_columns_apply_to_rows_in_json(cities: Service) -> None:
    options = {"drop": ["x"], "reference": {"city": "rome"}, "columns": {"open": {"kind": "category"}}}
    job = cities.train(model="cities-options", **BODY, **options)
    assert job["status"] == "succeeded", job
    card = cities.client.get("/models/cities-options").json()
    assert list(card["coefficients"]["y"]) == ["city[lima]", "city[oslo]", "open[true]"]
    assert card["table"]["left_out"] == [{"name": "x", "reason": "drop"}]
