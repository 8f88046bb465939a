"""KServe v1 and TensorFlow Serving: the same predictions as in this service's own format, in other shapes."""

import gzip
import json
from typing import Any

import httpx
import numpy as np
import pytest
from mixed import FEATURES, rows_of
from service import INPUTS, NO_TLS, Service

PREDICT = "/v1/models/crop-yield:predict"
NAMES = ("temp", "rainfall", "humidity")
COLUMNS = dict(zip(NAMES, map(list, zip(*INPUTS, strict=True)), strict=True))
OBJECTS = [dict(zip(NAMES, row, strict=True)) for row in INPUTS]
BIRD = {"species": "Gentoo", "age": 40.5, "wild": True, "island": "Dream", "seen": "2008-02-29"}
BIRDS = rows_of(FEATURES, 20, seed=3)


def native(service: Service, model: str, **body: Any) -> dict[str, Any]:
    answer = service.client.post(f"/models/{model}/predict", json=body)
    assert answer.status_code == httpx.codes.OK, answer.text
    result: dict[str, Any] = answer.json()
    return result


def ask(service: Service, path: str, **body: Any) -> dict[str, Any]:
    answer = service.client.post(path, content=json.dumps(body))  # without a content type, as KServe's client
    assert answer.status_code == httpx.codes.OK, answer.text
    result: dict[str, Any] = answer.json()
    return result


@pytest.mark.parametrize(
    ("member", "body"),
    [
        ("predictions", {"instances": INPUTS}),
        ("predictions", {"instances": OBJECTS, "signature_name": "serving_default"}),
        ("predictions", {"instances": [{name: [value] for name, value in row.items()} for row in OBJECTS]}),
        ("outputs", {"inputs": COLUMNS}),
        ("outputs", {"inputs": {name: [[value] for value in values] for name, values in COLUMNS.items()}}),
        ("outputs", {"inputs": INPUTS}),
        ("outputs", {"inputs": OBJECTS}),
    ],
)
def test_every_form_of_rows_has_the_predictions_of_the_own_format(
    doors: Service, member: str, body: dict[str, Any]
) -> None:
    expected = native(doors, "crop-yield", instances=INPUTS)["predictions"]

    for path in (PREDICT, "/v1/models/crop-yield/versions/1:predict"):
        assert ask(doors, path, **body) == {member: expected}


def test_a_prediction_of_one_target_is_a_number_for_words_booleans_and_dates(doors: Service) -> None:
    rows = [dict(zip(BIRDS, row, strict=True)) for row in zip(*BIRDS.values(), strict=True)]
    expected = [row["mass"] for row in native(doors, "birds", instances=rows)["predictions"]]
    path = "/v1/models/birds:predict"

    assert ask(doors, path, instances=rows) == {"predictions": expected}
    assert ask(doors, path, inputs=BIRDS) == {"outputs": expected}


def test_options_work_as_in_the_own_format(doors: Service) -> None:
    rows = [{**BIRD, "age": None}, BIRD, {**BIRD, "species": "Emperor"}]
    options = {"interval": 0.9, "confidence": 0.5, "missing": "null", "unknown": "null", "extrapolation": True}
    own = native(doors, "birds", instances=[list(row.values()) for row in rows], **options)

    answer = doors.client.post("/v1/models/birds:predict", json={"instances": rows, "parameters": options})

    found = answer.json()
    assert answer.headers["linserve-version"] == "1"
    assert answer.headers["linserve-missing-rows"] == "2"
    assert found["predictions"][0] is None
    assert found["predictions"] == [row[0] for row in own["predictions"]]
    assert found["intervals"] == [row[0] for row in own["intervals"]]
    assert found["confidence_intervals"] == [row[0] for row in own["confidence_intervals"]]
    assert found["extrapolation"] == own["extrapolation"]


def test_recorded_predictions_and_weights_that_are_refused_are_named(doors: Service) -> None:
    found = ask(doors, PREDICT, instances=INPUTS[:2], parameters={"prediction_id": ["kserve-1", "kserve-2"]})
    assert found["recorded"] is True

    weights = {"instances": INPUTS[:2], "parameters": {"instance_weights": [1, 2]}}
    answer = doors.client.post(PREDICT, json=weights)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "Add `interval`" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/v1/models/crop-yield:explain", "/v1/models/crop-yield/versions/1:explain"])
def test_contributions_of_an_explanation_and_the_baseline_sum_to_the_prediction(doors: Service, path: str) -> None:
    found = ask(doors, path, instances=INPUTS)

    assert list(found) == ["predictions", "explanations", "baseline"]
    for prediction, explanation in zip(found["predictions"], found["explanations"], strict=True):
        assert list(explanation) == ["apples", "oranges"]
        sums = [found["baseline"][target] + sum(parts.values()) for target, parts in explanation.items()]
        assert np.allclose(sums, prediction, rtol=1e-12)
    assert ask(doors, path, inputs=COLUMNS)["explanations"] == found["explanations"]


def test_models_and_their_versions_have_the_shapes_that_both_clients_read(doors: Service) -> None:
    status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}

    names = [model["model"] for model in doors.client.get("/models").json()["items"]]
    assert {"birds", "crop-yield"} <= set(names)
    assert doors.client.get("/v1/models").json() == {"models": names}
    for path in ("/v1/models/birds", "/v1/models/birds/versions/1"):
        ready = {"name": "birds", "ready": True, "model_version_status": [status]}
        assert doors.client.get(path, params={"unknown": "ignored"}).json() == ready


def test_probes_need_no_key_and_then_say_no_more_than_that_the_model_is_ready(doors: Service) -> None:
    for path in ("/v1/models/birds", "/v1/models/birds/versions/1"):
        answer = httpx.get(f"{doors.url}{path}", timeout=60, verify=NO_TLS)
        assert answer.status_code == httpx.codes.OK
        assert answer.json() == {"name": "birds", "ready": True}
    for path in ("/v1/models", "/v1/models/birds/metadata"):
        answer = httpx.get(f"{doors.url}{path}", timeout=60, verify=NO_TLS)
        assert answer.status_code == httpx.codes.UNAUTHORIZED
        assert answer.json()["error"].startswith("Send one valid API key")


def test_a_model_without_a_current_version_is_not_ready(doors: Service) -> None:
    current = doors.models / "birds" / "current"
    target = current.readlink()
    current.unlink()
    try:
        answer = doors.client.get("/v1/models/birds")
    finally:
        current.symlink_to(target)
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "error" in answer.json()


@pytest.mark.parametrize("path", ["/v1/models/birds/metadata", "/v1/models/birds/versions/1/metadata"])
def test_metadata_describes_features_and_targets_as_tensors(doors: Service, path: str) -> None:
    found = doors.client.get(path).json()

    assert found["model_spec"] == {"name": "birds", "signature_name": "", "version": "1"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    types = {name: tensor["dtype"] for name, tensor in signature["inputs"].items()}
    assert types == {
        "species": "DT_STRING",
        "age": "DT_DOUBLE",
        "wild": "DT_BOOL",
        "island": "DT_STRING",
        "seen": "DT_STRING",
    }
    assert signature["outputs"]["predictions"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]


def test_a_compressed_body_of_any_content_type_is_read(doors: Service) -> None:
    body = gzip.compress(json.dumps({"instances": INPUTS}).encode())
    headers = {"content-encoding": "gzip", "content-type": "application/x-www-form-urlencoded"}  # as of curl -d

    answer = doors.client.post(PREDICT, content=body, headers=headers)

    assert answer.json()["predictions"] == native(doors, "crop-yield", instances=INPUTS)["predictions"]


def test_requests_are_counted_by_protocol(doors: Service) -> None:
    ask(doors, PREDICT, instances=INPUTS)

    line = 'linserve_requests_total{method="POST",protocol="kserve-v1",route="/v1/models/{model}:predict",status="200"}'
    assert line in doors.client.get("/metrics").text


UNPROCESSABLE, NOT_FOUND = 422, 404
BAD: dict[str, tuple[str, bytes, int, str]] = {
    "nothing": (PREDICT, b"", 400, "The body is empty"),
    "no JSON": (PREDICT, b"{'instances': [[1, 2, 3]]}", 400, "not JSON"),
    "a truncated body": (PREDICT, b'{"instances": [[1, 2', 400, "end of the body"),
    "bytes that are not UTF-8": (PREDICT, b'{"instances": [["\xff", 2, 3]]}', 400, "not UTF-8"),
    "a body that is an array": (PREDICT, b"[[1, 2, 3]]", UNPROCESSABLE, "object"),
    "neither rows nor columns": (PREDICT, b"{}", UNPROCESSABLE, "Expected either `instances`"),
    "rows and columns": (PREDICT, b'{"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}', UNPROCESSABLE, "either"),
    "no rows": (PREDICT, b'{"instances": []}', UNPROCESSABLE, "no rows"),
    "no columns": (PREDICT, b'{"inputs": {}}', UNPROCESSABLE, "no rows"),
    "rows that are a word": (PREDICT, b'{"instances": "rows"}', UNPROCESSABLE, "/instances: Expected"),
    "too few values": (PREDICT, b'{"instances": [[1, 2]]}', UNPROCESSABLE, "Expected 3 values"),
    "too many values": (PREDICT, b'{"inputs": [[1, 2, 3, 4]]}', UNPROCESSABLE, "Expected 3 values"),
    "a word for a number": (
        PREDICT,
        b'{"instances": [[1, "2", 3]]}',
        UNPROCESSABLE,
        "/instances/0/1: Expected a number",
    ),
    "a missing value": (PREDICT, b'{"instances": [[1, null, 3]]}', UNPROCESSABLE, "found null"),
    "NaN": (PREDICT, b'{"instances": [[1, NaN, 3]]}', UNPROCESSABLE, "not finite"),
    "an infinite number": (PREDICT, b'{"inputs": [[1, 1e999, 3]]}', UNPROCESSABLE, "not finite"),
    "an overflow": (PREDICT, b'{"instances": [[-1.7e308, 1.7e308, 1.7e308]]}', UNPROCESSABLE, "range of 64-bit"),
    "an unknown feature": (
        PREDICT,
        b'{"instances": [{"tmp": 1, "rainfall": 2, "humidity": 3}]}',
        UNPROCESSABLE,
        '"tmp" is similar',
    ),
    "columns of two lengths": (
        PREDICT,
        b'{"inputs": {"temp": [1, 2], "rainfall": [1], "humidity": [3]}}',
        UNPROCESSABLE,
        "differ in length",
    ),
    "a column that is a number": (PREDICT, b'{"inputs": {"temp": 1}}', UNPROCESSABLE, '"temp" is a number'),
    "a missing column": (
        PREDICT,
        b'{"inputs": {"temp": [1], "rainfall": [2]}}',
        UNPROCESSABLE,
        '"humidity" is missing',
    ),
    "rows of two forms": (PREDICT, b'{"instances": [{"temp": 1}, [1, 2, 3]]}', UNPROCESSABLE, "fault(s)"),
    "Base64": (PREDICT, b'{"instances": [{"b64": "AAAA"}]}', UNPROCESSABLE, "Base64"),
    "Base64 in a row": (
        PREDICT,
        b'{"instances": [{"temp": {"b64": "AA"}, "rainfall": 2, "humidity": 3}]}',
        UNPROCESSABLE,
        "Base64",
    ),
    "an unknown option": (
        PREDICT,
        b'{"instances": [[1, 2, 3]], "parameters": {"intervall": 0.9}}',
        UNPROCESSABLE,
        'Did you mean "interval"?',
    ),
    "an option of the wrong kind": (
        PREDICT,
        b'{"instances": [[1, 2, 3]], "parameters": {"interval": "0.9"}}',
        UNPROCESSABLE,
        "/parameters/interval",
    ),
    "a member of another protocol": (PREDICT, b'{"instances": [[1, 2, 3]], "id": "7"}', UNPROCESSABLE, '"id"'),
    "an unknown level": (
        "/v1/models/birds:predict",
        json.dumps({"instances": [{**BIRD, "species": "Emperor"}]}).encode(),
        UNPROCESSABLE,
        "/instances/0/species: The level is not known.",
    ),
    "an unknown model": ("/v1/models/zebras:predict", b'{"instances": [[1, 2, 3]]}', NOT_FOUND, 'no model "zebras"'),
    "an unknown version": (
        "/v1/models/crop-yield/versions/7:predict",
        b'{"instances": [[1, 2, 3]]}',
        NOT_FOUND,
        "no version 7",
    ),
    "an unknown verb": ("/v1/models/crop-yield:classify", b"{}", 404, "nothing at this path"),
    "too many rows": (PREDICT, json.dumps({"instances": [[1, 2, 3]] * 1001}).encode(), UNPROCESSABLE, "At most 1000"),
    "too many rows in columns": (
        PREDICT,
        json.dumps({"inputs": {name: [1] * 1001 for name in NAMES}}).encode(),
        UNPROCESSABLE,
        "At most 1000",
    ),
    "deep brackets": (PREDICT, b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "not JSON"),
    "a long body": (PREDICT, b'{"instances": [[1, 2, 3]]' + b" " * 1_000_000 + b"}", 413, "longer than the limit"),
}
MOST_BYTES = 60 << 20  # Growth of the worker's memory by one request.


@pytest.mark.parametrize(("path", "body", "status", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_request_is_answered_with_one_sentence_in_a_bounded_room(
    doors: Service, path: str, body: bytes, status: int, sentence: str
) -> None:
    with doors.growing_by_less_than(MOST_BYTES):
        answer = doors.client.post(path, content=body)

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"  # KServe's client compares it with this text
    assert list(answer.json()) == ["error"]
    assert sentence in answer.json()["error"]


def test_a_body_that_claims_to_be_compressed_is_rejected(doors: Service) -> None:
    answer = doors.client.post(PREDICT, content=b'{"instances": [[1, 2, 3]]}', headers={"content-encoding": "gzip"})

    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert "error" in answer.json()


def test_a_request_without_a_key_is_rejected_in_the_form_of_its_path(doors: Service) -> None:
    answer = httpx.post(f"{doors.url}{PREDICT}", json={"instances": INPUTS}, timeout=60, verify=NO_TLS)

    assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert answer.headers["www-authenticate"] == "Bearer"
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("path", [PREDICT, "/v1/models/crop-yield/versions/1:predict"])
def test_another_method_on_the_path_of_a_verb_is_told_which_one_it_has(doors: Service, path: str) -> None:
    answer = doors.client.get(path)

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert "does not support this method" in answer.json()["error"]
