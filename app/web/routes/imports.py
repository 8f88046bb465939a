"""Import a model that was fitted elsewhere: `POST /models/{model}/versions`."""

import contextlib
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.errors import NotFound, Unavailable
from app.exchange import IMPORTS
from app.registry.version_file import Version
from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.imports import import_version
from app.web.multipart import MEDIA_TYPE as FORM
from app.web.paths import prefix
from app.web.query import ModelName, query_parameters, query_properties
from app.web.routes.models import CardOptions, version_card
from app.web.schemas.imports import ImportOptions
from app.web.schemas.models import ModelView
from app.web.schemas.openapi_schema import made_later
from app.web.schemas.problems import problem_responses
from app.web.state import get_services

router = APIRouter(tags=["Models"], dependencies=[require_scope(AccessScope.TRAIN)])

ImportKey: TypeAlias = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description=(
            "The same key with the same request gives the same version of this model. With another request the key is "
            "refused (422), and also while the first request is still being received, or if the version was deleted "
            "(409)."
        ),
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
    ),
]

_FILE = {"schema": {"type": "string", "format": "binary"}}
_EXAMPLES = {
    "Coefficients": {
        "features": ["temp", "rainfall"],
        "targets": ["apples"],
        "coefficients": [0.5, 1.2],
        "intercept": 3,
    },
    "With a covariance, for intervals": {
        "features": ["temp"],
        "targets": ["apples"],
        "coefficients": [0.5],
        "intercept": 3,
        "covariance": [[0.4425, -0.06], [-0.06, 0.01]],
        "residual_df": 8,
        "rss": 6.6,
        "source": "statsmodels OLS",
    },
}


def _content() -> dict[str, Any]:
    fields: dict[str, Any] = {"file": {"type": "string", "format": "binary", "description": "The model."}}
    for name, rules in query_properties(ImportOptions).items():
        fields[name] = {"type": "string", "description": rules.get("description", "")}
    form = {"type": "object", "properties": fields, "required": ["file"]}
    json = {
        "schema": {"$ref": "#/components/schemas/ModelRecord"},
        "examples": {name: {"summary": name, "value": value} for name, value in _EXAMPLES.items()},
    }
    others = (each.media_type for each in IMPORTS if each.media_type != bodies.JSON)
    return {bodies.JSON: json, **dict.fromkeys((*others, "application/octet-stream"), _FILE), FORM: {"schema": form}}


@router.post(
    "/models/{model}/versions",
    name="importVersion",
    summary="Import a fitted model as a new version",
    description=(
        "Takes a linear model that was fitted elsewhere: as JSON, or as a file in one of the formats below, recognised "
        "by its Content-Type, its name in a form, or its bytes. With the covariance of its coefficients, the version "
        "has intervals and standard errors. With all statistics, rows can be added to it. Without either, it predicts "
        "and explains, and states `inference_unavailable`. An Idempotency-Key belongs to the model: the same key with "
        "the same request gives the same version. Pickles are refused."
    ),
    status_code=201,
    response_model=ModelView,
    openapi_extra=made_later(
        lambda: {
            "requestBody": {"required": True, "content": _content()},
            "parameters": query_parameters(ImportOptions),
        }
    ),
    responses=problem_responses(400, 409, 413, 415, 422, 507),
)
async def import_model(request: Request, model: ModelName, idempotency_key: ImportKey = None) -> Response:
    version = await import_version(request, model, idempotency_key)
    response = await run_in_threadpool(_card, request, version)
    response.status_code = 201
    response.headers["location"] = f"{prefix(request.scope)}/models/{model}/versions/{version.card.version}"
    return response


def _card(request: Request, version: Version) -> Response:
    """Return the card of a published version, even if the store fails or the version is deleted meanwhile."""
    registry, card = get_services(request).registry, version.card
    current = bool(card.promoted)
    with contextlib.suppress(Unavailable, NotFound):
        registry.refresh(card.model)
        current = registry.served_number(card.model) == card.version
    return version_card(request, version, CardOptions(), current=current)
