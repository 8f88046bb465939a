"""Every wire format in the table, and what a new one gets from it."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from app.errors import InvalidInput
from app.web import protocols
from app.web.problems import add_exception_handlers
from app.web.protocols import PROBES, PROTOCOLS, render_error
from app.web.protocols.base import Calls, WireFormat

PROBLEM = {"type": "about:blank", "title": "Conflict", "status": 409, "detail": "Expected rows, found none."}


def ids(wire_format: WireFormat) -> str:
    return type(wire_format).__name__


@pytest.mark.parametrize("wire_format", PROTOCOLS, ids=ids)
def test_an_error_is_rendered_with_its_status_headers_and_detail(wire_format: WireFormat) -> None:
    response = wire_format.render_error(PROBLEM, {"retry-after": "5"})
    assert response.status_code in (PROBLEM["status"], 400)  # Some formats have no status of their own for 422.
    assert response.headers["retry-after"] == "5"
    assert str(PROBLEM["detail"]).encode() in bytes(response.body)


@pytest.mark.parametrize("wire_format", PROTOCOLS, ids=ids)
def test_bodies_that_a_format_decodes_itself_are_objects(wire_format: WireFormat) -> None:
    assert all(schema.model_json_schema()["type"] == "object" for schema in wire_format.schemas)


class _ForeignFormat:
    name = "foreign"
    router = APIRouter()
    schemas: tuple[type[BaseModel], ...] = ()
    calls: Calls = ()

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


@pytest.mark.parametrize(
    ("path", "member"),
    [
        ("/v1", "error"),
        ("/v1/x", "error"),
        ("/v2/", "error"),
        ("/vertex/x", "error"),
        ("/invocations/", "error_code"),
        ("/health/x", "type"),
        ("/predict/x", "type"),
        ("/nothing", "type"),
        ("/models/a/b", "type"),
    ],
)
def test_a_path_without_a_route_belongs_to_the_format_of_its_first_segment(path: str, member: str) -> None:
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "root_path": ""}
    response = render_error(Request(scope), {**PROBLEM, "status": 404}, {})
    assert response.status_code == 404
    assert member in json.loads(bytes(response.body))


def test_the_probes_of_all_formats_are_known_by_their_routes() -> None:
    assert {b"/v2/health/live", b"/v2/health/ready", b"/ping", b"/health", b"/vertex/health"} <= PROBES
    assert not {b"/v1/models", b"/invocations", b"/predict"} & PROBES
