"""The interface of a wire format."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

Calls: TypeAlias = tuple[tuple[str, str], ...]


class WireFormat(Protocol):
    """A wire format of predictions: its routes and its errors.

    A route calls `app.web.traffic.select` to choose the version, and a function of `app.web.predict_json` to predict.
    """

    @property
    def name(self) -> str:
        """The value of the label `protocol` in the metrics."""

    @property
    def router(self) -> APIRouter:
        """The routes. Errors on their paths are rendered by this format."""

    @property
    def schemas(self) -> tuple[type[BaseModel], ...]:
        """The schemas of bodies that the routes decode themselves, for the OpenAPI document."""

    @property
    def calls(self) -> Calls | None:
        """Calls of this service's own API, as messages name them, each with the call of this format that does the same.

        None for the service's own format.
        """

    def render_error(self, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        """Return the response for a problem (RFC 9457), with these headers."""
