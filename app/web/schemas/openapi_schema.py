"""Base of the schemas, and types for the OpenAPI document only, of values that the routes decode themselves."""

from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, RootModel, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Schema(BaseModel):
    """A body or a part of it. The docstring below a field is its description."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class NamedRow(RootModel[dict[str, float | str | bool | None]]):
    """A row as an object of values by column name. Features and targets are numbers, or null if missing."""


class Row(RootModel[NamedRow | list[float]]):
    """A row as an object or as an array. An array is in the order of the features, or of the targets."""


class DocumentedAs:
    """Document a value as another type than the one that pydantic validates."""

    def __init__(self, documented_type: Any) -> None:
        self._schema = TypeAdapter(documented_type).core_schema

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(self._schema)
