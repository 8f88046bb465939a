"""The OpenAPI document as validators and client generators read it."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from service import NOTEBOOK, Service

NAMES: dict[str, Any] = {"feature_names": ["temp", "rainfall", "humidity"], "target_names": ["apples", "oranges"]}
KINDS = ["number", "integer"]
SOLVERS: list[dict[str, Any]] = [
    {},
    {"l2": 0.1},
    {"l2": "auto"},
    {"kind": "exact", "fit_intercept": False},
    {"kind": "gradient_descent", "epochs": 1},
    {"kind": "gradient_descent", "epochs": 1, "start": "random"},
]
WRONG_SOLVERS: list[dict[str, Any]] = [
    {"epochs": 5},
    {"kind": "exact", "epochs": 5},
    {"kind": "gradient_descent", "l2": 0.1},
    {"kind": "nn"},
    {"kind": None},
    {"kind": "gradient_descent", "start": {}},
    {"kind": "gradient_descent", "start": {"version": 1, "intercept": [0]}},
]


@pytest.fixture(scope="module")
def document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.client.get("/openapi.json").json()
    return found


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each object in the document."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from parts(part)


def solver_schema(document: dict[str, Any]) -> Draft202012Validator:
    solver = document["components"]["schemas"]["TrainRequest"]["properties"]["solver"]
    return Draft202012Validator({"components": document["components"], **solver})


def test_the_document_is_valid_and_of_the_version_that_it_names(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


def test_no_union_has_a_default_which_client_generators_drop(document: dict[str, Any]) -> None:
    unions = [part for part in parts(document) if "anyOf" in part or "oneOf" in part]
    assert unions
    assert [union for union in unions if union.get("default") is not None] == []


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_that_is_accepted_fits_its_schema(
    service: Service, document: dict[str, Any], solver: dict[str, Any]
) -> None:
    solver_schema(document).validate(solver)
    job = service.train(**NOTEBOOK, **NAMES, model="documented-solver", promote="never", solver=solver)
    assert job["status"] == "succeeded"


@pytest.mark.parametrize("solver", WRONG_SOLVERS)
def test_a_solver_that_is_rejected_does_not_fit_its_schema(
    service: Service, document: dict[str, Any], solver: dict[str, Any]
) -> None:
    assert not solver_schema(document).is_valid(solver)
    answer = service.client.post("/train", json={**NOTEBOOK, "solver": solver})
    assert answer.status_code == 422


def test_numbers_have_64_bits(document: dict[str, Any]) -> None:
    found = {(part["type"], part.get("format")) for part in parts(document) if part.get("type") in KINDS}
    assert found == {("number", "double"), ("integer", "int64")}


def test_no_parameter_is_null(document: dict[str, Any]) -> None:
    """A query or a header has no null. A parameter that may be null becomes a wrapper type in generated clients."""
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    schemas = [parameter["schema"] for operation in operations for parameter in operation.get("parameters", [])]
    assert [schema for schema in schemas if {"type": "null"} in schema.get("anyOf", [])] == []


def test_every_call_may_have_a_key_and_those_that_are_open_to_all_need_none(document: dict[str, Any]) -> None:
    assert document["security"] == [{}, {"bearer": []}, {"header": []}]
    open_to_all = {
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if operation.get("security") == []
    }
    assert open_to_all == {
        *("live", "ready", "metrics"),
        *("serverMetadata", "serverLive", "serverReady", "modelReady", "modelVersionReady"),
        *("modelReadyV1", "versionReadyV1"),
        *("ping", "health", "mlflowVersion"),
        "healthVertex",
    }


def test_the_events_of_a_job_have_no_schema_of_a_later_version(document: dict[str, Any]) -> None:
    content = document["paths"]["/jobs/{job}/events"]["get"]["responses"]["200"]["content"]
    assert content["text/event-stream"]["schema"] == {"contentMediaType": "text/event-stream"}


def test_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    examples = [(name, example) for name, schema in schemas.items() for example in schema.get("examples", [])]
    assert examples
    for name, example in examples:
        Draft202012Validator({"components": document["components"], **schemas[name]}).validate(example)


def test_options_are_described_by_the_docstrings_of_their_classes_and_base_classes(document: dict[str, Any]) -> None:
    options = document["components"]["schemas"]["TrainRequest"]["properties"]
    assert options["feature_names"]["description"].startswith("Names for rows that are arrays.")
    assert options["mode"]["description"].startswith("`replace`: train on these rows alone;")  # of a base class
    assert "`infer`: take the columns" in options["schema"]["description"]  # `schema_` in the source
    # A field of a dataclass.
    solver = document["components"]["schemas"]["GradientDescentOptions"]["properties"]
    assert solver["batch_size"]["description"] == "null: all rows."
