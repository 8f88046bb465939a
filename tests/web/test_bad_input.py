"""Bad input, each with its status and a message that names the place."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from service import INPUTS, NOTEBOOK, TARGETS, Service
from tables import gzip_bomb

MARK = "zebra"  # what callers send and must not get back
JSON = {"content-type": "application/json"}
CSV = {"content-type": "text/csv"}
ROW = {"temp": 73, "rainfall": 67, "humidity": 43}


TYPES = {  # of problems, by status, unless a case says otherwise
    400: "malformed-body", 403: "forbidden", 404: "not-found", 405: "method-not-allowed", 406: "not-acceptable",
    409: "conflict", 412: "precondition-failed", 413: "body-too-large", 414: "target-too-long",
    415: "unsupported-media-type", 422: "invalid-input", 431: "headers-too-large",
}  # fmt: skip


@dataclass
class Case:
    name: str
    status: int
    says: str  # part of the detail, or of one of the errors
    content: bytes | str | None = None
    place: str | None = None  # JSON pointer or parameter of the first error
    path: str = "/predict"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    type: str | None = None
    names: bool = False  # what was called by a name that is known nowhere, by that name


def predict(name: str, instances: str, says: str, place: str | None = None, status: int = 422) -> Case:
    return Case(name, status, says, f'{{"instances": {instances}}}', place)


def option(name: str, options: str, says: str, place: str) -> Case:
    return Case(name, 422, says, f'{{"instances": [[73, 67, 43]], {options}}}', place, names=f'"{MARK}s"' in options)


def train(name: str, says: str, place: str | None = None, **body: Any) -> Case:
    return Case(name, 422, says, json.dumps({**NOTEBOOK, **body}), place, path="/train", names=MARK in body)


def descent(name: str, says: str, place: str | None, **solver: Any) -> Case:
    return train(name, says, place, solver={"kind": "gradient_descent", **solver})


def csv(name: str, status: int, says: str, content: str | bytes, query: str = "targets=apples,oranges") -> Case:
    return Case(name, status, says, content, path=f"/train?{query}", headers=CSV)


HEADER = "temp,rainfall,humidity,apples,oranges\n"

CASES = [
    # Values
    predict("NaN", "[[NaN, 67, 43]]", "not finite", "/instances/0/0"),
    predict("Infinity", "[[73, Infinity, 43]]", "not finite", "/instances/0/1"),
    predict("minus Infinity in an object", '[{"temp": -Infinity, "rainfall": 1, "humidity": 2}]', "not finite", "/instances/0/temp"),
    predict("a number beyond 64 bits", "[[73, 67, 1e400]]", "too large", "/instances/0/2"),
    predict("an integer beyond 64 bits", f"[[73, 67, 1{'0' * 400}]]", "too large", "/instances/0/2"),
    predict("a string", f'[[73, "{MARK}", 43]]', "found a string", "/instances/0/1"),
    predict("a boolean", '[{"temp": true, "rainfall": 67, "humidity": 43}]', "found a boolean", "/instances/0/temp"),
    predict("null", "[[73, 67, 43], [73, null, 43]]", "found null", "/instances/1/1"),
    predict("an array for a number", f'[[73, ["{MARK}"], 43]]', "found an array", "/instances/0/1"),
    Case("an interval beyond 64 bits", 422, "exceeds the range", '{"instances": [[73, 67, 43], [1e200, 1, 1]], "interval": 0.9}', "/instances/1", type="prediction-too-large"),
    Case("NaN in a column that is kept", 422, "not finite", '{"instances": [{"temp": 73, "rainfall": 67, "humidity": 43, "field": NaN}]}', path="/predict?keep=field"),
    Case("an infinite number in a column that is kept", 422, "not finite", '{"instances": [{"temp": 73, "rainfall": 67, "humidity": 43, "field": 1e400}]}', path="/predict?keep=field"),
    Case("a prediction beyond 64 bits", 422, "exceeds the range", '{"instances": [[73, 67, 43], [-1e308, 1e308, 1e308]]}', "/instances/1", type="prediction-too-large"),
    # Rows
    predict("a missing feature", '[{"temp": 73, "humidity": 43}]', '"rainfall" is missing', "/instances/0"),
    Case("an unknown feature", 422, "is unknown", json.dumps({"instances": [{**ROW, MARK: 1}]}), f"/instances/0/{MARK}", names=True),
    predict("a wrong length", "[[73, 67]]", "Expected 3 values", "/instances/0"),
    predict("ragged rows", "[[73, 67, 43], [73, 67, 43, 1]]", "found 4", "/instances/1"),
    predict("objects among arrays", json.dumps([[73, 67, 43], ROW]), "all objects or all arrays", "/instances/1"),
    predict("a row that is no row", f'["{MARK}"]', "Expected an object or an array", "/instances/0"),
    predict("zero rows", "[]", "at least 1 item", "/instances"),
    predict("an object for the rows", "{}", "found an object", "/instances"),
    Case("no instances", 422, "required", "{}", "/instances"),
    Case("an array for the body", 422, "object", "[]", ""),
    # Options
    option("an unknown option", f'"{MARK}s": 1', "no such option", f"/{MARK}s"),
    option("an interval of 1", '"interval": 1.0', "less than 1", "/interval"),
    option("an interval as a string", f'"interval": "{MARK}"', "found a string", "/interval"),
    option("an interval that is NaN", '"interval": NaN', "finite", "/interval"),
    option("explain as a number", '"explain": 1', "boolean", "/explain"),
    # JSON and transport
    Case("an empty body", 400, "empty", b""),
    Case("no JSON", 400, "not JSON", MARK),
    Case("JSON cut short", 400, "not JSON", f'{{"instances": [["{MARK}'),
    Case("invalid UTF-8", 400, "not JSON", b'{"instances": [["zebra\xff"]]}'),
    Case("UTF-16", 400, "UTF-16 text", f'{{"instances": [["{MARK}"]]}}'.encode("utf-16")),
    Case("a lone surrogate", 400, "not JSON", f'{{"instances": [["{MARK}\\ud800"]]}}'),
    Case("arrays nested too deeply", 400, "not JSON", "[" * 100_000),
    Case("too large a body", 413, "longer than the limit of 1000000 bytes", b" " * 1_000_001),
    Case("a form", 415, "application/json", f"instances={MARK}", headers={"content-type": f"application/{MARK}"}),
    Case("no content type", 415, "application/json", MARK, headers={}),
    Case("a table without the features", 422, "no column", f"temp,{MARK}\n1,2\n", headers=CSV, names=True),
    # Names
    Case("an unknown model", 404, "no model", '{"instances": [[1]]}', path=f"/models/{MARK}/predict", type="model-not-found", names=True),
    Case("a model's name that cannot be", 404, "no model", '{"instances": [[1]]}', path=f"/models/{MARK.upper()}/predict", type="model-not-found"),
    Case("a path for a model", 404, "no model", '{"instances": [[1]]}', path="/models/..%2e/predict", type="model-not-found"),
    Case("version 0", 404, "no version 0", '{"instances": [[1, 2, 3]]}', path="/models/crop-yield/versions/0/predict", type="version-not-found"),
    Case("a version that is no number", 422, "integer", "{}", path=f"/models/crop-yield/versions/{MARK}/predict"),
    Case("a job that is not there", 404, "no such job", method="GET", path=f"/jobs/{MARK}", type="job-not-found"),
    Case("events of a job that is not there", 404, "no such job", method="GET", path=f"/jobs/{MARK}/events", type="job-not-found"),
    Case("cancelling a job that is not there", 404, "no such job", path=f"/jobs/{MARK}/cancel", type="job-not-found"),
    Case("a path that is not there", 404, "nothing at this path", method="GET", path=f"/{MARK}"),
    Case("a method that is not there", 405, "Allow", method="DELETE"),
    Case("promoting a version that is not there", 404, "no version", '{"version": 9999}', path="/models/crop-yield/current", method="PUT", type="version-not-found"),
    Case("promoting a string", 422, "integer", f'{{"version": "{MARK}"}}', "/version", "/models/crop-yield/current", "PUT"),
    Case("promoting nothing", 400, "empty", None, None, "/models/crop-yield/current", "PUT"),
    Case("promoting NaN", 422, "integer", '{"version": NaN}', "/version", "/models/crop-yield/current", "PUT"),
    Case("deleting the current version", 409, "current version", method="DELETE", path="/models/crop-yield/versions/1"),
    Case("promoting with blanks without end", 413, "longer than", " " * 5000, None, "/models/crop-yield/current", "PUT"),
    Case("a token of brackets", 422, "token", None, "next", "/jobs?next=" + "W1tb" * 1500, "GET"),
    Case("a version with many digits", 404, "no version", '{"instances": [[1, 2, 3]]}', path=f"/models/crop-yield/versions/{'9' * 300}/predict", type="version-not-found"),
    Case("an encoding that is not read", 415, "gzip, deflate or zstd", b"\x1f\x8b", headers={**JSON, "content-encoding": "br"}),
    Case("gzip that ends early", 400, "ended early", b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"}),
    Case("gzip that is none", 400, "not gzip", MARK.encode(), headers={**JSON, "content-encoding": "gzip"}),
    Case("zstd that is none", 400, "not zstd", MARK.encode(), headers={**JSON, "content-encoding": "zstd"}),
    Case("a small body that inflates to a large one", 413, "longer than", gzip_bomb(b" ", 5), headers={**JSON, "content-encoding": "gzip"}),
    Case("a token of no page", 422, "token", None, "next", f"/jobs?next={MARK}", "GET"),
    Case("a page without end", 422, "less than or equal to 200", method="GET", path="/jobs?limit=100000"),
    # Authorizer
    Case("a page of another site that trains", 403, "page of another site", json.dumps(NOTEBOOK), path="/train", headers={**JSON, "origin": f"https://{MARK}.example"}),
    Case("a page of another site that trains without saying whose", 403, "page of another site", json.dumps(NOTEBOOK), path="/train", headers={**JSON, "sec-fetch-site": "cross-site"}),
    Case("a name that was made to point here", 403, "host of another name", json.dumps(NOTEBOOK), path="/train", headers={**JSON, "host": f"{MARK}.example"}),
    Case("a proxy that trains", 403, "only clients on this machine", json.dumps(NOTEBOOK), path="/train", headers={**JSON, "x-forwarded-for": MARK}),
    Case("a proxy that promotes", 403, "through a proxy", '{"version": 1}', path="/models/crop-yield/current", method="PUT", headers={**JSON, "forwarded": f"for={MARK}"}),
    Case("a proxy that deletes", 403, "through a proxy", path="/models/crop-yield/versions/1", method="DELETE", headers={"via": MARK}),
    Case("a page of another site that cancels", 403, "page of another site", path=f"/jobs/{MARK}/cancel", headers={"origin": "null"}),
    # Headers
    Case("a host that is none", 400, "Host", '{"instances": [[73, 67, 43]]}', headers={**JSON, "host": f"{MARK}/x"}, type="malformed-request"),
    Case("a header without end", 431, "at most", '{"instances": [[73, 67, 43]]}', headers={**JSON, "x": MARK * 10_000}),
    Case("headers without number", 431, "at most", '{"instances": [[73, 67, 43]]}', headers={**JSON, **{f"x-{i}": MARK for i in range(120)}}),
    Case("a query without end", 414, "at most", '{"instances": [[73, 67, 43]]}', path=f"/predict?{MARK * 2000}"),
    Case("nothing that can be accepted", 406, "Accept has to name", '{"instances": [[73, 67, 43]]}', headers={**JSON, "accept": f"image/{MARK}"}),
    Case("a condition that fails", 412, "changed", '{"version": 1}', path="/models/crop-yield/current", method="PUT", headers={**JSON, "if-match": f'"{MARK}"'}),
    # Training
    train("a row of targets missing", "14 rows of targets for 15", "/targets", targets=TARGETS[:-1]),
    train("zero training rows", "at least 1 item", "/instances", instances=[], targets=[]),
    train("a target that is null", "found null", "/targets/0/1", targets=[[1, None], *TARGETS[1:]], missing="refuse"),
    train("a target that is a string", "found a string", "/targets/0/0", targets=[[MARK, 2], *TARGETS[1:]]),
    train("a wide row", "Expected 3 values", "/instances/14", instances=[*INPUTS[:-1], [1, 2, 3, 4]]),
    train("an unknown training option", "no such option", f"/{MARK}", **{MARK: 1}),
    train("an unknown solver", "Expected one of", "/solver", solver={"kind": MARK}),
    train("an option of the other solver", "an option of the solver gradient_descent", "/solver/epochs", solver={"kind": "exact", "epochs": 3}),
    train("an unknown solver option", "no such option", "/solver/step", solver={"kind": "exact", "step": 3}),
    train("a negative penalty", "greater than or equal to 0", "/solver/l2", solver={"kind": "exact", "l2": -1}),
    train("an unknown mode", "'replace'", "/mode", mode=MARK),
    train("a new model without names", "Add `feature_names`", "/feature_names", model="another"),
    train("a model's name with a slash", "A model's name has 1 to 64", "/model", model=f"../{MARK}"),
    train("names that are too few", "Expected 2 values", "/instances/0", feature_names=["a", "b"]),
    train("a name twice", "more than once", "/feature_names/0", feature_names=["a", "a", "b"]),
    train("a name in both roles", "both a feature and a target", "/target_names", target_names=["temp", "b"]),
    train("many empty names", "printable", "/feature_names/0", feature_names=[""] * 500),
    train("a reserved name", "cannot be called", "/target_names/0", target_names=["mse", "b"]),
    train("an empty name", "printable", "/feature_names/1", feature_names=["a", "", "b"]),
    descent("zero epochs", "greater than or equal to 1", "/solver/epochs", epochs=0),
    descent("a learning rate of 0", "greater than 0", "/solver/learning_rate", learning_rate=0),
    descent("a batch of 0", "greater than or equal to 1", "/solver/batch_size", batch_size=0),
    descent("an unknown device", "'cuda'", "/solver/device", device=MARK),
    descent("a start that is no start", "'random' or 'current'", "/solver/start", start=MARK),
    descent("a start from a version that is not there", "no version 99", "/solver/start/version", start={"version": 9999}),
    descent("a start with half its weights", "weights and intercept", "/solver/start", start={"weights": [[1, 2, 3], [1, 2, 3]]}),
    descent("a start of another shape", "2 rows of 3 weights", "/solver/start/weights", start={"weights": [[1, 2]], "intercept": [1, 2]}),
    Case("options in the query beside JSON", 422, "in the body", json.dumps(NOTEBOOK), path="/train?promote=never"),
    Case("an Idempotency-Key of spaces", 422, "not allowed", json.dumps(NOTEBOOK), path="/train", headers={**JSON, "idempotency-key": "a b"}),
    # Files
    csv("a file without the target column", 422, 'no column "oranges"', "temp,apples\n1,2\n"),
    Case("a file without its feature column", 422, f'no column "{MARK}"', HEADER, path=f"/train?targets=apples&features={MARK}", headers=CSV, names=True),
    csv("a file with a column that has no name", 422, "Column 2 has no name", HEADER.replace("rainfall", "")),
    csv("a file with a name that cannot be", 422, "printable", HEADER.replace("temp", MARK * 30), "targets=apples,oranges&model=another"),
    csv("a file with other columns", 422, "Missing features: humidity.", "temp,rainfall,apples,oranges\n"),
    csv("a query option that is out of bounds", 422, "less than or equal to", HEADER, f"targets=apples&solver=gradient_descent&epochs={10**12}"),
    csv("a file with a name twice", 422, "the same name", "temp,temp,apples,oranges\n"),
    csv("an empty file", 422, "header row", ""),
    csv("a file that is no text", 422, "UTF-8", b"\xff\xfe\x00"),
    Case("an unknown query option", 422, "Known are", HEADER, path=f"/train?targets=apples&{MARK}=1", headers=CSV, names=True),
    csv("a query option twice", 422, "more than once", HEADER, "targets=apples&targets=oranges"),
    csv("a query option of the wrong kind", 422, "Expected a number", HEADER, "targets=apples,oranges&l2=much"),
    csv("too large a file", 413, "longer than the limit of 2000000", HEADER + "1,2,3,4,5\n" * 200_000),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def nothing_else_changes(service: Service) -> None:
    """The jobs of other tests that share the service have ended."""
    service.finish_jobs()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_is_refused_with_its_place_and_changes_nothing(service: Service, case: Case) -> None:
    before = state_of(service)

    answer = service.client.request(case.method, case.path, content=case.content, headers=case.headers)

    assert answer.status_code == case.status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "x-request-id" in answer.headers
    problem = answer.json()
    errors = problem.get("errors", [])
    assert any(case.says in text for text in [problem["detail"], *(error["detail"] for error in errors)]), problem
    if case.place is not None:
        assert case.place in (errors[0].get("pointer", ""), errors[0].get("parameter"))
    assert problem["status"] == case.status
    assert problem["type"] == f"urn:linserve:problem:{case.type or TYPES[case.status]}"
    assert len(answer.content) < 4000
    assert MARK.upper() not in answer.text
    assert (MARK in answer.text) == case.names
    assert "Traceback" not in answer.text
    assert state_of(service) == before


def state_of(service: Service) -> list[Any]:
    """Every model, the files of all versions and the links to them, the newest jobs, and the stored uploads."""
    files = [path for name in ("*.safetensors", "current") for path in service.models.rglob(name)]
    return [
        service.client.get("/models").json()["items"],
        {path: path.lstat().st_ctime_ns for path in files},
        service.client.get("/jobs?limit=5").json()["items"],
        list((service.state / "spool").glob("*")),
    ]


@pytest.mark.parametrize(
    "solver", [{"kind": "gradient_descent", "device": "cuda"}, {"kind": "exact", "device": "cuda"}]
)
def test_cuda_is_refused_if_unavailable(service: Service, solver: dict[str, str]) -> None:
    service.train(**NOTEBOOK, promote="never")  # by now the trainer has told of its devices
    if json.loads((service.state / "trainer.json").read_text())["cuda"]:
        pytest.skip("this machine has a CUDA device")
    service.finish_jobs()
    before = state_of(service)

    answer = service.client.post("/train", json={**NOTEBOOK, "solver": solver})

    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert answer.json()["type"] == "urn:linserve:problem:device-unavailable"
    assert "no CUDA device" in answer.json()["detail"]
    assert state_of(service) == before


FAULTY_FILES = [
    (
        "a word",
        "73,67,43,56,70\n73,zebra,43,56,70\n",
        "cannot be read as finite numbers",
        {"row": 3, "column": "rainfall"},
    ),
    ("an empty cell", "73,67,43,56,70\n73,67,43,56,70\n73,67,,56,70\n", "missing", {"row": 4, "column": "humidity"}),
    ("NA", "NA,67,43,56,70\n", "missing", {"row": 2, "column": "temp"}),
    ("infinity", "73,67,43,inf,70\n", "cannot be read as finite numbers", {"row": 2, "column": "apples"}),
    (
        "a number beyond 64 bits",
        "73,67,43,56,1e400\n",
        "cannot be read as finite numbers",
        {"row": 2, "column": "oranges"},
    ),
    ("a short row", "73,67,43,56,70\n73,67\n", "Expected 5 values, found 2", {"row": 3}),
    ("a long row", "73,67,43,56,70,zebra\n", "Expected 5 values, found 6", {"row": 2}),
    ("no rows", "", "no rows", None),
    ("differences too large", "1.7e308,67,43,56,70\n-1.7e308,1,2,3,4\n", "too large", {"column": "temp"}),
]


@pytest.mark.parametrize(("name", "rows", "says", "place"), FAULTY_FILES, ids=[case[0] for case in FAULTY_FILES])
def test_a_fault_inside_a_file_fails_the_job_and_names_row_and_column(
    service: Service, name: str, rows: str, says: str, place: dict[str, object] | None
) -> None:
    service.finish_jobs()
    before = service.client.get("/models/crop-yield").json()

    answer = service.client.post(
        "/train?targets=apples,oranges&missing=refuse",
        content=HEADER + rows,
        headers={**CSV, "prefer": "wait=60"},
    )

    job = service.ended_job(answer)
    assert job["status"] == "failed"
    assert job["version"] is None
    assert says in job["error"]["detail"]
    assert job["error"]["status"] == httpx.codes.UNPROCESSABLE_ENTITY
    if place is not None:
        assert place.items() <= job["error"]["errors"][0].items()
    assert MARK not in json.dumps(job)
    assert service.client.get("/models/crop-yield").json() == before
    assert list((service.state / "spool").glob("*")) == []


def test_many_faults_in_three_columns_are_three_errors(service: Service) -> None:
    answer = service.client.post("/predict", json={"instances": [["x", "y", "z"]] * 20_000})

    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/instances/0/{column}" for column in range(3)]
    assert len(answer.content) < 4000


def test_too_large_a_body_is_refused_however_it_is_sent(service: Service) -> None:
    chunked = service.client.post(
        "/predict", content=(b" " * 10_000 for _ in range(200)), headers={"content-type": "application/json"}
    )

    assert chunked.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE


def test_bodies_that_are_too_large_take_no_memory(service: Service) -> None:
    bombs = {**JSON, "content-encoding": "gzip"}
    bomb = gzip_bomb(b" ", 50)

    def send(count: int) -> None:
        for _ in range(count):
            bodies: list[tuple[bytes | Iterator[bytes], dict[str, str]]] = [
                (b" " * 1_000_001, JSON),
                ((b" " * 10_000 for _ in range(200)), JSON),
                (bomb, bombs),
            ]
            for content, headers in bodies:
                answer = service.client.post("/predict", content=content, headers=headers)
                assert answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE

    def growth() -> int:
        before = service.memory("VmRSS")
        send(30)
        return service.memory("VmRSS") - before

    send(10)
    # What is garbage waits for its collector, which may not come in between; what is lost is lost every time.
    assert any(growth() < 1 << 20 for _ in range(3))


def test_no_amount_of_bad_input_takes_memory(service: Service) -> None:
    def once() -> None:
        for case in CASES:
            service.client.request(case.method, case.path, content=case.content, headers=case.headers)

    def growth() -> int:
        before = service.memory("VmRSS")
        for _ in range(3):
            once()
        return service.memory("VmRSS") - before

    once()  # now all is loaded that ever will be
    # A thread that starts in between takes memory once; what is lost is lost every time.
    assert any(growth() < 4 << 20 for _ in range(3))
