"""Base of the schemas, and types for the OpenAPI document only, of values that the routes decode themselves."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, RootModel, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.web.schemas.field_docstrings import field_docstrings


class Schema(BaseModel):
    """A body or a part of it. The docstring below a field is its description."""

    # pydantic prepares a class when it is first used, and not when the service starts.
    model_config = ConfigDict(defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the docstrings. The setting `use_attribute_docstrings` would read all sources when the service starts."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in field_docstrings(cls.documented_class()).items():
            if name in cls.model_fields:
                properties[cls.model_fields[name].alias or name].setdefault("description", text)
        return schema

    @classmethod
    def documented_class(cls) -> type:
        """Return the class whose source has the docstrings of the fields."""
        return cls


class NamedRow(RootModel[dict[str, float | str | bool | None]]):
    """A row as an object of values by column name. Features and targets are numbers, or null if missing."""


class Row(RootModel[NamedRow | list[float]]):
    """A row as an object or as an array. An array is in the order of the features, or of the targets."""


def made_later(make: Callable[[], dict[str, Any]]) -> Any:
    """Return an `openapi_extra` that is made with the OpenAPI document, and not when the service starts."""
    return _MadeLater(cache(make))


class _MadeLater(Mapping[str, Any]):
    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make

    def __getitem__(self, key: str) -> Any:
        return self._make()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._make())

    def __len__(self) -> int:
        return len(self._make())


class DocumentedAs:
    """Document a value as another type than the one that pydantic validates."""

    def __init__(self, documented_type: Any) -> None:
        self._type = documented_type

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter(self._type).core_schema)
