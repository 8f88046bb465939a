"""Exports over HTTP: files, headers, faults and limits."""

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from mixed import publish
from service import Service
from threaded_service import ThreadedService
from trained import model_of, version_of
from yields import publish_yields

from app.exchange import EXPORTS

URL = "/models/crop-yield/versions/1/export"
NAMES = [export.name for export in EXPORTS]


@pytest.fixture(scope="module")
def exporting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a second version, which is current."""
    running = ThreadedService(tmp_path_factory.mktemp("exports"))
    publish_yields(running.models)
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize("export", EXPORTS, ids=NAMES)
def test_a_file_has_its_name_its_type_and_what_it_does_not_carry(exporting: Service, export: Any) -> None:
    answer = exporting.client.get(URL, params={"format": export.name})
    assert answer.status_code == httpx.codes.OK, answer.text
    assert answer.headers["content-type"].partition(";")[0] == export.media_type
    name = f"crop-yield-000001{export.extension}"
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["linserve-version"] == "1"
    assert int(answer.headers["content-length"]) == len(answer.content) > 0
    not_exported = answer.headers.get("linserve-not-exported", "")
    assert ("ntervals" in not_exported) == (export.name not in ("json", "linserve"))
    again = exporting.client.get(URL, params={"format": export.name}, headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == httpx.codes.NOT_MODIFIED
    assert again.content == b""


def test_a_model_without_a_version_in_its_path_is_its_current_version(exporting: Service) -> None:
    current = exporting.client.get("/models/crop-yield/export?format=python")
    assert current.headers["linserve-version"] == "2"
    assert current.content == exporting.client.get("/models/crop-yield/versions/2/export?format=python").content
    assert "version 2," in (ast.get_docstring(ast.parse(current.text)) or "")


def test_a_version_file_is_the_file_of_the_registry(exporting: Service) -> None:
    file = exporting.client.get("/models/crop-yield/versions/2/file").content
    assert exporting.client.get("/models/crop-yield/export?format=linserve").content == file


def test_each_combination_of_options_has_its_own_etag(exporting: Service) -> None:
    queries = ["", "&dialect=sqlite", "&dialect=sqlite&table=a", "&table=a", "&table=sqlite"]
    answers = [exporting.client.get(f"{URL}?format=sql{query}") for query in queries]
    assert len({answer.headers["etag"] for answer in answers}) == len(queries)
    assert len({answer.content for answer in answers}) == len(queries)


@pytest.mark.parametrize(
    ("query", "parameter", "message"),
    [
        ("", "format", "`format` is missing. Formats: "),
        ("format=pythn", "format", '"pythn" is not a format of exports. Did you mean "python"?'),
        ("format=pythn", "format", '"safetensors", '),
        ("format=", "format", '"" is not a format of exports.'),
        ("format=sql&dialect=duck", "dialect", '"duck" is not a dialect of sql. Did you mean "duckdb"?'),
        ("format=sql&dialect=duck", "dialect", '"bigquery", "snowflake"'),
        ("format=python&dialect=duckdb", "dialect", "There is no such option"),
        ("format=sql&format=sql", "format", "given more than once"),
        ("format=sql&table=a..b", "table", "Expected the name of a table"),
        ("format=sql&table=" + "a" * 400, "table", "at most 384 characters"),
    ],
)
def test_a_fault_in_the_query_has_its_place_and_the_known_values(
    exporting: Service, query: str, parameter: str, message: str
) -> None:
    answer = exporting.client.get(f"{URL}?{query}")
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert message in answer.json()["detail"]
    assert answer.json()["errors"][0]["parameter"] == parameter


def test_an_unknown_model_or_version_is_not_found(exporting: Service) -> None:
    for path in ("/models/nothing/export", "/models/nothing/versions/1/export", "/models/crop-yield/versions/9/export"):
        for name in NAMES:
            answer = exporting.client.get(path, params={"format": name})
            assert answer.status_code == httpx.codes.NOT_FOUND, path


def test_a_model_that_a_format_cannot_hold_is_refused_with_the_reason(exporting: Service) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 3))
    version = version_of(replace(model_of(rows, rows[:, :1]), features=("a", "A", "b.c")), features=("a", "A", "b.c"))
    publish(exporting.models, version, "names")
    answer = exporting.client.get("/models/names/export?format=sql")
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert answer.json()["detail"].startswith('DuckDB does not distinguish some names, such as "a" and "A".')
    assert exporting.client.get("/models/names/export?format=sql&dialect=postgres").status_code == httpx.codes.OK


def test_the_document_lists_the_formats_of_the_table(exporting: Service) -> None:
    document = exporting.client.get("/openapi.json").json()
    for path in ("/models/{model}/export", "/models/{model}/versions/{version}/export"):
        operation = document["paths"][path]["get"]
        parameters = {parameter["name"]: parameter for parameter in operation["parameters"]}
        assert parameters["format"]["required"]
        assert parameters["format"]["schema"]["enum"] == NAMES
        assert parameters["dialect"]["schema"]["enum"] == ["duckdb", "sqlite", "postgres", "bigquery", "snowflake"]
        assert {export.media_type for export in EXPORTS} == set(operation["responses"]["200"]["content"])
