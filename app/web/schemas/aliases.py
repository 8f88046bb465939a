"""Requests and responses of /models/{model}/aliases."""

from typing import Any

from pydantic import ConfigDict, Field

from app.web.schemas.openapi_schema import Schema


class AliasTarget(Schema):
    """The version that an alias names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1)


class AliasView(Schema):
    model: str
    alias: str
    version: int


class AliasList(Schema):
    model: str
    current: int | None
    """The current version, which has the alias `current`."""
    aliases: dict[str, int]
    """Versions by alias."""


EXAMPLES: dict[str, Any] = {"Name version 1": {"version": 1}}
