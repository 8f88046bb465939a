"""Rows in which a value is missing: null results, or a rejected request."""

import io
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from service import Service
from tables import MEDIA_TYPES, written

FEATURES = ["temp", "rainfall", "humidity"]
ROWS: list[list[float | None]] = [[75, 63, 44], [75, None, 44], [80, 70, 50], [None, None, None]]
TABLE = pa.table(
    {
        "id": ["a", "b", "c", "d"],
        **{
            name: pa.array(column, pa.float64()) for name, column in zip(FEATURES, zip(*ROWS, strict=True), strict=True)
        },
    }
)
JSON = "application/json"


def ask(service: Service, content: bytes, into: str, out: str = "*/*", **query: str) -> httpx.Response:
    return service.client.post("/predict", params=query, content=content, headers={"content-type": into, "accept": out})


def rows_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    file, kind = io.BytesIO(answer.content), answer.headers["content-type"].partition(";")[0]
    if kind == JSON:
        return list(answer.json()["predictions"])
    if kind == MEDIA_TYPES["ndjson"]:
        return [orjson.loads(line) for line in answer.content.splitlines()]
    if kind == MEDIA_TYPES["csv"]:
        return list(pyarrow.csv.read_csv(file).to_pylist())
    table = pa.ipc.open_stream(file).read_all() if kind == MEDIA_TYPES["arrow"] else pyarrow.parquet.read_table(file)
    return list(table.to_pylist())


@pytest.mark.parametrize("out", [JSON, *MEDIA_TYPES.values()])
@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_a_row_of_a_file_with_a_missing_value_has_null_results_and_counts(
    service: Service, form: str, out: str
) -> None:
    whole = service.predict(ROWS[0], ROWS[2], interval=0.9)  # type: ignore[arg-type]
    answer = ask(service, written(TABLE, form), MEDIA_TYPES[form], out, keep="id", interval="0.9", confidence="0.5")
    assert answer.headers["linserve-missing-rows"] == "2"
    first, second, third, fourth = rows_of(answer)
    assert [row["id"] for row in (first, second, third, fourth)] == ["a", "b", "c", "d"]
    for row, prediction, bounds in zip((first, third), whole["predictions"], whole["intervals"], strict=True):
        assert [row["apples"], row["oranges"]] == prediction
        assert [row["apples_lower"], row["apples_upper"]] == bounds[0]
    for row in (second, fourth):
        del row["id"]
        assert len(row) == 10
        assert set(row.values()) == {None}


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_missing_values_in_a_file_are_rejected_with_their_places_on_request(service: Service, form: str) -> None:
    answer = ask(service, written(TABLE.drop("id"), form), MEDIA_TYPES[form], missing="refuse")
    assert answer.status_code == 422
    header = form == "csv"
    places = [(error["row"], error["column"]) for error in answer.json()["errors"]]
    assert places == [(2 + header, "rainfall"), (4 + header, "temp"), (4 + header, "humidity")]
    assert ask(service, b"x", MEDIA_TYPES[form], missing="drop").json()["errors"][0]["parameter"] == "missing"


def test_a_file_without_missing_values_counts_none(service: Service) -> None:
    answer = ask(service, b"temp,rainfall,humidity\n75,63,44\n", "text/csv")
    assert answer.headers["linserve-missing-rows"] == "0"


@pytest.mark.parametrize("form", MEDIA_TYPES)
def test_a_row_whose_weight_is_missing_has_null_results(service: Service, form: str) -> None:
    table = TABLE.drop("id").slice(0, 3).append_column("w", pa.array([2.0, 1.0, None]))
    answer = ask(service, written(table, form), MEDIA_TYPES[form], JSON, interval="0.9", instance_weights="w")
    own = service.predict([75, 63, 44], interval=0.9, instance_weights=[2])
    first, second, third = rows_of(answer)
    assert first["oranges_upper"] == own["intervals"][0][1][1]
    assert set(second.values()) == set(third.values()) == {None}


def test_faults_after_a_row_with_a_missing_value_are_reported_with_their_own_rows(service: Service) -> None:
    beyond = b"temp,rainfall,humidity\n,1,1\n1,2,3\n-1e308,1e308,1e308\n"
    assert ask(service, beyond, "text/csv").json()["errors"][0]["row"] == 4
    weights = b"temp,rainfall,humidity,w\n,1,1,1\n1,2,3,1\n1,2,3,-1\n"
    answer = ask(service, weights, "text/csv", interval="0.9", instance_weights="w")
    assert answer.json()["errors"] == [
        {"detail": "The weight is not a positive number.", "row": 4, "column": "w"},
    ]
    body = {"instances": [[None, 1, 1], [1, 2, 3], [-1e308, 1e308, 1e308]], "missing": "null"}
    assert service.client.post("/predict", json=body).json()["errors"][0]["pointer"] == "/instances/2"


def test_a_feature_that_no_line_has_is_a_missing_column(service: Service) -> None:
    answer = ask(service, b'{"temp":1,"rainfall":2}\n{"rainfall":2,"temp":null}\n', MEDIA_TYPES["ndjson"])
    assert answer.status_code == 422
    assert "humidity" in answer.text
    late = ask(service, b'{"temp":1,"rainfall":2}\n{"rainfall":2,"temp":1,"humidity":4}\n', MEDIA_TYPES["ndjson"])
    assert [row["apples"] is None for row in rows_of(late)] == [True, False]
    assert late.headers["linserve-missing-rows"] == "1"


@pytest.mark.parametrize("objects", [True, False])
def test_an_instance_with_null_is_rejected_in_json_unless_missing_is_null(service: Service, objects: bool) -> None:
    options = {"interval": 0.9, "confidence": 0.5, "explain": True, "extrapolation": True}
    rows: list[Any] = [dict(zip(FEATURES, row, strict=True)) for row in ROWS] if objects else ROWS
    refused = service.client.post("/predict", json={"instances": rows})
    assert refused.status_code == 422
    errors = refused.json()["errors"]
    assert len(errors) == len(FEATURES)
    assert sum("(2 times)" in error["detail"] for error in errors) == 1
    assert "linserve-missing-rows" not in service.client.post("/predict", json={"instances": rows[:1]}).headers

    whole = service.client.post("/predict", json={"instances": rows[::2], **options}).json()
    answer = service.client.post("/predict", json={"instances": rows, **options, "missing": "null"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["linserve-missing-rows"] == "2"
    found = answer.json()
    assert found["baseline"] == whole["baseline"]
    for name in ("predictions", "intervals", "confidence_intervals", "contributions", "extrapolation"):
        assert found[name][::2] == whole[name]
        assert leaves(found[name][1::2]) == {None}
    assert "unavailable" not in found


def leaves(value: Any) -> set[Any]:
    """Return the values in nested lists and objects."""
    if not isinstance(value, dict | list):
        return {value}
    return set[Any]().union(*map(leaves, value.values() if isinstance(value, dict) else value))


def test_an_instance_whose_weight_is_null_has_null_results(service: Service) -> None:
    body = {"instances": [[75, 63, 44]] * 2, "interval": 0.9, "instance_weights": [2, None], "missing": "null"}
    found = service.client.post("/predict", json=body).json()
    own = service.predict([75, 63, 44], interval=0.9, instance_weights=[2])
    assert found["intervals"][0] == own["intervals"][0]
    assert leaves([found["intervals"][1], found["predictions"][1]]) == {None}


def test_json_rows_with_a_table_as_the_response_take_the_option_from_the_query(service: Service) -> None:
    content = orjson.dumps({"instances": ROWS})
    assert ask(service, content, JSON, "text/csv").status_code == 422
    answer = ask(service, content, JSON, "text/csv", missing="null")
    assert answer.headers["linserve-missing-rows"] == "2"
    assert [row["oranges"] is None for row in rows_of(answer)] == [False, True, False, True]
