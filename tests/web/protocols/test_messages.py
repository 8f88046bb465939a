"""Messages of errors name only what the protocol of the request has: its options, its paths and its media types."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import workbooks
from service import Service

from app.web.protocols import PROTOCOLS
from app.web.protocols.messages import in_words_of

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
CSV, JSON, NDJSON = "text/csv", "application/json", "application/x-ndjson"
ROW = {"temp": 75, "rainfall": 63, "humidity": 44}


class Case(NamedTuple):
    path: str
    content: bytes
    message: str
    content_type: str = JSON
    headers: Mapping[str, str] = MappingProxyType({})
    method: str = "POST"


def table(content: str, message: str, content_type: str = CSV, encoding: str = "utf-8") -> Case:
    return Case("/invocations", content.encode(encoding), message, content_type)


def body(path: str, document: Any, message: str) -> Case:
    return Case(path, json.dumps(document).encode(), message)


def missing(path: str, message: str, method: str = "GET") -> Case:
    return Case(path, b"", message, method=method)


V1, V2, VERTEX = "/v1/models/crop-yield:predict", "/v2/models/crop-yield/infer", "/vertex/predict"
NOT_JSON = "The body is CSV, but JSON was expected (Content-Type: application/json)."
MANY = "At most 1000 instances fit into one request. Send them in several requests."
VERSION = "The number of a version is whole, such as 1. For the current version, leave it out."
METHOD = "This path does not support this method. Supported methods, as in the Allow header: "

CASES = {
    # Options of /predict
    "a column to keep": table(
        "temp,rainfall,humidity,id\n75,63,44,1\n",
        'There is 1 column that is not a feature: "id". Expected "temp", "rainfall", "humidity". Remove it.',
    ),
    "several columns to keep": table(
        "temp,rainfall,humidity,id,place\n75,63,44,1,a\n",
        'There are 2 columns that are not features: "id", "place". Expected "temp", "rainfall", "humidity". Remove '
        "them.",
    ),
    "a column to keep in a later line": table(
        "".join(f"{json.dumps(row)}\n" for row in (ROW, {**ROW, "id": 1})),
        'Row 2: Found "id", which no line before has. Remove the names.',
        NDJSON,
    ),
    "lines to skip": table("Yields\n75,63,44\n75,63,44\n", "Row 1 has 1 value(s), but the rows after it have 3."),
    "an encoding": table(
        "temp,rainfall,humidité\n75,63,44\n",
        "The file is not UTF-8 text: row 1 has a byte that is not UTF-8. Save it as UTF-8 (in Excel: CSV UTF-8), or "
        "convert it, for instance with `iconv -f WINDOWS-1252 -t UTF-8 FILE`.",
        encoding="windows-1252",
    ),
    "a charset": table(
        "75,63,44\n", "The request says that the file is UTF-16 text, but it is not.", f"{CSV}; charset=utf-16"
    ),
    "a sheet": Case(
        "/invocations",
        workbooks.workbook({"Sales": [["x", "y"], [1, 2]]}),
        'Columns are missing: columns "temp", "rainfall", "humidity" expected, but the file has 2 columns, "x", "y". '
        "Rename the columns of the file, or add those that are missing. The first sheet with a table was read.",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    "a part of a form": Case(
        "/invocations",
        b"--x\r\n\r\n75,63,44\r\n--x--\r\n",
        "Forms are not supported here. Send the file as the body.",
        "multipart/form-data; boundary=x",
    ),
    "the format of an answer": Case(
        "/invocations",
        b"75,63,44",
        "Accept has to name application/json or application/jsonlines or application/x-ndjson or text/csv, and names "
        "none of them. Without it, the answer is application/json.",
        CSV,
        {"accept": "image/png"},
    ),
    "a gap among rows for a training": body(
        V1,
        {"instances": [[75, None, 44]]},
        "1 fault(s) in the rows. /instances/0/1: Expected a number, found null. Send a number, or leave the row out. A "
        "prediction is null with `missing`: `null`.",
    ),
    # Media types
    "a table, KServe v1": Case(V1, b"temp,rainfall\n75,63\n", NOT_JSON),
    "a table, Open Inference Protocol": Case(V2, b"temp,rainfall\n75,63\n", NOT_JSON),
    "a table, Vertex AI": Case(VERTEX, b"temp,rainfall\n75,63\n", NOT_JSON),
    "many rows, KServe v1": body(V1, {"instances": [[1, 2, 3]] * 1001}, MANY),
    "many rows, Vertex AI": body(VERTEX, {"instances": [[1, 2, 3]] * 1001}, MANY),
    "many rows, /invocations": body(
        "/invocations",
        {"instances": [[1, 2, 3]] * 1001},
        "At most 1000 rows fit into one request. Send them in several requests, or as a table.",
    ),
    # Models and versions
    "a model, KServe v1": body(
        "/v1/models/tomatoes:predict",
        {"instances": [[1, 2, 3]]},
        'There is no model "tomatoes". GET /v1/models lists the models.',
    ),
    "a version, KServe v1": body(
        "/v1/models/crop-yield/versions/7:predict",
        {"instances": [[1, 2, 3]]},
        'Model "crop-yield" has no version 7. GET /v1/models/crop-yield lists its versions.',
    ),
    "a model, Open Inference Protocol": body(
        "/v2/models/tomatoes/infer",
        {"inputs": []},
        'There is no model "tomatoes". POST /v2/repository/index lists the models.',
    ),
    "a version, Open Inference Protocol": missing(
        "/v2/models/crop-yield/versions/7",
        'Model "crop-yield" has no version 7. GET /v2/models/crop-yield lists its versions.',
    ),
    "a model, Vertex AI": body(
        VERTEX, {"instances": [[1, 2, 3]], "parameters": {"model": "tomatoes"}}, 'There is no model "tomatoes".'
    ),
    "a version, Vertex AI": body(
        VERTEX,
        {"instances": [[1, 2, 3]], "parameters": {"version": 7}},
        'Model "crop-yield" has no version 7.',
    ),
    "no version, Vertex AI": body(
        VERTEX,
        {"instances": [[1, 2, 3]], "parameters": {"version": 0}},
        "1 fault(s) in the body. /parameters/version: Expected a number greater than or equal to 1, found 0. "
        f"{VERSION}",
    ),
    "a model, /invocations": Case(
        "/invocations", b"75,63,44", 'There is no model "tomatoes".', CSV, {ATTRIBUTES: "model=tomatoes"}
    ),
    "a version, /invocations": Case(
        "/invocations", b"75,63,44", 'Model "crop-yield" has no version 7.', CSV, {ATTRIBUTES: "version=7"}
    ),
    # Paths
    "a path of KServe v1 with a verb": missing(
        "/v1/models/crop-yield/predict",
        "There is nothing at this path. Did you mean /v1/models/{model}?",
    ),
    "a path of this service below /v1": missing("/v1/train", "There is nothing at this path."),
    "a path of this service below /v2": missing("/v2/train", "There is nothing at this path."),
    "a path of the Open Inference Protocol": missing(
        "/v2/model/crop-yield/infer", "There is nothing at this path. Did you mean /v2/models/{model}/infer?"
    ),
    "a path of Vertex AI": missing(
        "/vertex/predicts", "There is nothing at this path. Did you mean /vertex/predict?", "POST"
    ),
    "a path below /invocations": missing(
        "/invocations/1", "There is nothing at this path. Did you mean /invocations?", "POST"
    ),
    "a method of KServe v1": missing("/v1/models", f"{METHOD}GET, HEAD, OPTIONS.", "PUT"),
    "a method of /invocations": missing("/invocations", f"{METHOD}POST, OPTIONS."),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_message_has_no_advice_that_only_another_protocol_follows(doors: Service, case: Case) -> None:
    headers = {"content-type": case.content_type, **case.headers}

    answer = doors.client.request(case.method, case.path, content=case.content, headers=headers)

    error = answer.json()
    found = error["message"] if "message" in error else error["error"]
    assert (found["message"] if isinstance(found, dict) else found) == case.message


def test_paths_of_this_service_are_proposed_for_its_own(doors: Service) -> None:
    for path in ("/models/birds/ready", "/models/birds/infer"):  # as below /v2
        detail = doors.client.post(path).json()["detail"]
        assert detail.startswith("There is nothing at this path. Did you mean /models/{model}/")
        assert detail.endswith(" GET / lists all calls.")


def test_an_input_that_is_not_an_object_is_named_by_its_place(doors: Service) -> None:
    answer = doors.client.post(V2, json={"inputs": [[1, 2, 3]]})

    assert answer.json()["error"].startswith("1 fault(s) in the body. /inputs/0: Expected an object, found an array.")


def test_a_name_in_quotes_is_not_taken_for_advice() -> None:
    name = '"a. `keep` B. GET /jobs"'

    for wire_format in PROTOCOLS[1:]:
        assert in_words_of(wire_format, f"There is no column {name}. GET /jobs") == f"There is no column {name}."
        assert in_words_of(wire_format, "") == ""


def test_the_first_fault_stays_after_the_number_of_faults() -> None:
    fault = "2 fault(s) in the body. Expected `keep`."

    for wire_format in PROTOCOLS[1:]:
        assert in_words_of(wire_format, f"{fault} Remove `drop`. GET /jobs lists them.") == fault
