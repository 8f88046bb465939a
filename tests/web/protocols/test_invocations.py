"""`/invocations` and its probes, as MLflow's client and SageMaker's endpoints use them."""

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import mixed
import pandas as pd
import pyarrow as pa
import pytest
from mixed import publish, version_of_table
from service import Service, wait_for
from threaded_service import ThreadedService

from app.data.columns.schema import Column, TableSchema
from app.web.protocols.invocations import MLFLOW_VERSION

PATH = "/invocations"
IN_BODY, IN_ROWS = "1 fault(s) in the body. ", "1 fault(s) in the rows. "
ROW = {"temp": 75, "rainfall": 63, "humidity": 44}
VALUES = [*ROW.values()]
PREDICTION = [53.79556783791256, 66.80653442744479]
JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
# A feature of each kind, one of which has commas and quotes in its levels, and one target.
PLACES = TableSchema(
    (
        Column("place", "category", levels=('a "quoted" one', "north, far", "south")),
        Column("age", missing="fill", fill=40.0),
        Column("seen", "date"),
    ),
    (Column("mass"),),
)
PLACE_ROWS: list[dict[str, Any]] = [
    {"place": "north, far", "age": 41.5, "seen": "2008-01-02"},
    {"place": 'a "quoted" one', "age": None, "seen": "2009-03-04"},
    {"place": "south", "age": 38.0, "seen": "2008-12-31"},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the shipped model and one with words, dates and gaps."""
    running = ThreadedService(tmp_path_factory.mktemp("models"), max_json_bytes="1000000")
    publish(running.models, version_of_table(PLACES), "places")
    publish(running.models, version_of_table(mixed.TABLE), "animals")
    running.start()
    yield running
    running.stop()


def send(service: Service, body: Any, content_type: str = JSON, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.client.post(PATH, content=content, headers={"content-type": content_type, **named})


def expected(service: Service, rows: list[dict[str, Any]], model: str = "crop-yield", **options: Any) -> Any:
    """Return what this service's own format says."""
    response = service.client.post(f"/models/{model}/predict", json={"instances": rows, **options})
    assert response.status_code == 200, response.text
    return [list(row.values()) for row in response.json()["predictions"]]


def csv_of(rows: list[dict[str, Any]], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    if header:
        writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return text.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": [*ROW], "index": ["field-17"], "data": [VALUES]}},
        {"dataframe_split": {"columns": ["humidity", "temp", "rainfall"], "data": [[44, 75, 63]]}},
        {"dataframe_split": {"columns": [0, 1, 2], "data": [VALUES]}},
        {"dataframe_records": [ROW]},
        {"instances": [VALUES]},
        {"instances": [ROW], "params": None},
        {"instances": [{"features": VALUES}]},
        {"inputs": [VALUES]},
        {"inputs": [ROW]},
        {"inputs": VALUES},
        {"inputs": {name: [value] for name, value in ROW.items()}},
        {"inputs": {name: [[value]] for name, value in ROW.items()}},
        {"inputs": ROW},
    ],
)
def test_all_json_bodies_of_mlflow_get_its_response(models: Service, body: dict[str, Any]) -> None:
    response = send(models, body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == JSON
    assert response.headers["linserve-version"] == "1"
    assert response.json() == {"predictions": [pytest.approx(PREDICTION)]}


def test_one_target_gets_a_number_for_each_row(models: Service) -> None:
    rows = [{**row, "age": 40.0} for row in PLACE_ROWS]
    response = send(models, {"dataframe_records": rows}, X_Amzn_SageMaker_Target_Model="places.tar.gz")
    assert response.json()["predictions"] == pytest.approx([row[0] for row in expected(models, rows, "places")])


def test_params_add_bounds_as_columns_of_a_table_have_them(models: Service) -> None:
    body = {"inputs": [VALUES], "params": {"interval": 0.9, "confidence": 0.5}}
    (row,) = send(models, body).json()["predictions"]
    native = models.client.post("/predict", json={"instances": [VALUES], "interval": 0.9, "confidence": 0.5}).json()
    assert [row["apples"], row["oranges"]] == pytest.approx(PREDICTION)
    assert [row["apples_lower"], row["apples_upper"]] == pytest.approx(native["intervals"][0][0])
    assert [row["oranges_mean_lower"], row["oranges_mean_upper"]] == pytest.approx(native["confidence_intervals"][0][1])


def test_a_gap_in_a_frame_is_refused_with_its_place_or_has_no_prediction(models: Service) -> None:
    body = '{"dataframe_split": {"columns": ["temp", "rainfall", "humidity"], "data": [[75, NaN, 44], [75, 63, 44]]}%s}'
    refused = send(models, body % "")
    assert refused.status_code == 400
    assert "/dataframe_split/data/0/rainfall: Expected a number, found null." in refused.json()["message"]
    response = send(models, body % ', "params": {"missing": "null"}')
    assert response.json()["predictions"] == [[None, None], pytest.approx(PREDICTION)]
    assert response.headers["linserve-missing-rows"] == "1"


def test_words_dates_and_gaps_come_through_every_body(models: Service) -> None:
    numbers = [row[0] for row in expected(models, PLACE_ROWS, "places")]
    columns = {name: [row[name] for row in PLACE_ROWS] for name in PLACE_ROWS[0]}
    lines = "".join(json.dumps(row) + "\n" for row in PLACE_ROWS)
    arrays = "".join(json.dumps([*row.values()]) + "\n" for row in PLACE_ROWS)
    arrow = io.BytesIO()
    table = pa.table(columns)
    with pa.ipc.new_stream(arrow, table.schema) as stream:
        stream.write_table(table)
    bodies: list[tuple[Any, str]] = [
        ({"dataframe_split": {"columns": [*columns], "data": [[*row.values()] for row in PLACE_ROWS]}}, JSON),
        ({"dataframe_records": PLACE_ROWS}, JSON),
        ({"inputs": columns}, JSON),
        (csv_of(PLACE_ROWS, header=True), CSV),
        (csv_of(PLACE_ROWS, header=False), CSV),
        (csv_of(PLACE_ROWS, header=True).encode(), "text/csv; charset=utf-8"),
        (pd.DataFrame(PLACE_ROWS).to_csv(index=False), CSV),
        (lines, LINES),
        (lines, "application/x-ndjson"),
        (arrays, LINES),
        (arrow.getvalue(), "application/vnd.apache.arrow.stream"),
    ]
    for body, content_type in bodies:
        response = send(models, body, content_type, **{ATTRIBUTES: "model=places"})
        assert response.status_code == 200, (content_type, response.text)
        assert response.json()["predictions"] == pytest.approx(numbers)


class Answer(NamedTuple):
    accept: str
    content_type: str
    body: str


ANSWERS = [
    Answer("text/csv", "text/csv; charset=utf-8", "53.79556783791256,66.80653442744479\n"),
    Answer(LINES, LINES, '{"apples":53.79556783791256,"oranges":66.80653442744479}\n'),
    Answer(JSON, JSON, '{"predictions":[[53.79556783791256,66.80653442744479]]}'),
    Answer("*/*", JSON, '{"predictions":[[53.79556783791256,66.80653442744479]]}'),
    Answer("application/xml;q=0.9, text/csv;q=0.1", "text/csv; charset=utf-8", "53.79556783791256,66.80653442744479\n"),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=[answer.accept for answer in ANSWERS])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("75,63,44\n", CSV),
        ("75,63,44", CSV),
        ("rainfall,humidity,temp\n63,44,75\n", CSV),
        ('{"instances": [[75, 63, 44]]}', JSON),
        ('{"temp": 75, "rainfall": 63, "humidity": 44}\n', LINES),
        ('{"features": [75, 63, 44]}\n', LINES),
        ("[75, 63, 44]", LINES),
    ],
)
def test_the_response_has_the_format_that_sagemaker_accepts(
    models: Service, body: str, content_type: str, answer: Answer
) -> None:
    response = send(models, body, content_type, Accept=answer.accept)
    assert (response.status_code, response.headers["content-type"]) == (200, answer.content_type)
    assert response.text == answer.body


def test_frames_get_the_response_of_mlflow_whatever_is_accepted(models: Service) -> None:
    response = send(models, {"dataframe_records": [ROW]}, Accept="text/csv")
    assert response.headers["content-type"] == JSON
    assert response.json() == {"predictions": [pytest.approx(PREDICTION)]}


def test_a_row_without_a_prediction_keeps_its_line(models: Service) -> None:
    for content_type, body in ((CSV, "75,,44\n75,63,44\n"), (CSV, "temp,rainfall,humidity\n75,,44\n75,63,44\n")):
        response = send(models, body, content_type, Accept="text/csv")
        assert response.text == ",\n53.79556783791256,66.80653442744479\n"
        assert response.headers["linserve-missing-rows"] == "1"


def test_a_request_that_boto3_sends_reaches_the_container_with_these_headers(models: Service) -> None:
    """`invoke_endpoint(EndpointName=, ContentType=, Accept=, CustomAttributes=, TargetModel=, Body=)`."""
    response = models.client.post(
        PATH,
        content=b"75,63,44",
        headers={
            "content-type": "text/csv",
            "accept": "text/csv",
            "x-amzn-sagemaker-custom-attributes": "interval=0.9",
            "x-amzn-sagemaker-target-model": "fields/crop-yield.tar.gz",
            "x-amzn-sagemaker-inference-id": "field-17",
        },
    )
    assert response.status_code == 200
    cells = [float(cell) for cell in response.text.strip().split(",")]
    assert cells[:2] == pytest.approx(PREDICTION)
    assert cells[2] < cells[0] < cells[3]
    assert cells[4] < cells[1] < cells[5]
    assert response.headers[ATTRIBUTES] == "model=crop-yield,version=1"


def test_custom_attributes_and_params_together_are_the_options(models: Service) -> None:
    body = {"instances": [[75, None, 44]], "params": {"missing": "null"}}
    assert send(models, body, **{ATTRIBUTES: "version = 1 , unknown=null"}).json()["predictions"] == [[None, None]]
    twice = send(models, body, **{ATTRIBUTES: "missing=refuse"})
    assert twice.status_code == 400
    assert twice.json()["message"].startswith("`missing` is given both in `params` and in the custom attributes.")


def test_unknown_query_parameters_are_ignored_and_bodies_may_be_compressed(models: Service) -> None:
    response = models.client.post(
        f"{PATH}?trace=1",
        content=gzip.compress(b"75,63,44"),
        headers={"content-type": CSV, "content-encoding": "gzip"},
    )
    assert response.json() == {"predictions": [pytest.approx(PREDICTION)]}


class Bad(NamedTuple):
    name: str
    body: Any
    status: int
    message: str
    content_type: str = JSON
    headers: Mapping[str, str] = MappingProxyType({})


BAD = [
    Bad("an empty body", b"", 400, "The body is empty."),
    Bad("JSON that ends early", b'{"inputs": [[75, 63', 400, "The body is not JSON"),
    Bad("a list", [VALUES], 400, f"{IN_BODY}Expected an object, found an array."),
    Bad("no rows", {"inputs": []}, 400, "There are no rows."),
    Bad("no member", {}, 400, "Expected rows in one of `dataframe_split`"),
    Bad("two members", {"inputs": [VALUES], "instances": [VALUES]}, 400, "Expected rows in one of"),
    Bad("another member", {"inputs": [VALUES], "interval": 0.9}, 400, f"{IN_BODY}/interval:"),
    Bad("an unknown option", {"inputs": [VALUES], "params": {"top_k": 1}}, 400, f"{IN_BODY}/params/top_k"),
    Bad("an option of a wrong type", {"inputs": [VALUES], "params": {"interval": "0.9"}}, 400, IN_BODY),
    Bad("too few values", {"inputs": [[75, 63]]}, 400, f"{IN_ROWS}/inputs/0: Expected 3 values"),
    Bad("rows of other kinds", {"inputs": [VALUES, ROW]}, 400, f"{IN_ROWS}/inputs/1"),
    Bad("text for a number", {"inputs": [[75, "x", 44]]}, 400, f"{IN_ROWS}/inputs/0/1: Expected a number"),
    Bad("NaN", b'{"inputs": [[NaN, 63, 44]]}', 400, f"{IN_ROWS}/inputs/0/0: Expected a number, found null"),
    Bad("infinity", b'{"inputs": [[Infinity, 63, 44]]}', 400, f"{IN_ROWS}/inputs/0/0"),
    Bad("an unknown feature", {"dataframe_records": [{**ROW, "wind": 3}]}, 400, f"{IN_ROWS}/dataframe_re"),
    Bad("columns of other lengths", {"inputs": {"temp": [1, 2], "rainfall": [1]}}, 400, "The columns differ in length"),
    Bad("a short row of a frame", {"dataframe_split": {"columns": [*ROW], "data": [[1]]}}, 400, "Expected an array"),
    Bad("a frame that is a list", {"dataframe_split": [ROW]}, 400, "Expected an object with the lists"),
    Bad("a frame with a name twice", {"dataframe_split": {"columns": ["a", "a"], "data": []}}, 400, "Two columns"),
    Bad("a level that is unknown", {"inputs": [{**PLACE_ROWS[0], "place": "west"}]}, 400, "1 fault(s)", JSON,
        {ATTRIBUTES: "model=places"}),
    Bad("CSV with too few values", "75,63\n", 400, "Row 1 has 2 value(s), and the model has 3 feature(s)", CSV),
    Bad("CSV with text", "75,63,44\n75,x,44\n", 400, 'Row 2, column "rainfall": Expected a number, found text.', CSV),
    Bad("CSV with a misspelt name", "temp,rain,humidity\n75,63,44\n", 400, "Columns are missing: ", CSV),
    Bad("CSV in UTF-16", "75,63,44\n".encode("utf-16"), 415, "The charset in Content-Type", "text/csv; charset=ebcdic"),
    Bad("lines that are no JSON", "[75, 63, 44]\n[75,\n", 400, "Line 2 is not JSON.", LINES),
    Bad("lines with too few values", "[75, 63]\n", 400, f"{IN_ROWS}/0: Expected 3 values", LINES),
    Bad("no content type", "75,63,44", 415, "There is no Content-Type header.", ""),
    Bad("an unknown content type", "75,63,44", 415, "The Content-Type of the body is not supported.", "image/png"),
    Bad("a damaged encoding", b"75,63,44", 400, "The body is not gzip", CSV, {"content-encoding": "gzip"}),
    Bad("an unknown response", "75,63,44", 406, "Accept has to name", CSV, {"accept": "application/x-npy"}),
    Bad("an unknown model", "75,63,44", 404, 'There is no model "other".', CSV,
        {"X-Amzn-SageMaker-Target-Model": "other.tar.gz"}),
    Bad("an unknown version", "75,63,44", 404, "", CSV, {ATTRIBUTES: "version=9"}),
    Bad("a trace id for options", "75,63,44", 400, '"c000b4f9" is not an option. Expected options', CSV,
        {ATTRIBUTES: "c000b4f9"}),
    Bad("an attribute twice", "75,63,44", 400, '"interval" is given twice. Expected options', CSV,
        {ATTRIBUTES: "interval=0.9,interval=0.8"}),
    Bad("an attribute out of range", "75,63,44", 400, "1 fault(s) in the custom attributes.", CSV,
        {ATTRIBUTES: "interval=2"}),
    Bad("a body that is too long", b" " * 1_000_001, 413, "The body is longer than the limit"),
    Bad("too many brackets", b'{"inputs": [' + b"[]," * 330_000 + b"[]]}", 400, "At most 100000 rows"),
    Bad("brackets inside one another", b'{"inputs": ' + b"[" * 400_000, 400, "The body is not JSON"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
def test_bad_requests_get_an_error_of_mlflow_within_little_memory(models: Service, bad: Bad) -> None:
    content = bad.body if isinstance(bad.body, bytes | str) else json.dumps(bad.body)
    types = {"content-type": bad.content_type} if bad.content_type else {}
    with models.growing_by_less_than(64 << 20):
        response = models.client.post(PATH, content=content, headers={**types, **bad.headers})
    assert response.status_code == bad.status, response.text
    assert response.headers["content-type"] == JSON
    error = response.json()
    assert error.keys() == {"error_code", "message"}
    assert error["error_code"] == ("RESOURCE_DOES_NOT_EXIST" if bad.status == 404 else "BAD_REQUEST")
    assert error["message"].startswith(bad.message), error["message"]


def test_a_form_and_another_method_get_an_error_of_mlflow(models: Service) -> None:
    form = models.client.post(PATH, files={"file": ("rows.csv", b"75,63,44")})
    assert (form.status_code, form.json()["error_code"]) == (415, "BAD_REQUEST")
    other = models.client.get(PATH)
    assert (other.status_code, other.json()["error_code"]) == (405, "ENDPOINT_NOT_FOUND")
    assert other.headers["allow"] == "POST, OPTIONS"


def test_probes_need_no_key_and_predictions_do(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(f"reader predict {'0' * 64}\n")
    service = ThreadedService(tmp_path, api_keys_file=str(keys)).start()
    try:
        for path in ("/ping", "/health"):
            response = service.client.get(path)
            assert (response.status_code, response.text) == (200, "\n")
        assert service.client.get("/version").text == MLFLOW_VERSION
        refused = service.client.post(PATH, json={"inputs": [VALUES]})
        assert (refused.status_code, refused.json()["error_code"]) == (401, "UNAUTHENTICATED")
    finally:
        service.stop()


def test_ping_fails_while_there_is_no_model_to_serve(tmp_path: Path) -> None:
    service = ThreadedService(tmp_path, default_model="absent").start()
    try:
        for path in ("/ping", "/health"):
            response = service.client.get(path)
            assert (response.status_code, response.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
        publish(service.models, version_of_table(PLACES), "absent")
        wait_for(lambda: service.client.get("/ping").status_code == 200)
    finally:
        service.stop()


def test_a_table_longer_than_the_limit_of_json_is_answered_row_by_row(models: Service) -> None:
    rows = 120_000
    body = b"75,63,44\n" * rows
    response = send(models, body, CSV, Accept="text/csv")
    assert response.text == "53.79556783791256,66.80653442744479\n" * rows
    predictions = send(models, body, CSV).json()["predictions"]
    assert len(predictions) == rows
    assert predictions[-1] == pytest.approx(PREDICTION)
