"""What several routes take from their paths and bodies."""

from typing import Annotated, Any, TypeAlias

from fastapi import Path
from pydantic import BaseModel, WithJsonSchema

_OBJECT = {"type": "object", "additionalProperties": {"type": "number"}}
_ARRAY = {"type": "array", "items": {"type": "number"}}

# The values are checked by app.data.json_rows, which names their places without building an error for each.
Rows: TypeAlias = Annotated[
    list[Any], WithJsonSchema({"type": "array", "minItems": 1, "items": {"anyOf": [_OBJECT, _ARRAY]}})
]
ModelName: TypeAlias = Annotated[str, Path(description="Name of the model.", examples=["crop-yield"])]
VersionNumber: TypeAlias = Annotated[int, Path(description="Number of the version.", examples=[1])]
JobId: TypeAlias = Annotated[str, Path(description="Id of the job.", examples=["6f1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"])]


def in_query(options: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """The schemas of options as they stand in a query, by name: nothing is null there, and lists are text."""
    found = {}
    for name, schema in options.model_json_schema()["properties"].items():
        chosen = next(one for one in schema.get("anyOf", [schema]) if one.get("type") != "null")
        rules = {rule: value for rule, value in chosen.items() if rule not in ("title", "description", "default")}
        found[name] = {"type": "string"} if rules.get("type") == "array" else rules
    return found
