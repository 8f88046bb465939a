"""POST /predict and its siblings: rows in, predictions out."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.data.formats import BY_MEDIA_TYPE, LABELS, check_options
from app.prediction.estimates import MAX_RESPONSE
from app.registry.aliases import CURRENT
from app.web import bodies, traffic
from app.web.auth import AccessScope, require_scope
from app.web.middleware import QuietRoute
from app.web.negotiation import select_media_type
from app.web.predict_json import decode_query, encode_json, predict_json
from app.web.predict_tables import MEDIA_TYPES, TableRequest, predict_file, predict_rows
from app.web.query import ModelName, VersionNumber, query_parameters, read_query
from app.web.schemas.openapi_schema import made_later
from app.web.schemas.predict import CSV_EXAMPLE, EXAMPLES, PredictParameters, PredictRequest, PredictResponse
from app.web.schemas.problems import problem_responses
from app.web.state import get_services
from app.web.version_headers import MIN_VERSION_PARAMETER, STICKY_PARAMETER

router = APIRouter(tags=["Predict"], dependencies=[require_scope(AccessScope.PREDICT)], route_class=QuietRoute)

DESCRIPTION = (
    f"Rows come as JSON or as a table: {LABELS}, its columns in any order, plain "
    "or with a Content-Encoding of gzip, deflate or zstd. Words, booleans and dates are read as in the training rows. "
    "Besides the features, rows may have the model's targets, the `unused_columns` of its card and the columns that "
    "training left out, which are ignored; so is the index of a pandas frame in Arrow and Parquet. "
    "The response has the format that Accept names, by default that of the "
    f"rows. A JSON response to JSON rows has at most {MAX_RESPONSE >> 20} MiB, any other as many bytes as an upload "
    "may have."
)

_ROUTE: dict[str, Any] = {
    "response_model": PredictResponse,
    "response_model_exclude_none": True,
    "description": DESCRIPTION,
    "openapi_extra": made_later(
        lambda: {
            **bodies.openapi_request_body(
                PredictRequest, EXAMPLES, csv_example=CSV_EXAMPLE, options=query_parameters(PredictParameters)
            ),
            "parameters": [*query_parameters(PredictParameters), MIN_VERSION_PARAMETER, STICKY_PARAMETER],
        }
    ),
    "responses": {200: bodies.openapi_response(), **problem_responses(404, 406, 413, 415, 422, 507)},
}


@router.post("/predict", name="predict", summary="Predict with the default model's current version", **_ROUTE)
async def predict(request: Request) -> Response:
    return await _predict(request, get_services(request).default_model)


@router.post(
    "/models/{model}/predict", name="predictWithModel", summary="Predict with a model's current version", **_ROUTE
)
async def predict_with_model(request: Request, model: ModelName) -> Response:
    return await _predict(request, model)


@router.post(
    "/models/{model}/versions/{version}/predict",
    name="predictWithVersion",
    summary="Predict with any version of a model",
    **_ROUTE,
)
async def predict_with_version(request: Request, model: ModelName, version: VersionNumber) -> Response:
    return await _predict(request, model, version)


@router.post(
    "/models/{model}/aliases/{alias}/predict",
    name="predictWithAlias",
    summary="Predict with the version that has an alias",
    **_ROUTE,
)
async def predict_with_alias(
    request: Request,
    model: ModelName,
    alias: Annotated[str, Path(description="Alias of a version, or `current`.", examples=[CURRENT])],
) -> Response:
    if alias == CURRENT:
        return await _predict(request, model, may_split=False)
    return await _predict(request, model, await run_in_threadpool(get_services(request).aliases.version, model, alias))


async def _predict(request: Request, model: str, version: int | None = None, *, may_split: bool = True) -> Response:
    """Predict in the way that the formats of the rows and of the response need."""
    services = get_services(request)
    selector = await traffic.select(request, model, version, may_split=may_split)
    media_type = await bodies.content_type(request, *MEDIA_TYPES)
    others = [other for other in MEDIA_TYPES if other != media_type]
    accepted = select_media_type(request.headers.get("accept"), [media_type, *others])
    table_format = BY_MEDIA_TYPE.get(media_type)
    if table_format is None:
        await bodies.complete_form(request, services.max_json_bytes)
    received = bodies.received_of(request)
    if media_type == accepted == bodies.JSON and not request.query_params and not received.form:
        return await predict_json(request, selector, decode_query, encode_json)

    def parameters() -> PredictParameters:
        read = read_query(request, PredictParameters, received.form)
        check_options(table_format, read.reading())
        return read

    first = parameters()  # before the rows are received; those of a form may follow
    if table_format is None:
        rows = TableRequest(first.options("refuse"), first.prediction_id)
        return await predict_rows(request, selector, rows, accepted)

    def options() -> TableRequest:
        read = parameters()
        table = read.options("null")
        table = replace(table, reading=bodies.with_encoding(request, table_format, table.reading))
        return TableRequest(table, read.prediction_id)

    return await predict_file(request, selector, table_format, options, accepted)
