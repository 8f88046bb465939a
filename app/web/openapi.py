"""The OpenAPI document of FastAPI, completed and restricted to OpenAPI 3.1.

Validators reject keywords of later versions, and client generators ignore keywords that they do not know.
"""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from msgspec.json import schema_components
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import TaggedUnionSchema

from app.exchange.json_model import ModelRecord
from app.web.protocols import PROTOCOLS
from app.web.schemas.actuals import ActualsRequest
from app.web.schemas.aliases import AliasTarget
from app.web.schemas.evaluation import EvaluateRequest
from app.web.schemas.inspection import InspectRequest
from app.web.schemas.models import Promotion
from app.web.schemas.problems import PROBLEM_CONTENT, Problem
from app.web.schemas.traffic import TrafficTarget
from app.web.schemas.train import SourceRequest, TrainRequest

# Schemas of bodies that the routes decode themselves, which FastAPI does not know.
_BODIES: tuple[type[BaseModel], ...] = (
    *(schema for wire_format in PROTOCOLS for schema in wire_format.schemas),
    *(
        TrainRequest,
        SourceRequest,
        InspectRequest,
        EvaluateRequest,
        ActualsRequest,
        AliasTarget,
        TrafficTarget,
        Promotion,
        Problem,
    ),
)

# The empty requirement comes first, because a service without a key file requires no key.
_SECURITY: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"header": []}]

# Without a format, generators for Go, Java and C# use 32-bit floats and integers.
_FORMATS = {"number": "double", "integer": "int64"}

_VALIDATION_ERROR = {"$ref": "#/components/schemas/HTTPValidationError"}  # FastAPI's, which is never sent.

_SOFT_BREAK = re.compile(r"(?<!\n)\n(?!\n)")  # A line break within a paragraph.


class _Schemas(GenerateJsonSchema):
    def tagged_union_schema(self, schema: TaggedUnionSchema) -> JsonSchemaValue:
        """Return `anyOf`, because the tag may be missing, and generators expect the tag in every value of a `oneOf`."""
        union = super().tagged_union_schema(schema)
        return {"anyOf" if key == "oneOf" else key: value for key, value in union.items()}


def build_document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the app."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        license_info=app.license_info,
    )
    schemas = document["components"]["schemas"]
    for model in _BODIES:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}", schema_generator=_Schemas)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    schemas.update(schema_components([ModelRecord], ref_template="#/components/schemas/{name}")[1])
    # A named union, because generators invent names for unnamed ones.
    for name, of_rows in (("TrainBody", TrainRequest), ("InspectBody", InspectRequest)):
        names = (of_rows.__name__, SourceRequest.__name__)
        schemas[name] = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names]}
    # Every 422 is a problem; FastAPI's own schema of errors is never sent.
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    document["security"] = _SECURITY
    for path in document["paths"].values():
        for operation in path.values():
            _complete(operation)
    _complete_schemas(document)
    return document


def _complete(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if not operation.pop("security", None):
        operation["security"] = []  # Open to all; other operations have the security of the document.
    unprocessable = responses.get("422", {}).get("content", {})
    if unprocessable.get("application/json", {}).get("schema") == _VALIDATION_ERROR:
        del unprocessable["application/json"]
        unprocessable["application/problem+json"] = PROBLEM_CONTENT
        malformed = responses.get("400", {}).get("content", {})
        if "application/json" in malformed:  # A foreign format without a status of its own for it.
            del responses["422"]
    for response in responses.values():
        for name, content in response.get("content", {}).items():
            if content.pop("itemSchema", None):  # A keyword of OpenAPI 3.2.
                # No type, because some clients read text and others read events.
                content["schema"] = {"contentMediaType": name}
    for parameter in operation.get("parameters", []):
        _simplify(parameter)
        if parameter["name"] == "if-none-match":
            responses["304"] = {"description": "The ETag still matches."}


def _simplify(parameter: dict[str, Any]) -> None:
    """Remove repeated texts, and null as a value, because clients leave an absent parameter out."""
    schema = parameter["schema"]
    schema.pop("description", None)
    schema.pop("title", None)
    if examples := schema.pop("examples", None):
        parameter["example"] = examples[0]  # Swagger UI fills in the example.
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
    alternatives = [alternative for alternative in schema.get("anyOf", []) if alternative.get("type") != "null"]
    if len(alternatives) == 1:
        del schema["anyOf"]
        schema.update(alternatives[0])


def _complete_schemas(part: Any) -> None:
    """Add the formats of numbers, and join the lines of descriptions, which come from docstrings."""
    if isinstance(part, list):
        for inner in part:
            _complete_schemas(inner)
    elif isinstance(part, dict):
        if isinstance(value_type := part.get("type"), str) and value_type in _FORMATS:
            part["format"] = _FORMATS[value_type]
        if isinstance(description := part.get("description"), str):
            part["description"] = _SOFT_BREAK.sub(" ", description.strip())
        for inner in part.values():
            _complete_schemas(inner)
