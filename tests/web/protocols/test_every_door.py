"""The same rows through every door: words, booleans, dates, gaps and unknown levels have the numbers of `/predict`."""

import csv
import gzip
import io
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import httpx
import numpy as np
import pyarrow as pa
import pytest
from mixed import FEATURES, TABLE, publish, rows_of, version_of_table
from service import Service

Rows: TypeAlias = list[dict[str, Any]]

OK = httpx.codes.OK
NAMES = [column.name for column in FEATURES]
COLUMNS = rows_of(FEATURES, 12, seed=5)
GAPS = {1: "species", 3: "age", 5: "wild", 6: "island", 8: "seen"}  # Rows with a gap, and in which feature.
UNSEEN = 10  # A row whose island no training row had.
ROWS: Rows = [dict(zip(NAMES, values, strict=True)) for values in zip(*COLUMNS.values(), strict=True)]
ROWS = [row | ({GAPS[index]: None} if index in GAPS else {}) for index, row in enumerate(ROWS)]
ROWS[UNSEEN]["island"] = "Atlantis"
OPTIONS = {"missing": "null", "unknown": "null"}
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
FILLED = [
    replace(column, missing="indicator", fill={"age": 40.0, "wild": 0.0, "seen": 14000.0}.get(column.name))
    for column in FEATURES
]
BARE = {
    "format": "linserve-model/1",
    "features": [
        {"name": "species", "kind": "category", "levels": ["Adelie", "Chinstrap", "Gentoo"]},
        "age",
        {"name": "wild", "kind": "boolean"},
        {"name": "island", "kind": "category", "levels": ["Biscoe", "Dream", "Torgersen"]},
        {"name": "seen", "kind": "date"},
    ],
    "targets": ["mass"],
    "coefficients": [1.5, -2.25, 30.125, 4.5, 0.75, -1.125, 0.0625],
    "intercept": 1000,
}


class Request(NamedTuple):
    """A request to a door, and how its results are read."""

    path: str  # With the name of the model in place of {}.
    content: bytes
    headers: dict[str, str]
    read: Callable[[httpx.Response], Sequence[float | None]]


def as_json(path: str, document: Any, read: Callable[[Any], Any], headers: dict[str, str] | None = None) -> Request:
    typed = {"content-type": "application/json", **(headers or {})}
    return Request(path, json.dumps(document).encode(), typed, lambda answer: read(answer.json()))


def tensors(rows: Rows, *, binary: bool) -> Request:
    inputs, contents = [], []
    for name in NAMES:
        values = [row[name] for row in rows]
        is_number = name in ("age", "wild")
        each: dict[str, Any] = {"name": name, "shape": [len(rows)], "datatype": "FP64" if is_number else "BYTES"}
        if is_number:  # A tensor of booleans has no gaps.
            values = [None if value is None else float(value) for value in values]
        if binary and is_number:
            contents.append(np.array(values, float).tobytes())
        elif binary:
            texts = [(value or "").encode() for value in values]
            contents.append(b"".join(struct.pack("<I", len(text)) + text for text in texts))
        else:
            each["data"] = values
        inputs.append(each | ({"parameters": {"binary_data_size": len(contents[-1])}} if binary else {}))
    outputs = [{"name": "mass", "parameters": {"binary_data": binary}}]
    document = json.dumps({"inputs": inputs, "outputs": outputs, "parameters": OPTIONS}).encode()
    headers = {"Inference-Header-Content-Length": str(len(document))} if binary else {}

    def read(answer: httpx.Response) -> Sequence[float | None]:
        if not binary:
            found: list[float | None] = answer.json()["outputs"][0]["data"]
            return found
        length = int(answer.headers["Inference-Header-Content-Length"])
        return [None if np.isnan(value) else value for value in np.frombuffer(answer.content[length:], "<f8").tolist()]

    return Request("/v2/models/{}/infer", document + b"".join(contents), headers, read)


def kserve(member: str, document: Any, verb: str = "predict") -> Request:
    result = "outputs" if member == "inputs" else "predictions"
    return as_json(f"/v1/models/{{}}:{verb}", {member: document, "parameters": OPTIONS}, lambda body: body[result])


def mlflow(member: str, document: Any) -> Request:
    body = {member: document, "params": OPTIONS}
    return as_json("/invocations", body, lambda found: found["predictions"], {ATTRIBUTES: "model={}"})


def table(content: bytes, content_type: str, accept: str = "application/json") -> Request:
    headers = {"content-type": content_type, "accept": accept, ATTRIBUTES: "missing=null,unknown=null,model={}"}

    def read(answer: httpx.Response) -> Sequence[float | None]:
        if accept == "application/json":
            found: list[float | None] = answer.json()["predictions"]
            return found
        if accept == "text/csv":
            return [float(line) if line.strip('"') else None for line in answer.text.splitlines()]
        return [json.loads(line)["mass"] for line in answer.text.splitlines()]

    return Request("/invocations", content, headers, read)


def vertex(document: Any) -> Request:
    parameters = {**OPTIONS, "model": "{}"}
    body = {"instances": document, "parameters": parameters}
    return as_json("/vertex/predict", body, lambda found: found["predictions"], {"Linserve-Model": "{}"})


def csv_of(rows: Rows, *, header: bool) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file)
    if header:
        writer.writerow(NAMES)
    writer.writerows(row.values() for row in rows)
    return file.getvalue().encode()


def arrow_of(columns: dict[str, list[Any]]) -> bytes:
    file, content = io.BytesIO(), pa.table(columns)
    with pa.ipc.new_stream(file, content.schema) as stream:
        stream.write_table(content)
    return file.getvalue()


def doors_of(rows: Rows) -> dict[str, Request]:
    arrays = [[*row.values()] for row in rows]
    columns = {name: [row[name] for row in rows] for name in NAMES}
    objects = "".join(json.dumps(row) + "\n" for row in rows).encode()
    lists = "".join(json.dumps(row) + "\n" for row in arrays).encode()
    return {
        "native arrays": as_json(
            "/models/{}/predict",
            {"instances": arrays, **OPTIONS},
            lambda body: [row[0] for row in body["predictions"]],
        ),
        "open inference, JSON": tensors(rows, binary=False),
        "open inference, binary": tensors(rows, binary=True),
        "KServe v1, objects": kserve("instances", rows),
        "KServe v1, arrays": kserve("instances", arrays),
        "KServe v1, columns": kserve("inputs", columns),
        "KServe v1, explained": kserve("instances", rows, "explain"),
        "MLflow, split": mlflow("dataframe_split", {"columns": NAMES, "data": arrays}),
        "MLflow, records": mlflow("dataframe_records", rows),
        "MLflow, instances": mlflow("instances", arrays),
        "MLflow, columns": mlflow("inputs", columns),
        "SageMaker, CSV with a header": table(csv_of(rows, header=True), "text/csv"),
        "SageMaker, CSV without a header": table(csv_of(rows, header=False), "text/csv", "text/csv"),
        "SageMaker, lines of objects": table(objects, "application/jsonlines", "application/jsonlines"),
        "SageMaker, lines of arrays": table(lists, "application/jsonlines"),
        "Arrow": table(arrow_of(columns), "application/vnd.apache.arrow.stream"),
        "Vertex AI, objects": vertex(rows),
        "Vertex AI, arrays": vertex(arrays),
    }


DOORS = doors_of(ROWS)
MODELS = ("birds", "filled-birds", "bare-birds")


@pytest.fixture(scope="module", autouse=True)
def _models(doors: Service) -> None:
    """Publish models that leave rows with gaps out, that fill gaps, and that were imported without statistics."""
    publish(doors.models, version_of_table(replace(TABLE, features=tuple(FILLED)), gaps=9), "filled-birds")
    answer = doors.client.post("/models/bare-birds/versions", json=BARE)
    assert answer.status_code == httpx.codes.CREATED, answer.text


def send(service: Service, door: Request, model: str) -> httpx.Response:
    headers = {name: value.replace("{}", model) for name, value in door.headers.items()}
    content = door.content.replace(b'"{}"', f'"{model}"'.encode())
    return service.client.post(door.path.replace("{}", model), content=content, headers=headers)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_the_numbers_are_those_of_the_own_format(doors: Service, door: Request, model: str) -> None:
    native = doors.client.post(f"/models/{model}/predict", json={"instances": ROWS, **OPTIONS}).json()["predictions"]
    expected = [row["mass"] for row in native]
    gaps = {UNSEEN} if model == "filled-birds" else {*GAPS, UNSEEN}
    assert {index for index, value in enumerate(expected) if value is None} == gaps

    answer = send(doors, door, model)

    assert answer.status_code == OK, answer.text
    assert answer.headers["linserve-version"] == "1"
    assert answer.headers["linserve-missing-rows"] == str(len(gaps))
    assert door.read(answer) == expected


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_gzip_may_have_its_older_name(doors: Service, door: Request) -> None:
    expected = door.read(send(doors, door, "birds"))
    content = gzip.compress(door.content.replace(b'"{}"', b'"birds"'))
    for encoding in ("gzip", "x-gzip", "X-GZip"):
        compressed = door._replace(content=content, headers={**door.headers, "content-encoding": encoding})

        answer = send(doors, compressed, "birds")

        assert answer.status_code == OK, (encoding, answer.text)
        assert door.read(answer) == expected


def with_options(door: Request, **options: Any) -> Request:
    """Return the request with these options in place of the usual ones."""
    given, header = json.dumps(OPTIONS), ",".join(f"{name}={value}" for name, value in OPTIONS.items())
    ours = ",".join(f"{name}={value}" for name, value in options.items())
    headers = {name: value.replace(header, ours) for name, value in door.headers.items()}
    content = door.content.replace(given[1:-1].encode(), json.dumps(options)[1:-1].encode())
    if (length := "Inference-Header-Content-Length") in headers:
        headers[length] = str(int(headers[length]) + len(content) - len(door.content))
    return door._replace(content=content, headers=headers)


WHOLE = doors_of([row for index, row in enumerate(ROWS) if index not in GAPS and index != UNSEEN])
WITHOUT = "imported without statistics"


@pytest.mark.parametrize("option", ["interval", "confidence"])
@pytest.mark.parametrize("door", WHOLE.values(), ids=WHOLE)
def test_a_version_without_statistics_says_why_it_has_no_intervals(doors: Service, door: Request, option: str) -> None:
    asked = with_options(door, **{option: 0.9})
    assert (asked.content, asked.headers) != (door.content, door.headers)

    answer = send(doors, asked, "bare-birds")

    if answer.status_code == OK:  # The format has a place for the reason beside the predictions.
        name = "intervals" if option == "interval" else "confidence_intervals"
        assert answer.json()["unavailable"][name] == WITHOUT
    else:
        assert answer.status_code in (400, 422), answer.text
        sentence = f"This version has no intervals: {WITHOUT}. Leave `{option}` out."
        assert sentence in answer.text


EXPLAINED = {
    "native": as_json("/models/{}/predict", {"instances": ROWS[:1], "explain": True}, lambda body: body["unavailable"]),
    "open inference": with_options(
        tensors(ROWS[:1], binary=False)._replace(read=lambda answer: answer.json()["parameters"]["unavailable"]),
        explain=True,
    ),
    "KServe v1": kserve("instances", ROWS[:1], "explain")._replace(read=lambda answer: answer.json()["unavailable"]),
    "Vertex AI": with_options(
        vertex(ROWS[:1])._replace(read=lambda answer: answer.json()["unavailable"]), explain=True
    ),
}


@pytest.mark.parametrize("door", EXPLAINED.values(), ids=EXPLAINED)
def test_explanations_say_that_the_training_means_are_not_known(doors: Service, door: Request) -> None:
    answer = send(doors, door, "bare-birds")

    assert answer.status_code == OK, answer.text
    reason = "Contributions are relative to 0, because the training means are not known."
    found: Any = door.read(answer)
    assert found in ({"baseline": reason}, f"baseline: {reason}")


NAMED_TWICE = [
    ("/vertex/predict", "Linserve-Model", "birds"),
    ("/invocations", "X-Amzn-SageMaker-Target-Model", "birds"),
    ("/invocations", ATTRIBUTES, "model=birds"),
]


@pytest.mark.parametrize(("path", "header", "value"), NAMED_TWICE)
def test_a_model_that_is_named_twice_is_refused(doors: Service, path: str, header: str, value: str) -> None:
    headers = [(header, value), (header, value), ("content-type", "application/json")]
    content = json.dumps({"instances": ROWS[:1]})

    answer = doors.client.post(path, content=content, headers=headers)

    assert answer.status_code in (400, 422)
    assert f"The header {header} is given more than once. Send it once." in answer.text


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (
            {
                "name": "x",
                "shape": [1, 5],
                "datatype": "BYTES",
                "data": ["Gentoo", "40", "true", "Dream", "2008-02-29"],
            },
            'Tensor "x": "age" is a number. Send one tensor for each feature.',
        ),
        (
            {"name": "wild", "shape": [1], "datatype": "BOOL", "data": [None]},
            "found null. Only FP64, FP32, FP16 and BYTES can have missing values.",
        ),
    ],
)
def test_a_tensor_that_cannot_hold_a_value_names_those_that_can(
    doors: Service, tensor: dict[str, Any], sentence: str
) -> None:
    answer = doors.client.post("/v2/models/birds/infer", json={"inputs": [tensor]})

    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
