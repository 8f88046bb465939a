"""POST /models/{model}/evaluate: metrics of versions on labelled rows; and the evaluations that were recorded."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.data.formats import LABELS
from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.evaluations import evaluate_request
from app.web.query import ModelName, VersionNumber, query_parameters, reject_unknown_parameters
from app.web.schemas.evaluation import (
    BODY_CSV_EXAMPLE,
    BODY_EXAMPLES,
    EvaluateParameters,
    EvaluateRequest,
    EvaluationList,
    EvaluationView,
)
from app.web.schemas.openapi_schema import made_later
from app.web.schemas.problems import problem_responses
from app.web.state import get_services

router = APIRouter(tags=["Evaluate"])

DESCRIPTION = (
    f"Rows with their targets come as JSON, or as a table: {LABELS}, plain or with a Content-Encoding of gzip, deflate "
    "or zstd. They are read as those of `POST /predict`. No rows are stored. With `record=true`, the metrics are "
    "stored."
)

_ROUTE: dict[str, Any] = {
    "response_model": EvaluationView,
    "response_model_exclude_none": True,
    "description": DESCRIPTION,
    "openapi_extra": made_later(
        lambda: {
            **bodies.openapi_request_body(
                EvaluateRequest,
                BODY_EXAMPLES,
                csv_example=BODY_CSV_EXAMPLE,
                options=query_parameters(EvaluateParameters),
            ),
            "parameters": query_parameters(EvaluateParameters),
        }
    ),
    "responses": problem_responses(404, 413, 415, 422, 507),
    "dependencies": [require_scope(AccessScope.PREDICT)],
}


@router.post(
    "/models/{model}/evaluate", name="evaluate", summary="Evaluate versions of a model on labelled rows", **_ROUTE
)
async def evaluate(request: Request, model: ModelName) -> Response:
    return bodies.json_response(await evaluate_request(request, model))


@router.post(
    "/models/{model}/versions/{version}/evaluate",
    name="evaluateVersion",
    summary="Evaluate a version on labelled rows",
    **_ROUTE,
)
async def evaluate_version(request: Request, model: ModelName, version: VersionNumber) -> Response:
    return bodies.json_response(await evaluate_request(request, model, version))


@router.get(
    "/models/{model}/evaluations",
    name="listEvaluations",
    summary="List the recorded evaluations of a model, newest first",
    response_model=EvaluationList,
    responses=problem_responses(404, 422),
    dependencies=[require_scope(AccessScope.READ), reject_unknown_parameters()],
)
def list_evaluations(request: Request, model: ModelName) -> Response:
    services = get_services(request)
    services.registry.versions(model)
    return bodies.json_response({"items": services.evaluations.newest(model)})
