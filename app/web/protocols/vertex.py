"""Vertex AI's requests to a custom container.

It sends them to the paths in AIP_PREDICT_ROUTE and AIP_HEALTH_ROUTE, which `app.web.path_aliases` maps to the routes
here. It returns only `predictions` to its caller, so each element holds everything that was requested for its row.
"""

from codecs import BOM_UTF8
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.errors import InvalidInput
from app.prediction.encoding import Recorded, additions, encode_document, extrapolations, joined, named
from app.prediction.predictor import PredictionResult
from app.registry.version_file import Version
from app.storage.memory_budget import LARGE_BODY
from app.web import bodies, traffic
from app.web.auth import AccessScope, require_scope
from app.web.middleware import QuietRoute
from app.web.path_aliases import VERTEX_HEALTH, VERTEX_PREDICT
from app.web.predict_json import predict_body
from app.web.protocols.base import Calls
from app.web.protocols.instances import InstancesSchema, decode, elements
from app.web.query import Rows, single_header
from app.web.routes.health import Ready, ready
from app.web.schemas.openapi_schema import Schema
from app.web.schemas.predict import PredictOptions
from app.web.schemas.problems import error_responses
from app.web.state import get_services
from app.web.version_headers import MIN_VERSION_PARAMETER, STICKY_PARAMETER, VERSION_HEADER

MODEL = "Linserve-Model"  # Request header with the name of the model.

# Google's names of error statuses. Other client errors are INVALID_ARGUMENT, and other server errors INTERNAL.
_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "FAILED_PRECONDITION",
    503: "UNAVAILABLE",
    507: "RESOURCE_EXHAUSTED",
}

router = APIRouter(tags=["Vertex AI"])


class VertexParameters(PredictOptions):
    """Options, as in this service's own format, and the model."""

    model: str | None = None
    """The model that predicts, if it is not the default model. The header `Linserve-Model` can name it, too."""
    version: int | None = Field(None, ge=1)
    """The version that predicts, if it is not the current one."""


class VertexRequest(InstancesSchema):
    """Rows to predict for, and options for all of them."""

    instances: Rows = Field(min_length=1)
    """The rows: objects by feature name, or arrays in the model's feature order."""
    parameters: VertexParameters | None = None

    def rows(self) -> tuple[list[Any], str]:
        return self.instances, "/instances"

    def options(self, version: Version) -> PredictOptions:
        parameters = self.parameters or VertexParameters()
        # The model was chosen before the body was decoded, by a parser that refuses more.
        if parameters.model not in (None, version.card.model):
            raise InvalidInput.at("/parameters/model", "The name of the model cannot be read. Send the body as UTF-8.")
        return parameters


class VertexResponse(Schema):
    predictions: list[Any]
    """An element for each instance: a number if the model has one target, otherwise an array in the order of the
    targets. If the parameters request more than predictions, an element is an object with `prediction`, and the
    requested ones of `interval`, `confidence_interval`, `explanation` and `extrapolation`."""
    baseline: dict[str, float] | None = None
    """The prediction for the mean of the training rows, by target."""
    recorded: bool | None = None
    """Only with ids: true if the predictions were recorded on disk."""
    unavailable: dict[str, str] | None = None
    """Requested results that are not available, with the reasons."""


class VertexStatus(Schema):
    code: int = Field(examples=[404])
    message: str = Field(examples=['There is no model "tomatoes".'])
    status: str = Field(examples=["NOT_FOUND"])


class VertexError(Schema):
    error: VertexStatus


EXAMPLES: dict[str, Any] = {
    "A row as an object": {"instances": [{"temp": 75, "rainfall": 63, "humidity": 44}]},
    "Two rows as arrays, with intervals": {
        "instances": [[73, 67, 43], [91, 88, 64]],
        "parameters": {"interval": 0.95},
    },
}

predictions = APIRouter(route_class=QuietRoute, dependencies=[require_scope(AccessScope.PREDICT)])


@predictions.post(
    VERTEX_PREDICT,
    name="predictVertex",
    summary="Predict, for Vertex AI",
    description="Also on the path in AIP_PREDICT_ROUTE.",
    response_model=VertexResponse,
    openapi_extra={
        **bodies.openapi_request_body(VertexRequest, EXAMPLES),
        "parameters": [
            {
                "name": MODEL,
                "in": "header",
                "required": False,
                "description": "The model that predicts, if it is not the default model.",
                "schema": {"type": "string"},
            },
            MIN_VERSION_PARAMETER,
            STICKY_PARAMETER,
        ],
    },
    responses={
        200: {"description": "Predictions, row by row.", "headers": {"Linserve-Version": VERSION_HEADER}},
        **error_responses(VertexError, 404, 413, 415, 422),
    },
)
async def predict(request: Request) -> Response:
    services = get_services(request)
    body = await bodies.read_body(request, services.max_json_bytes)
    chosen = await run_in_threadpool(_chosen, body) if len(body) > LARGE_BODY else _chosen(body)
    model = chosen.model or single_header(request, MODEL) or services.default_model
    request.state.model = model  # For the metrics.
    selector = await traffic.select(request, model, chosen.version)
    return await predict_body(request, selector, body, partial(decode, VertexRequest), _encode)


router.include_router(predictions)


@router.get(
    VERTEX_HEALTH,
    name="healthVertex",
    summary="Check that the default model is loaded, for Vertex AI",
    description="Also on the path in AIP_HEALTH_ROUTE.",
    responses=error_responses(VertexError, open_to_all=True),
)
async def health(request: Request) -> Ready:
    return await ready(request)


class Vertex:
    name = "vertex"
    router = router
    schemas: tuple[type[BaseModel], ...] = (VertexRequest, VertexError)
    calls: Calls = ()

    def render_error(self, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        code = problem["status"]
        other = "INVALID_ARGUMENT" if code < HTTPStatus.INTERNAL_SERVER_ERROR else "INTERNAL"
        error = {"code": code, "message": problem["detail"], "status": _STATUSES.get(code, other)}
        return Response(orjson.dumps({"error": error}), code, headers, bodies.JSON)


class _Chosen(NamedTuple):
    model: str | None = None
    version: int | None = None


class _Body(msgspec.Struct):
    """The part of a body that names a model. The rows are skipped."""

    parameters: Any = None


def _chosen(body: bytes) -> _Chosen:
    """Return the model and the version that a body names. Faults of the body are found when it is decoded."""
    try:
        parameters = msgspec.json.decode(body.removeprefix(BOM_UTF8), type=_Body).parameters
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _Chosen()
    if not isinstance(parameters, dict):
        return _Chosen()
    model, version = parameters.get("model"), parameters.get("version")
    return _Chosen(model if type(model) is str else None, version if type(version) is int and version > 0 else None)


def _encode(result: PredictionResult, recorded: Recorded | None) -> Response:
    document: dict[str, Any] = {"predictions": elements(result.predictions)}
    others = additions(result, recorded, as_objects=False)
    if others.keys() - {"recorded", "unavailable"}:
        values = result.predictions[0].size * (1 + len(result.version.model.columns))
        document["predictions"] = joined(len(result.predictions), values, partial(_objects, result))
    if result.contributions is not None:
        (document["baseline"],) = named(result.version.model.mean_prediction[np.newaxis], result.version.model)
    document |= {name: others[name] for name in ("recorded", "unavailable") if name in others}
    return Response(encode_document(document), media_type=bodies.JSON)


def _objects(result: PredictionResult, rows: slice) -> list[dict[str, Any]]:
    """Return these rows as objects with everything that was requested."""
    model = result.version.model
    columns: dict[str, list[Any]] = {"prediction": elements(result.predictions[rows]).tolist()}
    for name, bounds in (("interval", result.intervals), ("confidence_interval", result.confidence_intervals)):
        if bounds is not None:
            columns[name] = elements(bounds[rows]).tolist()
    if result.contributions is not None:
        columns["explanation"] = named(result.contributions[rows], model, by_column=True)
    if result.extrapolation is not None:
        columns["extrapolation"] = list(extrapolations(result.extrapolation, result, rows))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
