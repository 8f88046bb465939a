"""Predictions for tables, in and out in every format."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from service import INPUTS, Service, wait_for
from tables import ENCODINGS, MEDIA_TYPES, written

from app.web.spooling import MEMORY_BYTES

JSON = "application/json"
FEATURES = ["temp", "rainfall", "humidity"]
ROWS: list[list[float]] = [*INPUTS, [75, 63, 44]]
IDS = [f"row, {n}" if n % 2 else f"{n}" for n in range(len(ROWS))]
TABLE = pa.table(dict(zip(["humidity", "id", "rainfall", "temp"], [
    [row[2] for row in ROWS], IDS, [row[1] for row in ROWS], [row[0] for row in ROWS],
], strict=True)))  # fmt: skip


def body_of(table: pa.Table, media_type: str) -> bytes:
    if media_type == JSON:
        return orjson.dumps({"instances": table.to_pylist()})
    return written(table, next(form for form, kind in MEDIA_TYPES.items() if kind == media_type))


def rows_of(answer: bytes, media_type: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]]
    if media_type == JSON:
        rows = orjson.loads(answer)["predictions"]
    elif media_type == MEDIA_TYPES["ndjson"]:
        rows = [orjson.loads(line) for line in answer.splitlines()]
    elif media_type == MEDIA_TYPES["csv"]:
        rows = pyarrow.csv.read_csv(io.BytesIO(answer)).to_pylist()
    elif media_type == MEDIA_TYPES["arrow"]:
        rows = pa.ipc.open_stream(answer).read_all().to_pylist()
    else:
        rows = pyarrow.parquet.read_table(io.BytesIO(answer)).to_pylist()
    return rows


def ask(service: Service, table: pa.Table, into: str, out: str, **query: Any) -> Any:
    return service.client.post(
        "/predict", params=query, content=body_of(table, into), headers={"content-type": into, "accept": out}
    )


@pytest.mark.parametrize("into", [JSON, *MEDIA_TYPES.values()])
@pytest.mark.parametrize("out", [JSON, *MEDIA_TYPES.values()])
def test_a_table_in_any_format_is_answered_in_any_format_with_the_same_numbers(
    service: Service, into: str, out: str
) -> None:
    expected = service.predict(*ROWS)["predictions"]

    answer = ask(service, TABLE, into, out, keep="id")

    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].partition(";")[0] == out
    assert (answer.headers["linserve-model"], answer.headers["linserve-version"]) == ("crop-yield", "1")
    found = rows_of(answer.content, out)
    assert [str(row["id"]) for row in found] == IDS
    assert [[row["apples"], row["oranges"]] for row in found] == expected
    assert [*found[0]] == ["id", "apples", "oranges"]


@pytest.mark.parametrize("into", MEDIA_TYPES.values())
@pytest.mark.parametrize("accept", [None, "*/*", "text/html, */*;q=0.1", "application/*, text/*"])
def test_a_table_is_answered_in_its_own_format_unless_another_is_accepted(
    service: Service, into: str, accept: str | None
) -> None:
    headers = {"content-type": into} | ({"accept": accept} if accept else {})
    answer = service.client.post("/predict", content=body_of(TABLE.drop("id"), into), headers=headers)
    assert into in answer.headers["content-type"]
    assert len(rows_of(answer.content, into)) == len(ROWS)


def test_json_is_preferred_if_all_formats_are_equally_acceptable(service: Service) -> None:
    for accept in ("application/json", "text/csv;q=0.5, application/json", "application/json, text/csv"):
        answer = service.client.post("/predict", json={"instances": INPUTS}, headers={"accept": accept})
        assert answer.headers["content-type"] == JSON


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0, text/html", "image/*", ";;;"])
def test_an_unsupported_response_format_is_not_acceptable(service: Service, accept: str) -> None:
    answer = service.client.post("/predict", json={"instances": INPUTS}, headers={"accept": accept})
    assert answer.status_code == 406
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("into", [JSON, *MEDIA_TYPES.values()])
def test_intervals_are_columns_after_the_predictions(service: Service, into: str) -> None:
    expected = service.predict(*ROWS, interval=0.9, confidence=0.5)
    table = TABLE.drop("id")

    found = rows_of(
        ask(service, table, into, MEDIA_TYPES["arrow"], interval="0.9", confidence="0.5").content, MEDIA_TYPES["arrow"]
    )

    for row, interval, mean in zip(found, expected["intervals"], expected["confidence_intervals"], strict=True):
        assert [row["apples_lower"], row["apples_upper"]] == pytest.approx(interval[0], rel=1e-12)
        assert [row["oranges_mean_lower"], row["oranges_mean_upper"]] == pytest.approx(mean[1], rel=1e-12)


@pytest.mark.parametrize("out", [JSON, *MEDIA_TYPES.values()])
def test_a_row_outside_the_span_of_the_training_rows_has_empty_bounds(service: Service, out: str) -> None:
    job = service.train(
        model="collinear-table",
        instances=[[float(n), 2.0 * n] for n in range(12)],
        targets=[[float(n % 5)] for n in range(12)],
        feature_names=["a", "b"],
        target_names=["y"],
    )
    assert job["status"] == "succeeded"
    answer = service.client.post(
        "/models/collinear-table/predict?interval=0.9&confidence=0.9",
        content="a,b\n3,6\n3,7\n4,8\n",
        headers={"content-type": "text/csv", "accept": out},
    )
    assert answer.status_code == 200, answer.text
    first, second, third = rows_of(answer.content, out)
    assert second.pop("y") is not None
    assert [*second.values()] == [None] * 4
    assert None not in first.values()
    assert None not in third.values()


@pytest.mark.parametrize("into", [JSON, *MEDIA_TYPES.values()])
def test_a_column_of_instance_weights_sets_the_intervals(service: Service, into: str) -> None:
    weights = [0.5 + n for n in range(len(ROWS))]
    expected = service.predict(*ROWS, interval=0.9, instance_weights=weights)["intervals"]
    table = TABLE.append_column("w", pa.array(weights))

    for keep in ("id", "id,w"):
        answer = ask(service, table, into, MEDIA_TYPES["arrow"], interval="0.9", instance_weights="w", keep=keep)
        assert answer.status_code == 200, answer.text
        found = rows_of(answer.content, MEDIA_TYPES["arrow"])
        for row, interval in zip(found, expected, strict=True):
            assert [row["apples_lower"], row["apples_upper"]] == interval[0]
            assert [row["oranges_lower"], row["oranges_upper"]] == interval[1]
        assert ("w" in found[0]) == ("w" in keep)
    by_feature = ask(service, TABLE.drop("id"), into, JSON, interval="0.9", instance_weights="temp")
    own = service.predict(*ROWS, interval=0.9, instance_weights=[row[0] for row in ROWS])["intervals"]
    assert [row["apples_upper"] for row in rows_of(by_feature.content, JSON)] == [row[0][1] for row in own]


@pytest.mark.parametrize("into", [JSON, *MEDIA_TYPES.values()])
def test_a_wrong_column_of_instance_weights_is_rejected_with_its_place(service: Service, into: str) -> None:
    weights = [1.0, 0.0, *[1.0] * (len(ROWS) - 2)]
    table = TABLE.drop("id").append_column("w", pa.array(weights))
    zero = ask(service, table, into, "*/*", interval="0.9", instance_weights="w")
    assert zero.status_code == 422, zero.text
    (place,) = zero.json()["errors"]
    if into == JSON:
        assert place["pointer"] == "/instances/1/w"
    else:
        assert (place["row"], place["column"]) == (3 if into == "text/csv" else 2, "w")
    arrays = {"instances": [[1, 2, 3, 4]]}
    options = {"interval": "0.9", "instance_weights": "w", "keep": "w"}
    assert service.client.post("/predict", params=options, json=arrays).status_code == 422
    alone = ask(service, table, into, "*/*", instance_weights="w")
    assert alone.status_code == 422
    assert alone.json()["errors"][0]["parameter"] == "instance_weights"
    missing = ask(service, TABLE.drop("id"), into, "*/*", interval="0.9", instance_weights="w")
    assert missing.status_code == 422
    assert '"w"' in missing.text.replace("\\", "")


@pytest.mark.parametrize("into", MEDIA_TYPES.values())
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_table_may_come_compressed(service: Service, into: str, encoding: str) -> None:
    content = ENCODINGS[encoding](body_of(TABLE.drop("id"), into))
    answer = service.client.post(
        "/predict", content=content, headers={"content-type": into, "content-encoding": encoding}
    )
    assert len(rows_of(answer.content, into)) == len(ROWS)


@pytest.mark.parametrize("into", MEDIA_TYPES.values())
def test_a_column_that_is_not_a_feature_is_rejected_unless_it_is_kept(service: Service, into: str) -> None:
    answer = ask(service, TABLE, into, "*/*")
    assert answer.status_code == 422
    assert "keep" in answer.json()["detail"]


@pytest.mark.parametrize("into", [JSON, *MEDIA_TYPES.values()])
def test_a_missing_column_and_a_missing_value_are_named(service: Service, into: str) -> None:
    without = ask(service, TABLE.drop(["id", "rainfall"]), into, "*/*")
    assert without.status_code == 422
    assert "rainfall" in without.text
    values = pa.array([1.0, None, *range(14)], pa.float64())
    table = TABLE.drop(["id", "rainfall"]).append_column("rainfall", values)
    hole = ask(service, table, into, "*/*", missing="refuse")
    assert hole.status_code == 422
    (place,) = hole.json()["errors"]
    if into == JSON:
        assert place["pointer"] == "/instances/1/rainfall"
    else:
        assert (place["row"], place["column"]) == (3 if into == "text/csv" else 2, "rainfall")


@pytest.mark.parametrize("into", [JSON, *MEDIA_TYPES.values()])
def test_a_table_of_no_rows_is_answered_with_one_of_no_rows(service: Service, into: str) -> None:
    for out in MEDIA_TYPES.values():
        answer = ask(service, TABLE.slice(0, 0), into, out, keep="id")
        if into == JSON:
            assert answer.status_code == 422
        else:
            assert answer.status_code == 200, answer.text
            assert rows_of(answer.content, out) == []


def test_a_prediction_out_of_range_is_rejected_with_its_row(service: Service) -> None:
    content = "temp,rainfall,humidity\n1,2,3\n-1e308,1e308,1e308\n"
    answer = service.client.post("/predict", content=content, headers={"content-type": "text/csv"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["row"] == 3


def test_the_place_of_a_prediction_out_of_range_counts_the_rows_of_all_batches(service: Service) -> None:
    body = {"instances": [[1, 2, 3]] * 40_000 + [[-1e308, 1e308, 1e308]]}
    answer = service.client.post("/predict", json=body, headers={"accept": MEDIA_TYPES["ndjson"]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/instances/40000"


@pytest.mark.parametrize(
    "query", ["unknown=1", "interval=2", "interval=0.9&interval=0.8", "keep=temp", "keep=id,id", "interval=x"]
)
def test_wrong_options_are_rejected(service: Service, query: str) -> None:
    for into in (JSON, "text/csv"):
        answer = service.client.post(f"/predict?{query}", content=body_of(TABLE, into), headers={"content-type": into})
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_at_most_a_thousand_columns_can_be_kept(service: Service) -> None:
    table = pa.table({name: [1.0] for name in [*FEATURES, *(f"{n}" for n in range(1001))]})
    for into in (JSON, MEDIA_TYPES["csv"]):
        answer = ask(service, table, into, "*/*", keep=",".join(table.column_names[3:]))
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["parameter"] == "keep"
        fewer = ask(service, table.drop("1000"), into, JSON, keep=",".join(table.column_names[3:-1]))
        assert len(rows_of(fewer.content, JSON)[0]) == 1002


def test_two_columns_of_the_results_cannot_have_the_same_name(service: Service) -> None:
    column = pa.array(range(len(ROWS)))
    table = TABLE.append_column("apples", column).append_column("predicted_apples", column)
    answer = ask(service, table, "text/csv", "*/*", keep="apples,predicted_apples")
    assert answer.status_code == 422
    assert "same name" in answer.json()["detail"]
    assert [place["column"] for place in answer.json()["errors"]] == ["predicted_apples"]


@pytest.mark.slow
def test_a_body_too_long_for_memory_uses_files_that_are_removed(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(450_000, 3))
    table = pa.table(dict(zip(FEATURES, x.T, strict=True)))
    own = Service(tmp_path, trainer_mode="external").start()
    for into in MEDIA_TYPES.values():
        assert len(body_of(table, into)) > MEMORY_BYTES
        answer = ask(own, table, into, "text/csv")
        assert answer.status_code == 200, answer.text
        found = pyarrow.csv.read_csv(io.BytesIO(answer.content))
        assert len(found) == len(x)
        last = own.predict(x[-1].tolist())["predictions"][0]
        assert [found["apples"][-1].as_py(), found["oranges"][-1].as_py()] == pytest.approx(last, rel=1e-12)
    broken = ask(own, table.append_column("id", pa.nulls(len(x))), "text/csv", "*/*")
    assert broken.status_code == 422
    wait_for(lambda: not list((own.state / "scratch").iterdir()))
    own.stop()


def test_a_malformed_list_of_names_is_rejected(service: Service) -> None:
    for path in ("/predict?keep=a%0Ab", "/train?targets=a%0Db"):
        answer = service.client.post(path, content="temp\n1\n", headers={"content-type": "text/csv"})
        assert answer.status_code == 422, answer.text


def kept(values: Any, rows: int = 2) -> pa.Table:
    return pa.table({"temp": [75.0] * rows, "rainfall": [63.0] * rows, "humidity": [44.0] * rows, "kept": values})


UNUSUAL = {
    "a list": pa.array([[1], [2]]),
    "a struct": pa.array([{"a": 1}, {"b": 2}]),
    "bytes": pa.array([b"a", b"\xff"]),
    "a date beyond all": pa.array([2**30, 1], pa.date32()),
    "an interval": pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
    "a word not in UTF-8": pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")]
    ),
}
USUAL = {
    "null": pa.nulls(2),
    "booleans": pa.array([True, None]),
    "a date": pa.array([1, None], pa.date32()),
    "a time": pa.array([1, 2], pa.timestamp("us", "UTC")),
    "decimals": pa.array([1, 2], pa.decimal128(9, 2)),
    "words": pa.array(["a", None], pa.large_string()),
    "a dictionary": pa.array(["a", None]).dictionary_encode(),
    "a dictionary of numbers": pa.array([1, None]).dictionary_encode(),
    "views of words": pa.array(["a", "word of more than twelve bytes"], pa.string_view()),
    "a time in no zone": pa.array([1, 2], pa.timestamp("s", "Nowhere/Never")),
}


@pytest.mark.parametrize("out", [JSON, *MEDIA_TYPES.values()])
@pytest.mark.parametrize("into", [MEDIA_TYPES["arrow"], MEDIA_TYPES["parquet"]])
@pytest.mark.parametrize("kind", [*UNUSUAL, *USUAL])
def test_a_kept_column_of_any_type_is_returned_or_rejected(service: Service, into: str, out: str, kind: str) -> None:
    try:
        content = body_of(kept({**UNUSUAL, **USUAL}[kind]), into)
    except (pa.ArrowException, OSError):
        pytest.skip("the format has no such type")
    headers = {"content-type": into, "accept": out}
    answer = service.client.post("/predict?keep=kept", content=content, headers=headers)
    assert answer.status_code == 200 if kind in USUAL else answer.status_code in {200, 422}, answer.text


@pytest.mark.parametrize("out", [JSON, *MEDIA_TYPES.values()])
@pytest.mark.parametrize("into", [MEDIA_TYPES["arrow"], MEDIA_TYPES["parquet"]])
def test_kept_strings_dates_and_times_are_written_alike_in_every_format(service: Service, into: str, out: str) -> None:
    table = kept(pa.array(["b", "a"]).dictionary_encode())
    for name, column in {
        "view": pa.array(["x", None], pa.string_view()),
        "utc": pa.array([0, 1_500_000], pa.timestamp("us", "Europe/Berlin")),
        "local": pa.array([0, None], pa.timestamp("ms")),
        "day": pa.array([1, None], pa.date32()),
    }.items():
        table = table.append_column(name, column)
    content = body_of(table, into)
    headers = {"content-type": into, "accept": out}
    answer = service.client.post("/predict?keep=kept,view,utc,local,day", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    first, second = rows_of(answer.content, out)
    assert (first["kept"], second["kept"], first["view"]) == ("b", "a", "x")
    if out in (MEDIA_TYPES["arrow"], MEDIA_TYPES["parquet"]):
        schema = (
            pa.ipc.open_stream(answer.content).schema
            if out == MEDIA_TYPES["arrow"]
            else pyarrow.parquet.read_schema(io.BytesIO(answer.content))
        )
        assert [schema.field(name).type for name in ("utc", "local", "day")] == [
            table.schema.field(name).type for name in ("utc", "local", "day")
        ]
        return
    text = answer.text
    for spelled in ("1970-01-01T00:00:00Z", "1970-01-01T00:00:01.5Z", "1970-01-02"):
        assert spelled in text
    assert re.search(r"1970-01-01T00:00:00(?!Z)", text)


def test_a_column_that_changes_its_type_in_a_long_table_is_rejected_or_kept(service: Service) -> None:
    row = '{{"temp":75,"rainfall":63,"humidity":44,"kept":{}}}\n'
    for first, then in (("null", '"a"'), ('{"a":1}', '{"b":2}'), ("1", '"a"'), ("[1]", "[2]")):
        content = row.format(first) * 20_000 + row.format(then) * 5_000
        for out in (JSON, *MEDIA_TYPES.values()):
            headers = {"content-type": MEDIA_TYPES["ndjson"], "accept": out}
            answer = service.client.post("/predict?keep=kept", content=content, headers=headers)
            assert answer.status_code in {200, 422}, answer.text
            if answer.status_code == 200 and out == JSON:
                assert str(answer.json()["predictions"][-1]["kept"]) in then


def test_a_response_may_be_longer_than_its_request_but_is_bounded(service: Service) -> None:
    # The session's service takes 2 MB for the longest body.
    for rows, status in ((10_000, 200), (1_000_000, 413)):
        content = body_of(kept(["a"] * rows, rows).drop("kept"), MEDIA_TYPES["parquet"])
        assert len(content) < 50_000
        headers = {"content-type": MEDIA_TYPES["parquet"], "accept": JSON}
        answer = service.client.post("/predict", content=content, headers=headers)
        assert answer.status_code == status, answer.text[:300]
    wait_for(lambda: not list((service.state / "scratch").glob("*")))
