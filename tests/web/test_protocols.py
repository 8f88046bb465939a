"""Every wire format in the table, and what a new one gets from it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from app.errors import InvalidInput
from app.prediction.predictor import PredictionResult, Predictor
from app.prediction.query import PredictionOptions, PredictionQuery
from app.registry.version_file import read
from app.web import protocols
from app.web.problems import add_exception_handlers
from app.web.protocols import PROTOCOLS, render_error
from app.web.protocols.base import WireFormat

PROBLEM = {"type": "about:blank", "title": "Invalid input", "status": 422, "detail": "Expected rows, found none."}


def ids(wire_format: WireFormat) -> str:
    return type(wire_format).__name__


@pytest.mark.parametrize("wire_format", PROTOCOLS, ids=ids)
@pytest.mark.parametrize("row", [[75, 63, 44], {"temp": 75, "rainfall": 63, "humidity": 44}])
def test_a_result_is_encoded_with_its_predictions(wire_format: WireFormat, row: Any, models: Path) -> None:
    predictor = Predictor(read(models / "crop-yield" / "000001.safetensors"))
    options = PredictionOptions(interval=0.9, explain=True, extrapolation=True)
    content = wire_format.encode(predictor.predict(PredictionQuery([row], options)))
    assert b"53.79" in content
    assert b"66.80" in content


@pytest.mark.parametrize("wire_format", PROTOCOLS, ids=ids)
def test_an_error_is_rendered_with_its_status_headers_and_detail(wire_format: WireFormat) -> None:
    response = wire_format.render_error(PROBLEM, {"retry-after": "5"})
    assert response.status_code == PROBLEM["status"]
    assert response.headers["retry-after"] == "5"
    assert str(PROBLEM["detail"]).encode() in bytes(response.body)


@pytest.mark.parametrize("wire_format", PROTOCOLS, ids=ids)
def test_bodies_that_a_format_decodes_itself_are_objects(wire_format: WireFormat) -> None:
    assert all(schema.model_json_schema()["type"] == "object" for schema in wire_format.schemas)


class _ForeignFormat:
    router = APIRouter()
    schemas: tuple[type[BaseModel], ...] = ()

    def encode(self, result: PredictionResult) -> bytes:
        return b"%d" % len(result.predictions)

    def render_error(self, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        return JSONResponse({"error": problem["detail"]}, problem["status"], headers)


@_ForeignFormat.router.post("/foreign/{model}")
async def foreign(request: Request, model: str) -> Response:
    raise (RuntimeError if model == "bug" else InvalidInput)("No rows.")


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("POST", "/foreign/a", 422, "No rows."),
        ("GET", "/foreign/a", 405, "This path does not support this method."),
        ("POST", "/foreign/bug", 500, "The service has a bug."),
        ("POST", "/other", 404, None),
    ],
)
def test_errors_on_the_paths_of_a_format_are_its_own(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str, status: int, error: str | None
) -> None:
    monkeypatch.setattr(protocols, "PROTOCOLS", (*PROTOCOLS, _ForeignFormat()))
    app = FastAPI()
    add_exception_handlers(app, render_error)
    app.include_router(_ForeignFormat.router)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path)

    response = asyncio.run(ask())
    assert response.status_code == status
    if error is None:
        assert response.json()["type"] == "urn:linserve:problem:not-found"
    else:
        assert response.json()["error"].startswith(error)
