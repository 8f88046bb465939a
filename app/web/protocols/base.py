"""The interface of a wire format."""

from collections.abc import Mapping
from typing import Any, Protocol

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from app.prediction.encoding import Recorded
from app.prediction.predictor import PredictionResult


class WireFormat(Protocol):
    """A wire format of predictions: its routes, its results and its errors. `app.web.predict_json` does the rest."""

    @property
    def router(self) -> APIRouter:
        """The routes. Errors on their paths are rendered by this format."""

    @property
    def schemas(self) -> tuple[type[BaseModel], ...]:
        """The schemas of bodies that the routes decode themselves, for the OpenAPI document."""

    def encode(self, result: PredictionResult, recorded: Recorded | None = None) -> bytes:
        """Return the body of a successful response, with whether the predictions are recorded if they have ids."""

    def render_error(self, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        """Return the response for a problem (RFC 9457), with these headers."""
