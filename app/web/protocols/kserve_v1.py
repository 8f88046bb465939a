"""KServe's protocol v1, which is also TensorFlow Serving's REST API.

A prediction is a number for a model with one target, and a list in the order of the targets for any other: the values
of one output tensor, whether the rows are objects or arrays.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import Response

from app.data.columns.options import Kind
from app.errors import InvalidInput, NoCurrentVersion, Unavailable
from app.prediction.encoding import Recorded, encode_document
from app.prediction.predictor import PredictionResult
from app.registry.version_file import Version
from app.web import bodies, traffic
from app.web.auth import AccessScope, require_scope
from app.web.middleware import QuietRoute
from app.web.predict_json import DecodedBody, predict_json
from app.web.protocols.base import Calls
from app.web.protocols.instances import (
    InstancesSchema,
    decode,
    elements,
    result_document,
    rows_of_columns,
    with_explanation,
)
from app.web.query import ModelName, VersionNumber
from app.web.schemas.openapi_schema import DocumentedAs, Row, Schema
from app.web.schemas.predict import Extrapolation, PredictOptions
from app.web.schemas.problems import error_responses
from app.web.state import get_memory, get_services
from app.web.version_headers import MIN_VERSION_PARAMETER, STICKY_PARAMETER, VERSION_HEADER

_TYPES: dict[Kind, str] = {"number": "DT_DOUBLE", "boolean": "DT_BOOL", "date": "DT_STRING", "category": "DT_STRING"}


class _Name(StringConvertor):
    """A segment without the verb that a colon begins, so that paths with a verb have methods of their own."""

    regex = "[^/:]+"


register_url_convertor("name", _Name())

router = APIRouter(tags=["KServe v1"])


class KServeV1Request(InstancesSchema):
    """Rows as `instances`, or their columns as `inputs`."""

    instances: Annotated[list[Any] | None, DocumentedAs(list[Row] | None)] = None
    """The rows: objects by feature name, or arrays in the model's feature order. In an object, an array of one value
    counts as that value."""
    inputs: Annotated[Any, DocumentedAs(dict[str, list[Any]] | list[Row] | None)] = None
    """The columns: an object with an array of values for each feature. An array has rows, as in `instances`. The
    predictions are then in `outputs`."""
    signature_name: str | None = None
    """Ignored, because a model has one signature."""
    parameters: PredictOptions | None = None
    """Options, as in this service's own format."""

    def rows(self) -> tuple[list[Any], str]:
        if (self.instances is None) == (self.inputs is None):
            raise InvalidInput("Expected either `instances`, an array of rows, or `inputs`, an object of columns.")
        if self.instances is not None:
            return self.instances, "/instances"
        if isinstance(self.inputs, dict):
            return rows_of_columns(self.inputs, "/inputs"), "/inputs"
        if isinstance(self.inputs, list):
            return self.inputs, "/inputs"
        raise InvalidInput.at("/inputs", "Expected an object of columns, or an array of rows.")

    def options(self, _: Version) -> PredictOptions:
        return self.parameters or PredictOptions()


class KServeV1Response(Schema):
    """A prediction is a number if the model has one target, otherwise an array in the order of the targets."""

    predictions: list[Any] | None = None
    """An element for each of the `instances`. Its numbers are null if a value of the row is missing."""
    outputs: list[Any] | None = None
    """An element for each row of `inputs`."""
    intervals: list[Any] | None = None
    """For each row [lower, upper], or an array of them for each target."""
    confidence_intervals: list[Any] | None = None
    """The same for the expected value."""
    explanations: list[dict[str, dict[str, float | None]]] | None = None
    """For each row, by target, the contribution of each feature. With the baseline they sum to the prediction."""
    baseline: dict[str, float] | None = None
    """The prediction for the mean of the training rows, by target."""
    extrapolation: list[Extrapolation | None] | None = None
    recorded: bool | None = None
    """Only with ids: true if the predictions were recorded on disk."""
    unavailable: dict[str, str] | None = None
    """Requested results that are not available, with the reasons."""


class KServeV1Error(Schema):
    error: str = Field(examples=['There is no model "tomatoes". GET /v1/models lists the models.'])


class KServeV1Models(Schema):
    models: list[str] = Field(examples=[["crop-yield"]])


class TensorFlowStatus(Schema):
    error_code: Literal["OK"] = "OK"
    error_message: Literal[""] = ""


class TensorFlowVersion(Schema):
    version: str = Field(examples=["1"])
    state: Literal["AVAILABLE"] = "AVAILABLE"
    status: TensorFlowStatus = TensorFlowStatus()


class KServeV1Model(Schema):
    name: str = Field(examples=["crop-yield"])
    ready: bool = Field(examples=[True])
    model_version_status: list[TensorFlowVersion] | None = None
    """The versions in TensorFlow Serving's form, the newest first. Only for clients that may read models."""


class KServeV1Metadata(Schema):
    model_spec: dict[str, str] = Field(examples=[{"name": "crop-yield", "signature_name": "", "version": "1"}])
    metadata: dict[str, Any]
    """The features as inputs and the targets as outputs of one signature, in TensorFlow Serving's form."""


EXAMPLES: dict[str, Any] = {
    "Two rows as objects": {
        "instances": [
            {"temp": 73, "rainfall": 67, "humidity": 43},
            {"temp": 91, "rainfall": 88, "humidity": 64},
        ]
    },
    "A row as an array, with an interval": {"instances": [[75, 63, 44]], "parameters": {"interval": 0.95}},
    "Two rows as columns": {"inputs": {"temp": [73, 91], "rainfall": [67, 88], "humidity": [43, 64]}},
}

_ROUTE: dict[str, Any] = {
    "response_model": KServeV1Response,
    "dependencies": [require_scope(AccessScope.PREDICT)],
    "openapi_extra": {
        **bodies.openapi_request_body(KServeV1Request, EXAMPLES),
        "parameters": [MIN_VERSION_PARAMETER, STICKY_PARAMETER],
    },
    "responses": {
        200: {"description": "Predictions, row by row.", "headers": {"Linserve-Version": VERSION_HEADER}},
        **error_responses(KServeV1Error, 404, 413, 415, 422),
    },
}
_READ: dict[str, Any] = {
    "dependencies": [require_scope(AccessScope.READ)],
    "responses": error_responses(KServeV1Error, 404, 422),
}
_PROBE: dict[str, Any] = {
    "response_model_exclude_none": True,
    "responses": error_responses(KServeV1Error, 404, 422, open_to_all=True),
}

predictions = APIRouter(route_class=QuietRoute)


@predictions.post(
    "/v1/models/{model:name}:predict", name="predictV1", summary="Predict, for clients of KServe v1", **_ROUTE
)
async def predict(request: Request, model: ModelName) -> Response:
    return await _predict(request, model)


@predictions.post(
    "/v1/models/{model}/versions/{version:name}:predict",
    name="predictVersionV1",
    summary="Predict with any version, for clients of TensorFlow Serving",
    **_ROUTE,
)
async def predict_with_version(request: Request, model: ModelName, version: VersionNumber) -> Response:
    return await _predict(request, model, version)


@predictions.post(
    "/v1/models/{model:name}:explain",
    name="explainV1",
    summary="Predict and explain, for clients of KServe v1",
    **_ROUTE,
)
async def explain(request: Request, model: ModelName) -> Response:
    return await _predict(request, model, explain=True)


@predictions.post(
    "/v1/models/{model}/versions/{version:name}:explain",
    name="explainVersionV1",
    summary="Predict and explain with any version, for clients of KServe v1",
    **_ROUTE,
)
async def explain_with_version(request: Request, model: ModelName, version: VersionNumber) -> Response:
    return await _predict(request, model, version, explain=True)


router.include_router(predictions)


async def _predict(request: Request, model: str, version: int | None = None, *, explain: bool = False) -> Response:
    selector = await traffic.select(request, model, version)
    member = "predictions"

    def decode_body(body: bytes, loaded: Version, max_rows: int) -> DecodedBody:
        nonlocal member
        decoded = decode(KServeV1Request, body, loaded, max_rows)
        if decoded.query.pointer == "/inputs":
            member = "outputs"
            get_memory(request).reserve(bodies.ROW_BYTES * len(decoded.query.rows))  # The rows are made from columns.
        return with_explanation(decoded) if explain else decoded

    def encode(result: PredictionResult, recorded: Recorded | None) -> Response:
        document = {member: elements(result.predictions), **result_document(result, recorded)}
        return Response(encode_document(document), media_type=bodies.JSON)

    return await predict_json(request, selector, decode_body, encode)


@router.get("/v1/models", name="listModelsV1", summary="List the names of models, for clients of KServe v1", **_READ)
def list_models(request: Request) -> KServeV1Models:
    return KServeV1Models(models=get_services(request).registry.models())


@router.get("/v1/models/{model:name}", name="modelReadyV1", summary="Check that a model can predict", **_PROBE)
def model_ready(request: Request, model: ModelName) -> KServeV1Model:
    registry = get_services(request).registry
    try:
        registry.current(model)
    except NoCurrentVersion as error:
        raise Unavailable(error.message) from None
    return _status(request, model, sorted(registry.versions(model), reverse=True))


@router.get(
    "/v1/models/{model}/versions/{version:name}",
    name="versionReadyV1",
    summary="Check that a version of a model can predict",
    **_PROBE,
)
def version_ready(request: Request, model: ModelName, version: VersionNumber) -> KServeV1Model:
    get_services(request).registry.version(model, version)
    return _status(request, model, [version])


def _status(request: Request, model: str, versions: list[int]) -> KServeV1Model:
    """Return that the model is ready. Probes need no key, but only clients that may read models get the versions."""
    access = get_services(request).access
    status = None
    if not access.has_keys or access.allows(request.scope["headers"], AccessScope.READ):
        status = [TensorFlowVersion(version=str(version)) for version in versions]
    return KServeV1Model(name=model, ready=True, model_version_status=status)


@router.get(
    "/v1/models/{model}/metadata",
    name="getMetadataV1",
    summary="Read the features and targets of a model, for clients of TensorFlow Serving",
    **_READ,
)
def get_metadata(request: Request, model: ModelName) -> KServeV1Metadata:
    return _metadata(get_services(request).registry.current(model))


@router.get(
    "/v1/models/{model}/versions/{version}/metadata",
    name="getVersionMetadataV1",
    summary="Read the features and targets of a version, for clients of TensorFlow Serving",
    **_READ,
)
def get_version_metadata(request: Request, model: ModelName, version: VersionNumber) -> KServeV1Metadata:
    return _metadata(get_services(request).registry.version(model, version))


def _metadata(version: Version) -> KServeV1Metadata:
    targets = version.model.targets
    signature = {
        "inputs": {feature.name: _tensor(feature.name, _TYPES[feature.kind], []) for feature in version.table.features},
        "outputs": {"predictions": _tensor(",".join(targets), "DT_DOUBLE", [len(targets)] if len(targets) > 1 else [])},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    return KServeV1Metadata(
        model_spec={"name": version.card.model, "signature_name": "", "version": str(version.card.version)},
        metadata={"signature_def": {"signature_def": {"serving_default": signature}}},
    )


def _tensor(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
    """Return the description of a tensor whose first dimension is the number of rows; `shape` has the others."""
    sizes = [{"size": str(size), "name": ""} for size in (-1, *shape)]
    return {"dtype": dtype, "tensor_shape": {"dim": sizes, "unknown_rank": False}, "name": name}


class KServeV1:
    name = "kserve-v1"
    router = router
    schemas: tuple[type[BaseModel], ...] = (KServeV1Request, KServeV1Error)
    calls: Calls = (("GET /models", "GET /v1/models"),)

    def render_error(self, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        # KServe's client reads only errors with exactly this content type.
        return Response(orjson.dumps({"error": problem["detail"]}), problem["status"], headers, bodies.JSON)
