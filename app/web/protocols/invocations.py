"""`/invocations`: MLflow's scoring server and SageMaker.

Both send rows to one path, in JSON or as a table. Bodies of pandas frames get MLflow's response. The response to any
other body has the format that Accept names.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import PlainTextResponse, Response

from app.data.columns.options import ReadingOptions
from app.data.formats import BY_MEDIA_TYPE
from app.data.formats.csv import CSV
from app.data.formats.csv_of_model import CsvOfModel
from app.data.formats.ndjson import NDJSON
from app.errors import UnsupportedMediaType
from app.prediction.predictor import PredictionResult
from app.prediction.query import PredictionOptions
from app.prediction.selection import VersionSelector
from app.prediction.tables import TableOptions, check_options, result_names
from app.registry.version_file import Version
from app.web import bodies, traffic
from app.web.auth import AccessScope, require_scope
from app.web.decompression import beginning, content_encoding
from app.web.middleware import QuietRoute
from app.web.multipart import MEDIA_TYPE
from app.web.negotiation import select_media_type
from app.web.predict_json import DecodedBody, predict_json
from app.web.predict_tables import MEDIA_TYPES, TableRequest, predict_file
from app.web.protocols import invocation_results as results
from app.web.protocols.base import Calls
from app.web.protocols.invocation_bodies import (
    ATTRIBUTES,
    EXAMPLES,
    Attributes,
    InvocationRequest,
    are_positional_lines,
    decode_invocation,
    decode_lines,
    merge_options,
    read_attributes,
)
from app.web.query import single_header
from app.web.routes import health
from app.web.schemas.openapi_schema import Schema
from app.web.schemas.predict import CSV_EXAMPLE
from app.web.schemas.problems import error_responses
from app.web.state import get_services
from app.web.version_headers import MIN_VERSION_PARAMETER, STICKY_PARAMETER, VERSION, VERSION_HEADER

router = APIRouter(tags=["MLflow and SageMaker"], route_class=QuietRoute)

# The release of MLflow whose protocol `/invocations` speaks, and whose client the tests use. Clients expect a number.
MLFLOW_VERSION = "3.17.2"

TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"
_ACCEPTED = (bodies.JSON, CSV.media_type, results.JSON_LINES, NDJSON.media_type)
# MLflow's names of errors by status. Any other status of a client error is BAD_REQUEST.
_ERROR_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "ENDPOINT_NOT_FOUND",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}


class InvocationResponse(Schema):
    predictions: list[float | list[float | None] | dict[str, float | None] | None]
    """For each row, a number, or an array in the order of the targets if there are several. With intervals, an object
    with the bounds as further members. The numbers are null if a value is missing."""


class InvocationError(Schema):
    error_code: str = Field(examples=["BAD_REQUEST"])
    message: str


class Invocations:
    name = "invocations"
    router = router
    schemas: tuple[type[BaseModel], ...] = (InvocationRequest, InvocationError)
    calls: Calls = ()

    def render_error(self, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        status: int = problem["status"]
        if status == HTTPStatus.UNPROCESSABLE_ENTITY:
            status = HTTPStatus.BAD_REQUEST.value  # as MLflow's server
        default = "INTERNAL_ERROR" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "BAD_REQUEST"
        error = {"error_code": _ERROR_CODES.get(status, default), "message": problem["detail"]}
        return Response(orjson.dumps(error), status, headers=headers, media_type=bodies.JSON)


def _header(name: str, description: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


_DESCRIPTION = (
    "Rows as MLflow's scoring server takes them, in JSON (`dataframe_split`, `dataframe_records`, `instances` or "
    "`inputs`, with options in `params`), or as SageMaker sends them: CSV with or without a header row, JSON, or JSON "
    "Lines. Arrow, Parquet and spreadsheets are also read. The first row of a CSV file is a header if it holds the "
    "names of all features. Otherwise each row has a value for each feature, in the model's order. `dataframe_split` "
    "and `dataframe_records` get JSON. The response to other bodies has the format that Accept names, by default JSON; "
    "a response in CSV has no header."
)


@router.post(
    "/invocations",
    name="invoke",
    summary="Predict as MLflow's scoring server and SageMaker's endpoints do",
    description=_DESCRIPTION,
    response_model=InvocationResponse,
    dependencies=[require_scope(AccessScope.PREDICT)],
    openapi_extra={
        **bodies.openapi_request_body(InvocationRequest, EXAMPLES, csv_example=CSV_EXAMPLE, with_form=False),
        "parameters": [
            _header(ATTRIBUTES, f"Options: {', '.join(Attributes.model_fields)}.", "interval=0.9,missing=null"),
            _header(TARGET_MODEL, "Name of the model, instead of the default model.", "crop-yield"),
            MIN_VERSION_PARAMETER,
            STICKY_PARAMETER,
        ],
    },
    responses={
        200: {
            "content": {media_type: {"schema": {"type": "string"}} for media_type in _ACCEPTED[1:]},
            "headers": {"Linserve-Version": VERSION_HEADER},
        },
        **error_responses(InvocationError, 404, 406, 413, 415, 507),
    },
)
async def invoke(request: Request) -> Response:
    services = get_services(request)
    attributes = read_attributes(single_header(request, ATTRIBUTES) or "")
    model = attributes.model if attributes.model is not None else _target_model(request, services.default_model)
    request.path_params["model"] = model  # for the counts of requests
    selector = await traffic.select(request, model, attributes.version)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE:
        raise UnsupportedMediaType("Forms are not supported here. Send the file as the body.")
    media_type = await bodies.content_type(request, *MEDIA_TYPES)
    received = bodies.received_of(request)
    accepted = select_media_type(request.headers.get("accept"), _ACCEPTED)
    if media_type == bodies.JSON:
        response = await _predict_json(request, selector, attributes, accepted)
    elif media_type == NDJSON.media_type and are_positional_lines(beginning(received.head, content_encoding(request))):
        response = await _predict_json(request, selector, attributes, accepted, are_lines=True)
    else:
        response = await _predict_table(request, selector, attributes, media_type, accepted)
    if ATTRIBUTES in request.headers:  # SageMaker returns no other header of a container to the client.
        response.headers[ATTRIBUTES] = f"model={model},version={response.headers[VERSION]}"
    return response


async def _predict_json(
    request: Request, selector: VersionSelector, attributes: Attributes, media_type: str, *, are_lines: bool = False
) -> Response:
    options, accepted = PredictionOptions(), media_type

    def decode(body: bytes, version: Version, max_rows: int) -> DecodedBody:
        nonlocal options, accepted
        features = [column.name for column in version.table.features]
        if are_lines:
            query = decode_lines(body, features, attributes, max_rows)
        else:
            query, is_frame = decode_invocation(body, features, attributes, max_rows)
            accepted = bodies.JSON if is_frame else media_type
        options = query.options
        check_options(version, TableOptions(options))
        result_names(version, TableOptions(options))
        return DecodedBody(query)

    def encode(result: PredictionResult, _: object) -> Response:
        return Response(results.encode(result, options, accepted), media_type=accepted)

    return await predict_json(request, selector, decode, encode)


async def _predict_table(
    request: Request, selector: VersionSelector, attributes: Attributes, media_type: str, accepted: str
) -> Response:
    table_format = BY_MEDIA_TYPE[media_type]
    prediction = merge_options(attributes, None, "null")
    reading = bodies.with_encoding(request, table_format, ReadingOptions())

    def format_for(version: Version) -> CsvOfModel:
        return CsvOfModel([column.name for column in version.table.features])

    return await predict_file(
        request,
        selector,
        table_format,
        lambda: TableRequest(TableOptions(prediction, reading=reading)),
        accepted,
        result_format=results.result_format(accepted, prediction),
        format_for=format_for if table_format is CSV else None,
    )


def _target_model(request: Request, default: str) -> str:
    """Return the name of the model in SageMaker's header, which is the path of an archive there."""
    return (single_header(request, TARGET_MODEL) or default).rpartition("/")[2].removesuffix(".tar.gz")


_PROBE: dict[str, Any] = {
    "response_class": PlainTextResponse,
    "responses": error_responses(InvocationError, open_to_all=True),
}


@router.get("/ping", name="ping", summary="Check that the default model is loaded, as SageMaker does", **_PROBE)
@router.get("/health", name="health", summary="Check that the default model is loaded, as MLflow does", **_PROBE)
async def ping(request: Request) -> Response:
    await health.ready(request)
    return PlainTextResponse("\n")


@router.get("/version", name="mlflowVersion", summary="Return the version of MLflow's protocol", **_PROBE)
async def version() -> Response:
    return PlainTextResponse(MLFLOW_VERSION)
