"""Forms with a file: options as fields and as a part, before and after the file, with the rules of a raw upload."""

import http.client
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from service import Service, wait_for

from app.web.multipart import MAX_OPTIONS

ROWS = "".join(f"{n},{n * n % 7},{('oslo', 'rome')[n % 2]},{3 * n + n * n % 5}\n" for n in range(1, 41))
TABLE = "area,floor,city,price\n" + ROWS
MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
UPLOAD_LIMIT = 2_000_000  # of the fixture `service`

Part = tuple[str, str]
FILE: Part = ("file", TABLE)


def form(*parts: Part, end: str = "--b--\r\n", file_name: str = "table.csv") -> bytes:
    text = ""
    for name, content in parts:
        file = f'; filename="{file_name}"' if name == "file" else ""
        text += f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{content}\r\n'
    return (text + end).encode()


def train(service: Service, *parts: Part, key: str | None = None, query: str = "") -> httpx.Response:
    headers = MULTIPART | ({"idempotency-key": key} if key else {})
    return service.client.post(f"/train{query}", content=form(*parts), headers=headers)


def inspected(service: Service, *parts: Part) -> dict[str, Any]:
    answer = service.client.post("/inspect", content=form(*parts), headers=MULTIPART)
    assert answer.status_code == httpx.codes.OK, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stored(service: Service) -> list[Path]:
    return [*service.state.glob("spool/*"), *service.state.glob("scratch/*")]


def test_curl_trains_with_options_after_the_file(service: Service, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(TABLE)
    call = ["curl", "-sS", "-F", "file=@table.csv", "-F", "targets=price", "-F", "model=forms", f"{service.url}/train"]
    answer = json.loads(subprocess.run(call, cwd=tmp_path, capture_output=True, check=True).stdout)
    job = service.end_of(answer["id"])
    assert job["status"] == "succeeded", job
    card = service.client.get("/models/forms").json()
    assert (card["targets"], card["features"]) == (["price"], ["area", "floor", "city"])


@pytest.mark.parametrize(
    "parts",
    [
        [FILE, ("targets", "price"), ("drop", "floor,city")],
        [("targets", "price"), ("drop", "floor"), FILE, ("drop", "city")],
        [FILE, ("options", '{"targets": ["price"], "drop": ["floor", "city"]}')],
        [("options", '{"targets": ["price"]}'), FILE, ("drop", "floor,city")],
    ],
)
def test_options_come_as_fields_or_as_a_part_on_both_sides_of_the_file(service: Service, parts: list[Part]) -> None:
    found = inspected(service, *parts)
    assert {column["name"]: column["role"] for column in found["columns"]} == {"area": "feature", "price": "target"}


def test_fields_have_the_syntax_of_the_query(service: Service) -> None:
    reading = [("categories", "floor"), ("reference", "city:rome"), ("reference", "floor:1"), ("na", '"1,5",-')]
    columns = {
        column["name"]: column for column in inspected(service, FILE, *reading, ("missing", "refuse"))["columns"]
    }
    assert (columns["city"]["reference"], columns["floor"]["reference"]) == ("rome", "1")
    assert (columns["area"]["na"], columns["area"]["missing"]) == (["1,5", "-"], "refuse")


def test_empty_fields_do_not_count_as_those_of_swagger_ui(service: Service) -> None:
    known = [
        option["name"]
        for option in service.client.get("/openapi.json").json()["paths"]["/inspect"]["post"]["parameters"]
    ]
    empty = [(name, "") for name in known if name != "targets"]
    found = inspected(service, *empty, ("targets", "price"), ("options", ""), FILE)
    assert found == inspected(service, FILE, ("targets", "price"))
    unknown = train(service, FILE, ("target", ""))
    assert (unknown.status_code, unknown.json()["errors"][0]["parameter"]) == (422, "target")


def test_a_repeated_form_names_its_job_in_any_order_of_the_fields(service: Service) -> None:
    fields = [("targets", "price"), ("model", "repeated"), ("promote", "never")]
    first = train(service, FILE, *fields, key="form-1").json()["id"]
    assert train(service, *reversed(fields), FILE, key="form-1").json()["id"] == first
    for others in ([*fields, ("l2", "1")], fields[:2], [("options", '{"targets": ["price"], "model": "repeated"}')]):
        refused = train(service, FILE, *others, key="form-1")
        assert (refused.status_code, refused.json()["title"]) == (422, "Key reused")


def test_predictions_take_options_after_the_rows(service: Service) -> None:
    rows = "temp,rainfall,humidity,plot\n73,67,43,a\n"
    for parts in (
        [("keep", "plot"), ("file", rows), ("interval", "0.9")],
        [("file", rows), ("keep", "plot"), ("interval", "0.9")],
    ):
        answer = service.client.post("/predict", content=form(*parts), headers=MULTIPART)
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.text.splitlines()[0].startswith("plot,apples")
        assert "apples_lower" in answer.text
    body = form(("file", '{"instances": [[73, 67, 43]]}'), ("keep", "plot"), file_name="rows.json")
    late = service.client.post("/predict", content=body, headers=MULTIPART)
    assert late.status_code == httpx.codes.UNPROCESSABLE_ENTITY, late.text


MISTAKES = {
    "an unknown field": ([FILE, ("target", "price")], "", "target", ("The form has", 'Did you mean "targets"?', "l2")),
    "an unknown field before the file": ([("target", "price"), FILE], "", "target", ("The form has",)),
    "a script as a name": ([FILE, ("<script>x", "1")], "", "<script>x", ("no such option",)),
    "a very long name": ([FILE, ("x" * 3000, "1")], "", None, ("no such option",)),
    "an option that is not a list, twice": ([FILE, ("l2", "1"), ("l2", "2")], "", "l2", ("more than once",)),
    "the query and a field": ([FILE, ("targets", "price")], "?targets=area", "targets", ("query and in the form",)),
    "a field and the part": ([("options", '{"l2": 1}'), FILE, ("l2", "1")], "", "l2", ("the part `options`",)),
    "a value that does not fit": ([FILE, ("promote", "maybe")], "", "promote", ("1 fault(s) in the form",)),
    "a column that is not there": ([FILE, ("targets", "prize")], "", None, ('"prize"', '"price"')),
    "a part with other JSON": ([FILE, ("options", "[1]")], "", "options", ("not a JSON object",)),
    "options of another solver": ([("learning_rate", "0.1"), FILE], "", "learning_rate", ("in the form",)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_fault_names_its_field(service: Service, mistake: str) -> None:
    parts, query, parameter, words = MISTAKES[mistake]
    answer = train(service, *parts, query=query)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, answer.text
    problem = answer.json()
    assert all(word in problem["detail"] for word in words), problem["detail"]
    assert len(answer.content) < 3000
    if parameter:
        assert problem["errors"][0]["parameter"] == parameter
    wait_for(lambda: not list(service.state.glob("scratch/*")))


def test_options_of_a_solver_may_come_before_its_name(service: Service) -> None:
    late = train(
        service, ("epochs", "3"), FILE, ("solver", "gradient_descent"), ("targets", "price"), ("model", "late")
    )
    assert late.status_code == httpx.codes.ACCEPTED, late.text
    assert service.end_of(late.json()["id"])["status"] in ("succeeded", "failed")


def test_a_fault_before_the_file_is_refused_before_the_file_is_received(service: Service) -> None:
    connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=60)
    beginning = form(("promote", "maybe"), ("file", "x,y\n" + "1,2\n" * 2000), end="")
    connection.putrequest("POST", "/train")
    for name, value in {**MULTIPART, "content-length": str(1_000_000)}.items():
        connection.putheader(name, value)
    connection.endheaders(beginning)
    answer = connection.getresponse()
    assert (answer.status, b"promote" in answer.read()) == (422, True)
    connection.close()


def test_the_file_has_the_limit_of_a_raw_upload_and_options_have_their_own(service: Service) -> None:
    service.finish_jobs()
    row = "1,2,oslo,3\n"
    fits = "area,floor,city,price\n" + row * ((UPLOAD_LIMIT - 22) // len(row))
    assert inspected(service, ("file", fits), ("targets", "price"))["rows"] == fits.count("\n") - 1
    for path in ("/train", "/inspect", "/predict"):
        long = service.client.post(path, content=form(("file", fits + row * 2)), headers=MULTIPART)
        assert long.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE, path
    many = train(service, FILE, ("na", "x" * MAX_OPTIONS), ("targets", "price"))
    assert (many.status_code, "longer than" in many.text) == (413, True)
    wait_for(lambda: not stored(service))


@pytest.mark.parametrize("path", ["/train", "/inspect", "/predict"])
@pytest.mark.parametrize(
    "body",
    [form(FILE, end=""), form(FILE, ("model", "cut"), end="")[:-4], form(FILE, FILE), form(("model", "none"))],
    ids=["no end", "cut in a field", "two files", "no file"],
)
def test_a_form_that_is_not_whole_leaves_nothing(service: Service, path: str, body: bytes) -> None:
    service.finish_jobs()
    answer = service.client.post(path, content=body, headers=MULTIPART)
    assert answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY)
    assert "form" in answer.json()["detail"]
    wait_for(lambda: not stored(service))


@pytest.mark.parametrize("name", ["../../../etc/x.csv", '\\"; name=\\"options', "a" * 3000 + ".csv", "<script>.csv"])
def test_the_name_of_a_file_only_tells_its_format(service: Service, name: str) -> None:
    answer = service.client.post("/inspect", content=form(FILE, file_name=name), headers=MULTIPART)
    assert answer.status_code == httpx.codes.OK, answer.text
    assert answer.json()["format"] == "CSV"
    assert name not in answer.text


def test_the_document_lists_the_fields_of_the_form(service: Service) -> None:
    paths = service.client.get("/openapi.json").json()["paths"]
    for path in ("/train", "/inspect", "/predict"):
        call = paths[path]["post"]
        fields = call["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        parameters = {one["name"] for one in call["parameters"] if one["in"] == "query"} - {"min_version"}
        assert {*fields} - {"file", "options"} == parameters
        assert fields["file"] | {"description": ""} == {"type": "string", "format": "binary", "description": ""}
