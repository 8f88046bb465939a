"""Tables in workbooks, JSON documents and forms, and bodies with the wrong Content-Type."""

import io
import json
from typing import Any

import httpx
import pyarrow as pa
import pytest
from service import Service
from tables import written
from workbooks import spreadsheet, workbook

from app.data.formats.excel import EXCEL

JSON, CSV = "application/json", "text/csv"
COLUMNS: dict[str, list[Any]] = {
    "word": [*"abcabcabcabc"],
    "x": [7.59, 6.03, 9.25, 11.26, 13.41, 10.33, 8.34, 7.65, 12.25, 14.9, 10.82, 6.3],
    "y": [62.6, 37.1, 62.2, 54.5, 65.2, 60.5, 53.1, 67.5, 68.6, 67.4, 72.8, 67.4],
}
ROWS = [[*COLUMNS], *map(list, zip(*COLUMNS.values(), strict=True))]
RECORDS = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS[1:]]
TEXT = "\n".join(",".join(map(str, row)) for row in ROWS).encode()
SHEET = workbook({"Notes": [["Written by hand"]], "Data": [["A title"], [], *ROWS]})
PARQUET = written(pa.table(COLUMNS), "parquet")
SPLIT = {"columns": [*COLUMNS], "index": [*range(12)], "data": ROWS[1:]}

# By name: the body, its Content-Type, and whether it is sent with a warning about it.
BODIES: dict[str, tuple[bytes, str, bool]] = {
    "csv": (TEXT, CSV, False),
    "text": (TEXT, "text/plain", False),
    "excel-csv": (TEXT, "application/vnd.ms-excel", False),
    "xlsx": (SHEET, EXCEL.media_type, False),
    "ods": (spreadsheet(ROWS), "application/vnd.oasis.opendocument.spreadsheet", False),
    "records": (json.dumps(RECORDS).encode(), JSON, False),
    "split": (json.dumps(SPLIT).encode(), JSON, False),
    "xlsx-as-csv": (SHEET, CSV, True),
    "xlsx-as-json": (SHEET, JSON, True),
    "parquet-as-ndjson": (PARQUET, "application/x-ndjson", True),
}


def train(service: Service, model: str, body: bytes, content_type: str, **query: str) -> httpx.Response:
    headers = {"content-type": content_type, "prefer": "wait=60"}
    return service.client.post("/train", params={"model": model, **query}, content=body, headers=headers)


def coefficients(service: Service, model: str) -> dict[str, float]:
    card = service.client.get(f"/models/{model}").json()
    return {"intercept": card["intercept"]["y"], **card["coefficients"]["y"]}


@pytest.fixture(scope="module")
def right(service: Service) -> dict[str, float]:
    job = service.ended_job(train(service, "right", TEXT, CSV, targets="y"))
    assert job["status"] == "succeeded", job
    return coefficients(service, "right")


@pytest.mark.parametrize("name", BODIES)
def test_the_same_table_gives_the_same_model_and_predicts_back(
    service: Service, right: dict[str, float], name: str
) -> None:
    body, content_type, is_warned = BODIES[name]
    job = service.ended_job(train(service, name, body, content_type, targets="y"))
    assert job["status"] == "succeeded", job
    assert is_warned == any("Content-Type names another format" in warning for warning in job["warnings"])
    assert coefficients(service, name) == pytest.approx(right, rel=1e-12)
    response = service.client.post(
        f"/models/{name}/predict", content=body, headers={"content-type": content_type, "accept": JSON}
    )
    assert response.status_code == 200, response.text
    values = [row["y"] for row in response.json()["predictions"]]
    expected = right["intercept"] + right["x"] * COLUMNS["x"][1] + right["word[b]"]
    assert (len(values), values[1]) == (12, pytest.approx(expected, rel=1e-9))


def test_an_answer_to_a_workbook_is_a_workbook(service: Service, right: dict[str, float]) -> None:
    for headers in ({"content-type": EXCEL.media_type}, {"content-type": CSV, "accept": EXCEL.media_type}):
        body = SHEET if headers["content-type"] == EXCEL.media_type else TEXT
        response = service.client.post("/models/right/predict?keep=word", content=body, headers=headers)
        assert (response.status_code, response.headers["content-type"]) == (200, EXCEL.media_type)
        assert EXCEL.column_names(response.content) == ["word", "y"]


@pytest.mark.parametrize("name", ["csv", "xlsx", "records"])
def test_a_form_has_the_options_that_a_query_has(service: Service, right: dict[str, float], name: str) -> None:
    body, content_type, _ = BODIES[name]
    options = {"targets": ["y"], "model": f"form-{name}", "columns": {"word": {"reference": "b"}}}
    form: dict[str, Any] = {
        "options": (None, json.dumps(options), JSON),
        "file": ("rows", io.BytesIO(body), content_type),
    }
    job = service.ended_job(service.client.post("/train", files=form, headers={"prefer": "wait=60"}))
    assert job["status"] == "succeeded", job
    assert coefficients(service, f"form-{name}")["word[a]"] == pytest.approx(-right["word[b]"], rel=1e-9)
    options = {} if name == "records" else {"keep": ["word"]}
    form = {"options": (None, json.dumps(options), JSON), "file": ("rows", io.BytesIO(body), content_type)}
    response = service.client.post(f"/models/form-{name}/predict", files=form, headers={"accept": JSON})
    assert response.status_code == 200, response.text
    assert len(response.json()["predictions"]) == 12


def test_a_charset_is_the_encoding_of_the_file(service: Service) -> None:
    text = TEXT.replace(b"word", "wört".encode("latin-1"))
    job = service.ended_job(train(service, "latin1", text, "text/csv; charset=iso-8859-1", targets="y"))
    assert job["status"] == "succeeded", job
    assert "wört[b]" in coefficients(service, "latin1")
    headers = {"content-type": "text/csv; charset=iso-8859-1", "accept": JSON}
    predicted = service.client.post("/models/latin1/predict", content=text, headers=headers)
    assert predicted.status_code == 200, predicted.text
    inspected = service.client.post("/inspect?model=latin1&targets=y", content=text, headers=headers).json()
    assert "wört" in [column["name"] for column in inspected["columns"]]


def test_what_curl_sends_by_default_is_refused_with_a_line_to_paste(service: Service) -> None:
    response = train(service, "form", TEXT, "application/x-www-form-urlencoded", targets="y")
    assert response.status_code == 415
    assert "curl --data-binary @FILE -H 'Content-Type: text/csv' " in response.json()["detail"]


@pytest.mark.parametrize("query", [{"sheet": "None"}, {"targets": "z"}, {"sep": ";"}])
def test_options_that_do_not_fit_a_workbook_are_refused(service: Service, query: dict[str, str]) -> None:
    response = train(service, "refused", SHEET, EXCEL.media_type, **{"targets": "y", **query})
    assert response.status_code == 422, response.text
