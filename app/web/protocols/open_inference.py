"""The Open Inference Protocol v2, which KServe, Triton and MLServer speak, with the binary tensor extension."""

import contextlib
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app import __version__
from app.data.columns.options import Kind
from app.data.tensors import BYTES
from app.errors import InvalidInput, NotFound
from app.prediction.selection import VersionSelector
from app.registry.base import ModelReader
from app.registry.version_file import Version
from app.storage.memory_budget import LARGE_BODY
from app.web import bodies, traffic
from app.web.auth import AccessScope, require_scope
from app.web.middleware import QuietRoute
from app.web.predict_json import predict_body
from app.web.protocols.base import Calls
from app.web.protocols.inference import BINARY, Inference
from app.web.query import ModelName, VersionNumber
from app.web.routes import health
from app.web.schemas.open_inference import (
    EXAMPLES,
    IndexEntry,
    IndexRequest,
    InferenceError,
    InferenceRequest,
    InferenceResponse,
    Liveness,
    ModelMetadata,
    ModelReadiness,
    Readiness,
    ServerMetadata,
    TensorMetadata,
)
from app.web.schemas.problems import error_responses
from app.web.state import get_services
from app.web.version_headers import MIN_VERSION_PARAMETER, STICKY_PARAMETER, VERSION_HEADER

EXTENSIONS = ["binary_tensor_data"]
PLATFORM = "linserve"
FP64 = "FP64"
INVALID, BAD_REQUEST = 422, 400
_DATATYPES: dict[Kind, str] = {"number": FP64, "boolean": "BOOL", "date": BYTES, "category": BYTES}

_LENGTH = {
    "description": "Length of the JSON at the beginning of the body, in bytes, if binary tensors follow it.",
    "schema": {"type": "integer", "minimum": 1},
}
_LENGTH_PARAMETER = {"name": "Inference-Header-Content-Length", "in": "header", "required": False, **_LENGTH}
_BINARY_CONTENT = {BINARY: {"schema": {"type": "string", "format": "binary"}}}
_BODY = bodies.openapi_request_body(InferenceRequest, EXAMPLES)
_BODY["requestBody"]["content"] |= _BINARY_CONTENT
_INFER: dict[str, Any] = {
    "dependencies": [require_scope(AccessScope.PREDICT)],
    "response_model": InferenceResponse,
    "description": "The values of a tensor are in `data`, or follow the JSON in binary. The body may have any "
    "Content-Type, and a Content-Encoding of gzip, deflate or zstd.",
    "openapi_extra": {**_BODY, "parameters": [_LENGTH_PARAMETER, MIN_VERSION_PARAMETER, STICKY_PARAMETER]},
    "responses": {
        200: {
            "description": "Predictions.",
            "content": _BINARY_CONTENT,
            "headers": {"Linserve-Version": VERSION_HEADER, "Inference-Header-Content-Length": _LENGTH},
        },
        **error_responses(InferenceError, 404, 413, 415),
    },
}
_READ: dict[str, Any] = {
    "dependencies": [require_scope(AccessScope.READ)],
    "responses": error_responses(InferenceError, 404),
}
_PROBE: dict[str, Any] = {"responses": error_responses(InferenceError, open_to_all=True)}
_MODEL_PROBE: dict[str, Any] = {"responses": error_responses(InferenceError, 404, open_to_all=True)}

router = APIRouter(tags=["Open Inference Protocol"])
predictions = APIRouter(route_class=QuietRoute)


@predictions.post("/v2/models/{model}/infer", name="infer", summary="Predict for tensors", **_INFER)
async def infer(request: Request, model: ModelName) -> Response:
    return await _infer(request, model)


@predictions.post(
    "/v2/models/{model}/versions/{version}/infer",
    name="inferWithVersion",
    summary="Predict for tensors with any version of a model",
    **_INFER,
)
async def infer_with_version(request: Request, model: ModelName, version: VersionNumber) -> Response:
    return await _infer(request, model, version)


router.include_router(predictions)


async def _infer(request: Request, model: str, version: int | None = None) -> Response:
    selector = await traffic.select(request, model, version)
    body = await bodies.read_body(request, get_services(request).max_json_bytes)
    inference = Inference(request, body)
    try:
        return await predict_body(request, selector, body, inference.decode, inference.encode, size=inference.size())
    except InvalidInput as error:
        raise inference.explained(error) from None


@router.get("/v2", name="serverMetadata", summary="Read the name, the version and the extensions", **_PROBE)
async def server_metadata() -> ServerMetadata:
    return ServerMetadata(name="linserve", version=__version__, extensions=EXTENSIONS)


@router.get("/v2/health/live", name="serverLive", summary="Check that the process responds", **_PROBE)
async def server_live() -> Liveness:
    return Liveness(live=True)


@router.get("/v2/health/ready", name="serverReady", summary="Check that the default model is loaded", **_PROBE)
async def server_ready(request: Request) -> Readiness:
    await health.ready(request)
    return Readiness(ready=True, live=True)


@router.get("/v2/models/{model}/ready", name="modelReady", summary="Check that a model can predict", **_MODEL_PROBE)
async def model_ready(request: Request, model: ModelName) -> ModelReadiness:
    return await _ready(request, model)


@router.get(
    "/v2/models/{model}/versions/{version}/ready",
    name="modelVersionReady",
    summary="Check that a version can predict",
    **_MODEL_PROBE,
)
async def model_version_ready(request: Request, model: ModelName, version: VersionNumber) -> ModelReadiness:
    return await _ready(request, model, version)


async def _ready(request: Request, model: str, version: int | None = None) -> ModelReadiness:
    await VersionSelector(get_services(request).registry, model, version).resolve_async()
    return ModelReadiness(name=model, ready=True)


@router.get("/v2/models/{model}", name="modelMetadata", summary="Read the inputs and outputs of a model", **_READ)
def model_metadata(request: Request, model: ModelName) -> ModelMetadata:
    registry = get_services(request).registry
    return _metadata(registry, registry.current(model))


@router.get(
    "/v2/models/{model}/versions/{version}",
    name="modelVersionMetadata",
    summary="Read the inputs and outputs of a version",
    **_READ,
)
def model_version_metadata(request: Request, model: ModelName, version: VersionNumber) -> ModelMetadata:
    registry = get_services(request).registry
    return _metadata(registry, registry.version(model, version))


def _metadata(registry: ModelReader, version: Version) -> ModelMetadata:
    model = version.card.model
    inputs = [_tensor(feature.name, _DATATYPES[feature.kind]) for feature in version.table.features]
    outputs = [_tensor(target, FP64) for target in version.model.targets]
    versions = [str(number) for number in registry.versions(model)]
    return ModelMetadata(name=model, versions=versions, platform=PLATFORM, inputs=inputs, outputs=outputs)


def _tensor(name: str, datatype: str) -> TensorMetadata:
    return TensorMetadata(name=name, datatype=datatype, shape=[-1, 1])


_INDEX = bodies.openapi_request_body(IndexRequest, {"All": {}})
_INDEX["requestBody"]["required"] = False


@router.post(
    "/v2/repository/index",
    name="repositoryIndex",
    summary="List the versions of all models",
    openapi_extra=_INDEX,
    **_READ,
)
async def repository_index(request: Request) -> list[IndexEntry]:
    if body := await bodies.read_body(request, LARGE_BODY):
        bodies.decode(IndexRequest, body)  # Every version that is listed is ready.
    return await run_in_threadpool(_index, get_services(request).registry)


def _index(registry: ModelReader) -> list[IndexEntry]:
    entries = []
    for model in registry.models():
        with contextlib.suppress(NotFound):  # It was deleted meanwhile.
            entries += [IndexEntry(name=model, version=str(number)) for number in registry.versions(model)]
    return entries


class OpenInference:
    name = "open-inference"
    router = router
    schemas: tuple[type[BaseModel], ...] = (InferenceRequest, IndexRequest, InferenceError)
    calls: Calls = (
        ("GET /models lists", "POST /v2/repository/index lists"),
        ("GET /models/", "GET /v2/models/"),
    )

    def render_error(self, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        """Return the detail of a problem as `error`. The protocol uses 400 for every invalid request."""
        status = BAD_REQUEST if problem["status"] == INVALID else problem["status"]
        return Response(orjson.dumps({"error": problem["detail"]}), status, headers, bodies.JSON)
