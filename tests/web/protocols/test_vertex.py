"""Vertex AI: the routes that its variables name, and its shapes of requests, responses and errors."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from mixed import FEATURES, rows_of
from service import INPUTS, NO_TLS, Service

from app.main import app
from app.startup import load_config
from app.web.path_aliases import VERTEX_HEALTH, VERTEX_PREDICT, probes_of, vertex_aliases
from app.web.paths import first_segments
from app.web.protocols import PROTOCOLS

PREDICT, HEALTH = "/predict", "/health"  # as the fixture's variables name them
NAMES = ("temp", "rainfall", "humidity")
BIRDS = rows_of(FEATURES, 20, seed=3)
BIRD = {"species": "Gentoo", "age": 40.5, "wild": True, "island": "Dream", "seen": "2008-02-29"}
ROWS_OF_BIRDS = [dict(zip(BIRDS, row, strict=True)) for row in zip(*BIRDS.values(), strict=True)]


def native(service: Service, model: str, **body: Any) -> dict[str, Any]:
    answer = service.client.post(f"/models/{model}/predict", json=body)
    assert answer.status_code == httpx.codes.OK, answer.text
    result: dict[str, Any] = answer.json()
    return result


@pytest.mark.parametrize("path", [PREDICT, VERTEX_PREDICT])
def test_predictions_are_those_of_the_default_model_one_for_each_instance(doors: Service, path: str) -> None:
    expected = native(doors, "crop-yield", instances=INPUTS)["predictions"]

    for rows in (INPUTS, [dict(zip(NAMES, row, strict=True)) for row in INPUTS]):
        answer = doors.client.post(path, json={"instances": rows})
        assert answer.json() == {"predictions": expected}
        assert answer.headers["linserve-version"] == "1"


@pytest.mark.parametrize(
    ("parameters", "headers"),
    [
        ({"model": "birds"}, {}),
        ({"model": "birds", "version": 1}, {"linserve-model": "crop-yield"}),
        ({}, {"linserve-model": "birds"}),
    ],
)
def test_a_parameter_or_a_header_names_another_model(
    doors: Service, parameters: dict[str, Any], headers: dict[str, str]
) -> None:
    expected = [row["mass"] for row in native(doors, "birds", instances=ROWS_OF_BIRDS)["predictions"]]
    body = {"instances": ROWS_OF_BIRDS, "parameters": parameters}

    assert doors.client.post(PREDICT, json=body, headers=headers).json() == {"predictions": expected}
    content = b"\xef\xbb\xbf" + json.dumps(body).encode() + b" " * 200_000  # with a byte order mark, and long
    assert doors.client.post(PREDICT, content=content, headers=headers).json() == {"predictions": expected}


def test_a_model_in_a_parameter_is_the_one_whose_requests_are_counted(doors: Service) -> None:
    def failed() -> float:
        doors.client.get("/models/birds/drift")  # brings the counts up to date
        for line in doors.client.get("/metrics").text.splitlines():
            if line.startswith('linserve_model_requests_total{model="birds",result="failed"}'):
                return float(line.rpartition(" ")[2])
        return 0.0

    before = failed()
    doors.client.post(PREDICT, json={"instances": [], "parameters": {"model": "birds"}})
    assert failed() == before + 1


def test_everything_that_is_requested_for_a_row_is_in_its_element(doors: Service) -> None:
    options = {"interval": 0.9, "confidence": 0.5, "explain": True, "extrapolation": True, "missing": "null"}
    rows = [BIRD, {**BIRD, "age": None}]
    own = native(doors, "birds", instances=rows, **options)
    body = {"instances": rows, "parameters": {**options, "model": "birds"}}

    found = doors.client.post(PREDICT, json=body).json()

    first, second = found["predictions"]
    assert first == {
        "prediction": own["predictions"][0]["mass"],
        "interval": own["intervals"][0]["mass"],
        "confidence_interval": own["confidence_intervals"][0]["mass"],
        "explanation": own["contributions"][0],
        "extrapolation": own["extrapolation"][0],
    }
    assert second["prediction"] is None
    assert second["interval"] == [None, None]
    assert second["extrapolation"] is None
    assert found["baseline"] == own["baseline"]


def test_the_health_route_needs_no_key_and_answers_only_when_the_model_is_ready(doors: Service) -> None:
    for path in (HEALTH, VERTEX_HEALTH):
        answer = httpx.get(f"{doors.url}{path}", params={"unknown": "ignored"}, timeout=60, verify=NO_TLS)
        assert answer.status_code == httpx.codes.OK
        assert answer.json()["model"] == "crop-yield"
    assert httpx.head(f"{doors.url}{HEALTH}", timeout=60).status_code == httpx.codes.OK

    current = doors.models / "crop-yield" / "current"
    target = current.readlink()
    current.unlink()
    try:
        answer = httpx.get(f"{doors.url}{HEALTH}", timeout=60, verify=NO_TLS)
    finally:
        current.symlink_to(target)
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert answer.json()["error"]["status"] == "UNAVAILABLE"


def test_other_methods_on_the_routes_are_left_to_the_service(doors: Service) -> None:
    answer = doors.client.get(PREDICT)

    assert answer.status_code == httpx.codes.METHOD_NOT_ALLOWED
    assert answer.headers["content-type"] == "application/problem+json"


def test_requests_are_counted_by_protocol(doors: Service) -> None:
    doors.client.post(PREDICT, json={"instances": INPUTS})

    line = 'linserve_requests_total{method="POST",protocol="vertex",route="/vertex/predict",status="200"}'
    assert line in doors.client.get("/metrics").text


ROW = [1, 2, 3]
BAD: dict[str, tuple[bytes, int, str, str]] = {
    "nothing": (b"", 400, "INVALID_ARGUMENT", "The body is empty"),
    "no JSON": (b"{'instances': [[1, 2, 3]]}", 400, "INVALID_ARGUMENT", "not JSON"),
    "a truncated body": (b'{"instances": [[1, 2', 400, "INVALID_ARGUMENT", "end of the body"),
    "bytes that are not UTF-8": (b'{"instances": [["\xff", 2, 3]]}', 400, "INVALID_ARGUMENT", "not UTF-8"),
    "no instances": (b"{}", 422, "INVALID_ARGUMENT", '"instances" is required'),
    "no rows": (b'{"instances": []}', 422, "INVALID_ARGUMENT", "at least 1 item"),
    "too few values": (b'{"instances": [[1, 2]]}', 422, "INVALID_ARGUMENT", "Expected 3 values"),
    "a word for a number": (b'{"instances": [[1, "2", 3]]}', 422, "INVALID_ARGUMENT", "/instances/0/1"),
    "a missing value": (b'{"instances": [[1, null, 3]]}', 422, "INVALID_ARGUMENT", "found null"),
    "NaN": (b'{"instances": [[1, NaN, 3]]}', 422, "INVALID_ARGUMENT", "not finite"),
    "an unknown feature": (b'{"instances": [{"tmp": 1}]}', 422, "INVALID_ARGUMENT", '"temp" is missing'),
    "Base64": (b'{"instances": [{"b64": "AAAA"}]}', 422, "INVALID_ARGUMENT", "Base64"),
    "an unknown option": (
        b'{"instances": [[1, 2, 3]], "parameters": {"intervall": 0.9}}',
        422,
        "INVALID_ARGUMENT",
        'Did you mean "interval"?',
    ),
    "parameters that are a list": (
        b'{"instances": [[1, 2, 3]], "parameters": [1]}',
        422,
        "INVALID_ARGUMENT",
        "/parameters",
    ),
    "a model that is a number": (
        b'{"instances": [[1, 2, 3]], "parameters": {"model": 7}}',
        422,
        "INVALID_ARGUMENT",
        "/parameters/model",
    ),
    "an unknown model": (
        b'{"instances": [[1, 2, 3]], "parameters": {"model": "zebras"}}',
        404,
        "NOT_FOUND",
        'no model "zebras"',
    ),
    "an unknown version": (
        b'{"instances": [[1, 2, 3]], "parameters": {"version": 7}}',
        404,
        "NOT_FOUND",
        "no version 7",
    ),
    "columns": (b'{"inputs": {"temp": [1]}}', 422, "INVALID_ARGUMENT", '"inputs"'),
    "too many rows": (json.dumps({"instances": [ROW] * 1001}).encode(), 422, "INVALID_ARGUMENT", "At most 1000"),
    "deep brackets": (b'{"instances": ' + b"[" * 100_000, 400, "INVALID_ARGUMENT", "not JSON"),
    "a long body": (b'{"instances": [[1, 2, 3]]' + b" " * 1_000_000 + b"}", 413, "INVALID_ARGUMENT", "longer than"),
}
MOST_BYTES = 60 << 20  # Growth of the worker's memory by one request.


@pytest.mark.parametrize(("body", "code", "status", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_request_is_answered_with_an_error_as_google_has_them_in_a_bounded_room(
    doors: Service, body: bytes, code: int, status: str, sentence: str
) -> None:
    with doors.growing_by_less_than(MOST_BYTES):
        answer = doors.client.post(PREDICT, content=body)

    assert answer.status_code == code, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (code, status)
    assert sentence in error["message"]


def test_a_request_without_a_key_is_rejected_in_the_form_of_its_path(doors: Service) -> None:
    answer = httpx.post(f"{doors.url}{PREDICT}", json={"instances": INPUTS}, timeout=60, verify=NO_TLS)

    assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert answer.json()["error"]["status"] == "UNAUTHENTICATED"


def test_without_the_variables_there_are_no_other_paths() -> None:
    assert vertex_aliases({}) == {}
    assert probes_of({}) == frozenset()


def test_the_default_routes_of_vertex_ai_can_be_named() -> None:
    path = "/v1/endpoints/123/deployedModels/456"
    aliases = vertex_aliases({"AIP_HEALTH_ROUTE": path, "AIP_PREDICT_ROUTE": f"{path}:predict"})

    assert aliases["GET", path] == VERTEX_HEALTH
    assert aliases["POST", f"{path}:predict"] == VERTEX_PREDICT
    assert probes_of(aliases) == {path.encode()}


FORMATS = frozenset.union(*(first_segments(wire_format.router.routes) for wire_format in PROTOCOLS))


@pytest.mark.parametrize("first", sorted(first_segments(app.routes) - (FORMATS - {"models"}) - {""}))
def test_paths_of_the_service_that_do_not_predict_cannot_be_named(first: str) -> None:
    with pytest.raises(ValueError, match=f"paths below /{first} are the service's own"):
        vertex_aliases({"AIP_PREDICT_ROUTE": f"/{first}/x"})


@pytest.mark.parametrize("path", ["", "/", "predict", "/predict/", "/a?b", "/a b", "//a", "/é", "/train", "/models/a"])
@pytest.mark.parametrize("variable", ["AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE"])
def test_a_route_that_is_no_path_or_is_the_services_own_ends_the_start_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, path: str
) -> None:
    monkeypatch.setenv("LINSERVE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv(variable, path)

    with pytest.raises(ValueError, match=f"^{variable}: "):
        load_config()
