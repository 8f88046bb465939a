"""POST /predict and its siblings: rows in, predictions out."""

from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.data.formats import FileFormat
from app.data.json_rows import are_objects, kept_columns, to_matrix, to_objects, without_kept
from app.data.part import Part
from app.errors import InvalidInput
from app.registry.choice import Choice
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array
from app.web import bodies
from app.web.access import Right
from app.web.errors import problems
from app.web.guard import needs
from app.web.negotiation import acceptable
from app.web.parameters import ModelName, Rows, VersionNumber
from app.web.predict_tables import (
    FORMATS,
    TableOptions,
    answer_table,
    options_of,
    query_parameters,
    read_table,
    received,
)
from app.web.services import Services, services

router = APIRouter(tags=["Predict"], dependencies=[needs(Right.PREDICT)])

LARGE_BODY = 1 << 16  # bytes from which decoding would hold up other requests for milliseconds
MOST_PRODUCTS = 20_000  # of a value and a weight, likewise


class PredictRequest(BaseModel):
    """Rows to predict for, all objects or all arrays (then in the model's feature order)."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    instances: Rows = Field(min_length=1)
    interval: float | None = Field(None, gt=0, lt=1, description="Level of the prediction intervals to add.")
    confidence: float | None = Field(
        None, gt=0, lt=1, description="Level of the confidence intervals of the expected value to add."
    )
    explain: bool = Field(False, description="Add what each feature contributes to each prediction.")
    extrapolation: bool = Field(False, description="Add how far each row is from the training rows.")


class Extrapolation(BaseModel):
    leverage: float | None = Field(description="null where a row leaves the space that the training rows span.")
    outside: list[str] = Field(description="Features, or terms, outside their range in training.")
    flag: bool = Field(description="Something is outside, or the leverage exceeds 3 (p + 1) / n.")


class PredictResponse(BaseModel):
    """Objects for objects, arrays (in the model's target order) for arrays; options add a parallel list each."""

    model: str
    version: int
    predictions: list[dict[str, float | str | bool | None]] | list[list[float]] = Field(
        description="Beside the targets, with `keep`: the columns that are kept."
    )
    intervals: list[Any] | None = Field(None, description="[lower, upper] for each target of each row.")
    confidence_intervals: list[Any] | None = Field(None, description="Likewise, of the expected value.")
    baseline: Any = Field(None, description="The prediction for the mean of the training rows.")
    contributions: list[Any] | None = Field(
        None, description="For each target and feature; with the baseline they sum to the prediction."
    )
    extrapolation: list[Extrapolation] | None = None
    unavailable: dict[str, str] | None = Field(None, description="What was asked for and cannot be given, and why.")


EXAMPLES: dict[str, Any] = {
    "Two rows as objects": {
        "instances": [
            {"temp": 73, "rainfall": 67, "humidity": 43},
            {"temp": 91, "rainfall": 88, "humidity": 64},
        ]
    },
    "A row as an array": {"instances": [[75, 63, 44]]},
    "With intervals, explanation and extrapolation": {
        "instances": [{"temp": 75, "rainfall": 63, "humidity": 44}],
        "interval": 0.95,
        "explain": True,
        "extrapolation": True,
    },
}

CSV_EXAMPLE = "temp,rainfall,humidity\n73,67,43\n91,88,64\n"

DESCRIPTION = (
    "Rows come as JSON or as a table: CSV, NDJSON, an Arrow IPC stream or Parquet, its columns in any order, plain or "
    "with a Content-Encoding of gzip or zstd. The answer has the format that Accept names, by default that of the rows."
)

_ROUTE: dict[str, Any] = {
    "response_model": PredictResponse,
    "response_model_exclude_none": True,
    "description": DESCRIPTION,
    "openapi_extra": {
        **bodies.documented(PredictRequest, EXAMPLES, csv_example=CSV_EXAMPLE),
        "parameters": query_parameters(),
    },
    "responses": {200: bodies.documented_answer(), **problems(404, 406, 413, 415, 422, 507)},
}


@router.post("/predict", name="predict", summary="Predict with the default model's current version", **_ROUTE)
async def predict(request: Request) -> Response:
    found = services(request)
    return await _answer(request, Choice(found.registry, found.default_model))


@router.post(
    "/models/{model}/predict", name="predictWithModel", summary="Predict with a model's current version", **_ROUTE
)
async def predict_with_model(request: Request, model: ModelName) -> Response:
    return await _answer(request, Choice(services(request).registry, model))


@router.post(
    "/models/{model}/versions/{version}/predict",
    name="predictWithVersion",
    summary="Predict with any version of a model",
    **_ROUTE,
)
async def predict_with_version(request: Request, model: ModelName, version: VersionNumber) -> Response:
    return await _answer(request, Choice(services(request).registry, model, version))


async def _answer(request: Request, choose: Choice) -> Response:
    kind = bodies.content_type(request, *FORMATS)
    out = acceptable(request.headers.get("accept"), [kind, *(other for other in FORMATS if other != kind)])
    options = options_of(request.query_params)
    if kind != bodies.JSON:
        return await _predict_file(request, bodies.FILES[kind], out, choose, options)
    found = services(request)
    body = await bodies.read(request, found.limits.json_bytes)
    if out != bodies.JSON or request.query_params:
        return await run_in_threadpool(_predict_rows_as_table, body, out, choose, options, found)
    if len(body) > LARGE_BODY:
        asked = await run_in_threadpool(bodies.decode, PredictRequest, body)
        return await run_in_threadpool(_predict, asked, await choose.promptly(), found)
    asked = bodies.decode(PredictRequest, body)
    version = await choose.promptly()
    # The first of these for a version decomposes its design, which takes seconds for thousands of features.
    long = asked.interval is not None or asked.confidence is not None or asked.extrapolation or asked.explain
    if long or len(asked.instances) * version.model.weights.size > MOST_PRODUCTS:
        return await run_in_threadpool(_predict, asked, version, found)
    return _predict(asked, version, found)


async def _predict_file(
    request: Request, form: FileFormat, out: str, choose: Choice, options: TableOptions
) -> Response:
    found = services(request)
    spool = found.jobs.spool
    async with received(request, found.limits.upload_bytes, spool) as source:
        version = await choose.promptly()
        parts = read_table(source, form, version, options, found.limits.upload_bytes)
        answer, rows = await run_in_threadpool(
            answer_table, parts, version, options, out, found=found, first_row=2 if form == "csv" else 1
        )
    found.metrics.predicted(rows)
    return answer


def _predict_rows_as_table(body: bytes, out: str, choose: Choice, options: TableOptions, found: Services) -> Response:
    """Rows that came as JSON, answered as a table."""
    asked = bodies.decode(PredictRequest, body)
    _check_count(asked, found)
    if asked.model_fields_set - {"instances"}:
        raise InvalidInput("Beside a table for an answer, options stand in the query and not in the body.")
    version = choose()
    rows = without_kept(asked.instances, options.keep, "/instances")
    x = to_matrix(rows, version.model.features, "/instances")
    part = Part(x, kept_columns(asked.instances, options.keep))
    answer, _ = answer_table(iter([part]), version, options, out, found=found)
    found.metrics.predicted(len(x))
    return answer


def _check_count(asked: PredictRequest, found: Services) -> None:
    if len(asked.instances) > found.limits.instances:
        raise InvalidInput.at("/instances", f"At most {found.limits.instances} instances fit into one request.")


def _predict(asked: PredictRequest, version: Version, found: Services) -> Response:
    _check_count(asked, found)
    model = version.model
    x = to_matrix(asked.instances, model.features, "/instances")
    objects = are_objects(asked.instances)
    answer: dict[str, Any] = {
        "model": version.card.model,
        "version": version.card.version,
        "predictions": _predictions(model, x, objects=objects),
    }
    levels = {"intervals": asked.interval, "confidence_intervals": asked.confidence}
    for name, level in levels.items():
        if level is None:
            continue
        if model.no_intervals is None:
            intervals = model.interval(x, level, of_mean=name == "confidence_intervals")
            answer[name] = _shaped(intervals, model, objects=objects)
        else:
            answer[name] = None
            answer.setdefault("unavailable", {})[name] = model.no_intervals
    if asked.explain:
        answer["baseline"] = _shaped(model.mean_prediction[np.newaxis], model, objects=objects)[0]
        answer["contributions"] = _shaped(model.contributions(x), model, objects=objects, by_feature=True)
    if asked.extrapolation:
        answer["extrapolation"] = _extrapolation(model, x)
    found.metrics.predicted(len(x))
    return bodies.json_response(answer)


def _predictions(model: LinearModel, x: Array, *, objects: bool) -> Any:
    predictions = model.predict(x)
    return orjson.Fragment(to_objects(predictions, model.targets)) if objects else np.ascontiguousarray(predictions)


def _shaped(values: Array, model: LinearModel, *, objects: bool, by_feature: bool = False) -> Any:
    """(m, k, ...) as it is, or as an object by target for each row; then by feature below that, if it is."""
    if not objects:
        return np.ascontiguousarray(values)
    return [
        {
            target: dict(zip(model.columns, value, strict=True)) if by_feature else value
            for target, value in zip(model.targets, row, strict=True)
        }
        for row in values.tolist()
    ]


def _extrapolation(model: LinearModel, x: Array) -> list[dict[str, Any]]:
    found = model.extrapolation(x)
    return [
        {
            "leverage": float(leverage) if np.isfinite(leverage) else None,
            "outside": [name for name, is_outside in zip(model.columns, outside, strict=True) if is_outside],
            "flag": bool(flag),
        }
        for leverage, outside, flag in zip(found.leverage, found.outside, found.flag, strict=True)
    ]
