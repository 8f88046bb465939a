"""POST /predict and its siblings: rows in, predictions out."""

import contextlib
import functools
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.data.batch import RowBatch
from app.data.formats import BY_MEDIA_TYPE, LABELS, check_header
from app.data.formats.base import TableFormat
from app.data.formats.json import MAX_CHUNK_VALUES, to_objects
from app.data.json_faults import MAX_DETAILS, are_objects
from app.data.json_rows import (
    as_rows,
    has_more_brackets,
    is_json,
    kept_columns,
    to_column,
    to_matrix,
    without_kept,
)
from app.errors import FieldError, InvalidInput
from app.prediction.missing_rows import HEADER, CompleteRows
from app.prediction.tables import (
    MEDIA_TYPES,
    NOT_POSITIVE,
    TableOptions,
    answer_table,
    inference_bytes,
    inflated,
    needs_turn,
    no_instance_weights,
    numbers_of,
    options_of,
    query_parameters,
    read_table,
    spool_body,
    work_bytes,
)
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array
from app.storage.memory_budget import LARGE_BODY
from app.web import bodies
from app.web.auth import AccessScope
from app.web.dependencies import require_scope
from app.web.hints import not_json
from app.web.negotiation import select_media_type
from app.web.problems import problem_responses
from app.web.query import ModelName, Rows, VersionNumber
from app.web.schemas.openapi_schema import Row
from app.web.state import Services, get_services
from app.web.version_selector import VersionSelector

router = APIRouter(tags=["Predict"], dependencies=[require_scope(AccessScope.PREDICT)])

MAX_INLINE_MULTIPLIES = (
    20_000  # of a value and a weight, from which predicting would hold up other requests for milliseconds
)
NUMBER_BYTES = 20  # in JSON, about
LARGE_ANSWER = 1 << 22  # bytes from which no more are made at a time than long bodies are decoded
ANSWER_TIMES = 4  # Times its length that a JSON answer takes while it is made.
MAX_ANSWER = 1 << 27  # bytes in JSON: it is in memory until it is sent


class PredictRequest(BaseModel):
    """Rows to predict for, all objects or all arrays (then in the model's feature order).

    A flat list of numbers is one row if the model has several features, and a row for each number if it has one.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    instances: Rows = Field(min_length=1)
    interval: float | None = Field(None, gt=0, lt=1, description="Level of the prediction intervals to add.")
    confidence: float | None = Field(
        None, gt=0, lt=1, description="Level of the confidence intervals of the expected value to add."
    )
    instance_weights: list[Any] | None = Field(
        None,
        description="Precision weight of each instance, positive. An interval is then for an observation of this "
        "weight and not of the mean weight of the training rows. Only with `interval`.",
        json_schema_extra={"items": {"type": "number", "exclusiveMinimum": 0}},
    )
    missing: Literal["refuse", "null"] = Field(
        "refuse",
        description="What is done with an instance in which a value, or its weight, is null. `refuse`: the request is "
        "refused. `null`: its predictions and all else about it are null, and the header `Linserve-Missing-Rows` "
        "counts it.",
    )
    explain: bool = Field(False, description="Add the contribution of each feature to each prediction.")
    extrapolation: bool = Field(False, description="Add how far each row is from the training rows.")


class Extrapolation(BaseModel):
    leverage: float | None = Field(description="null if the row is outside the space that the training rows span.")
    outside: list[str] = Field(description="Features, or terms, outside their range in training.")
    flag: bool = Field(
        description="True if `outside` is not empty, or the leverage exceeds 3 r / n, where r is the rank."
    )


class PredictResponse(BaseModel):
    """Objects for objects, arrays (in the model's target order) for arrays; options add a parallel list each."""

    model: str
    version: int
    predictions: list[Row] = Field(
        description="The predictions and, with `keep`, the kept columns. null for a row in which a value is missing."
    )
    intervals: list[Any] | None = Field(
        None,
        description="For each row an object or an array, as in `predictions`, of [lower, upper] for each target. Both "
        "are null if the row has no interval.",
    )
    confidence_intervals: list[Any] | None = Field(None, description="The same for the expected value.")
    baseline: dict[str, float] | list[float] | None = Field(
        None, description="The prediction for the mean of the training rows."
    )
    contributions: list[dict[str, dict[str, float]] | list[list[float]]] | None = Field(
        None, description="For each target and feature; with the baseline they sum to the prediction."
    )
    extrapolation: list[Extrapolation | None] | None = Field(
        None, description="null for an instance in which a value is missing."
    )
    unavailable: dict[str, str] | None = Field(
        None, description="What was requested and cannot be given, with the reasons."
    )


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
    f"Rows come as JSON or as a table: {LABELS}, its columns in any order, plain "
    "or with a Content-Encoding of gzip or zstd. Besides the features, rows may have the model's targets and the "
    "`unused_columns` of its card, which are ignored; so is the index of a pandas frame in Arrow and Parquet. "
    "The answer has the format that Accept names, by default that of the "
    f"rows. A JSON answer to JSON rows has at most {MAX_ANSWER >> 20} MiB, any other as many bytes as an upload may."
)

_ROUTE: dict[str, Any] = {
    "response_model": PredictResponse,
    "response_model_exclude_none": True,
    "description": DESCRIPTION,
    "openapi_extra": {
        **bodies.openapi_request_body(PredictRequest, EXAMPLES, csv_example=CSV_EXAMPLE),
        "parameters": query_parameters(),
    },
    "responses": {200: bodies.documented_answer(), **problem_responses(404, 406, 413, 415, 422, 507)},
}


@router.post("/predict", name="predict", summary="Predict with the default model's current version", **_ROUTE)
async def predict(request: Request) -> Response:
    found = get_services(request)
    return await _answer(request, VersionSelector(found.registry, found.default_model))


@router.post(
    "/models/{model}/predict", name="predictWithModel", summary="Predict with a model's current version", **_ROUTE
)
async def predict_with_model(request: Request, model: ModelName) -> Response:
    return await _answer(request, VersionSelector(get_services(request).registry, model))


@router.post(
    "/models/{model}/versions/{version}/predict",
    name="predictWithVersion",
    summary="Predict with any version of a model",
    **_ROUTE,
)
async def predict_with_version(request: Request, model: ModelName, version: VersionNumber) -> Response:
    return await _answer(request, VersionSelector(get_services(request).registry, model, version))


async def _answer(request: Request, choose: VersionSelector) -> Response:
    kind = await bodies.content_type(request, *MEDIA_TYPES)
    out = select_media_type(request.headers.get("accept"), [kind, *(other for other in MEDIA_TYPES if other != kind)])
    options = options_of(request.query_params)
    table_format = BY_MEDIA_TYPE.get(kind)
    check_header(table_format, options.header)
    if table_format is not None:
        return await _predict_file(request, table_format, out, choose, options)
    found = get_services(request)
    body = await bodies.read_body(request, found.limits.json_bytes)
    is_long = len(body) > LARGE_BODY
    if out != bodies.JSON or request.query_params:
        as_table = functools.partial(_predict_rows_as_table, request, body, out, choose, options)
        return await _in_thread(found, as_table, waits=is_long)
    if is_long:
        return await _in_thread(found, functools.partial(_predict_long, request, body, choose), waits=True)
    _check_count(body, found)
    asked = _decoded(body, found)
    version = await choose.resolve_async()
    asked = _with_rows(asked, version.model.features)
    # The first of these for a version decomposes its design, which takes seconds for thousands of features.
    decomposes = asked.interval is not None or asked.confidence is not None or asked.extrapolation or asked.explain
    many = len(asked.instances) * version.model.coef.size > MAX_INLINE_MULTIPLIES
    if not many and not decomposes:
        return _predict(request, asked, version)
    waits = many and _answer_bytes(asked, version.model) > LARGE_ANSWER
    return await _in_thread(found, functools.partial(_predict, request, asked, version), waits=waits)


async def _in_thread(found: Services, predict: Callable[[], Response], *, waits: bool) -> Response:
    async with found.turns.turn() if waits else contextlib.nullcontext():
        return await run_in_threadpool(predict)


async def _predict_file(
    request: Request, table_format: TableFormat, out: str, choose: VersionSelector, options: TableOptions
) -> Response:
    found = get_services(request)
    encoding = bodies.encoding_of(request)
    async with contextlib.AsyncExitStack() as stack:
        body = await stack.enter_async_context(
            spool_body(request, found, bodies.packed(request, found.limits.upload_bytes))
        )
        if needs_turn(body, table_format, encoding):
            await stack.enter_async_context(found.turns.turn())
        source = await stack.enter_async_context(inflated(request, found, body, encoding))
        version = await choose.resolve_async()
        size = work_bytes(None if isinstance(source, Path) else len(source), version.model, options)
        stack.enter_context(found.memory.working(request, size))
        parts = read_table(request, source, table_format, version, options)
        first = table_format.first_row(options.header)
        answer, rows = await run_in_threadpool(answer_table, request, parts, version, options, out, first_row=first)
    found.metrics.predicted(rows)
    return answer


def _predict_rows_as_table(
    request: Request, body: bytes, out: str, choose: VersionSelector, options: TableOptions
) -> Response:
    """Rows that came as JSON, answered as a table."""
    found = get_services(request)
    _check_count(body, found)
    with found.memory.working(request, bodies.decoding_bytes(body)):
        asked = _decoded(body, found)
        if asked.model_fields_set - {"instances"}:
            raise InvalidInput(
                "If the answer is a table, options are expected in the query, but were found in the body. Move them."
            )
        version = choose()
        asked = _with_rows(asked, numbers_of(version.model, options), missing=options.missing == "null")
        with found.memory.working(request, work_bytes(len(body), version.model, options)):
            return _rows_as_table(request, asked, version, out, options)


def _rows_as_table(
    request: Request, asked: PredictRequest, version: Version, out: str, options: TableOptions
) -> Response:
    rows = without_kept(asked.instances, options.keep, "/instances")
    if options.instance_weights in options.keep:  # it is read as well
        rows = without_kept(
            asked.instances, [name for name in options.keep if name != options.instance_weights], "/instances"
        )
    numbers, missing = numbers_of(version.model, options), options.missing == "null"
    x = to_matrix(rows, numbers, "/instances", missing=missing, ignored=version.ignored)
    part = RowBatch(x, kept_columns(asked.instances, options.keep))
    answer, _ = answer_table(request, iter([part]), version, options, out)
    get_services(request).metrics.predicted(len(x))
    return answer


def _check_count(body: bytes, found: Services) -> None:
    """Raise InvalidInput, or MalformedBody, if there are more instances than may be, before they are decoded."""
    most = found.limits.instances
    # Besides the body and its two lists only rows have brackets, and each that is right has one pair. Those that are
    # wrong would take very many times their length in memory.
    if len(body) > most and has_more_brackets(body, most + 3):
        raise _too_many(most) if is_json(body.removeprefix(BOM_UTF8)) else not_json(body, "")


def _too_many(most: int) -> InvalidInput:
    return InvalidInput.at(
        "/instances", f"At most {most} instances fit into one request. Send them in several requests, or as a table."
    )


def _decoded(body: bytes, found: Services) -> PredictRequest:
    asked = bodies.decode(PredictRequest, body)
    if len(asked.instances) > found.limits.instances:
        raise _too_many(found.limits.instances)
    return asked


def _with_rows(asked: PredictRequest, names: Sequence[str], *, missing: bool | None = None) -> PredictRequest:
    """Return the request with a list of rows in place of a flat list. Raises InvalidInput for one that is none.

    Whether values may be `missing` is an option of the request, unless it is given.
    """
    if missing is None:
        missing = asked.missing == "null"
    asked.instances = as_rows(asked.instances, names, "/instances", missing=missing)
    return asked


def _predict_long(request: Request, body: bytes, choose: VersionSelector) -> Response:
    found = get_services(request)
    _check_count(body, found)
    with found.memory.working(request, bodies.decoding_bytes(body)):
        asked, version = _decoded(body, found), choose()
        return _predict(request, _with_rows(asked, version.model.features), version)


def _answer_bytes(asked: PredictRequest, model: LinearModel) -> int:
    """About how long the answer becomes."""
    columns, targets = _written(model.columns), _written(model.targets)
    names = are_objects(asked.instances)
    row = NUMBER_BYTES * len(model.targets) + names * targets
    bounds = 2 * NUMBER_BYTES * len(model.targets) + names * targets
    row += bounds * ((asked.interval is not None) + (asked.confidence is not None))
    if asked.explain:
        row += len(model.targets) * (NUMBER_BYTES * len(model.columns) + names * columns) + names * targets
    if asked.extrapolation:
        row += NUMBER_BYTES + columns
    return row * len(asked.instances)


def _written(names: Sequence[str]) -> int:
    return sum(len(name) + len('"":') for name in names)


def _predict(request: Request, asked: PredictRequest, version: Version) -> Response:
    found = get_services(request)
    model = version.model
    if (length := _answer_bytes(asked, model)) > MAX_ANSWER:
        raise InvalidInput.at(
            "/instances",
            f"The answer would have about {length} bytes, and the limit is {MAX_ANSWER}. Send fewer instances, or "
            "accept a table.",
        )
    with found.memory.working(request, ANSWER_TIMES * length + _inference_bytes(asked, model)):
        response = _computed(asked, version)
    found.memory.hold(request, len(response.body))
    found.metrics.predicted(len(asked.instances))
    return response


def _inference_bytes(asked: PredictRequest, model: LinearModel) -> int:
    decomposes = asked.interval is not None or asked.confidence is not None or asked.extrapolation
    return inference_bytes(model) if decomposes else 0


def _computed(asked: PredictRequest, version: Version) -> Response:
    model = version.model
    missing = asked.missing == "null"
    x = to_matrix(asked.instances, model.features, "/instances", missing=missing, ignored=version.ignored)
    weights = _weights(asked, model)
    objects = are_objects(asked.instances)
    complete = CompleteRows.of(x if weights is None else np.column_stack([x, weights]))
    x, weights = complete.taken(x), None if weights is None else complete.taken(weights)
    answer: dict[str, Any] = {
        "model": version.card.model,
        "version": version.card.version,
        "predictions": _predictions(model, complete.spread(lambda: model.predict(x)), objects=objects),
    }
    levels = {"intervals": asked.interval, "confidence_intervals": asked.confidence}
    unavailable = {}
    for name, level in levels.items():
        if level is None:
            continue
        if model.inference_unavailable is not None:
            answer[name] = None
            unavailable[name] = model.inference_unavailable
            continue
        of_mean = name == "confidence_intervals"
        own = None if of_mean else weights
        interval = functools.partial(model.interval, x, level, of_mean=of_mean, observation_weights=own)
        intervals = complete.spread(interval)
        answer[name] = _shaped(intervals, model, objects=objects)
        if reason := _without_bounds(complete.taken(intervals), complete):
            unavailable[name] = reason
    if unavailable:
        answer["unavailable"] = unavailable
    if asked.explain:
        baseline = model.mean_prediction
        answer["baseline"] = dict(zip(model.targets, baseline.tolist(), strict=True)) if objects else baseline
        contributions = complete.spread(lambda: model.contributions(x))
        answer["contributions"] = _shaped(contributions, model, objects=objects, by_feature=True)
    if asked.extrapolation:
        answer["extrapolation"] = _extrapolation(model, x, complete)
    return bodies.json_response(answer, headers={HEADER: str(complete.missing)} if missing else None)


def _weights(asked: PredictRequest, model: LinearModel) -> Array | None:
    """Return the instances' own weights, (m,), if there are any. Raises InvalidInput with their places."""
    if asked.instance_weights is None:
        return None
    pointer = "/instance_weights"
    if asked.interval is None:
        raise InvalidInput.at(pointer, "Instance weights are only for prediction intervals. Add `interval`.")
    if refused := no_instance_weights(model):
        raise InvalidInput.at(pointer, refused)
    if len(asked.instance_weights) != len(asked.instances):
        raise InvalidInput.at(
            pointer,
            f"Expected one weight for each instance ({len(asked.instances)}), found {len(asked.instance_weights)}.",
        )
    weights = to_column(asked.instance_weights, pointer, missing=asked.missing == "null")[:, 0]
    if (weights <= 0).any():
        places = np.flatnonzero(weights <= 0)[:MAX_DETAILS].tolist()
        details = [FieldError(NOT_POSITIVE, pointer=f"{pointer}/{place}") for place in places]
        raise InvalidInput("Not all instance weights are positive.", details)
    return weights


def _without_bounds(intervals: Array, complete: CompleteRows) -> str | None:
    """Return why some of the complete rows have no bounds, and which they are; None if all have."""
    rows = np.flatnonzero(np.isnan(intervals).any(axis=(1, 2)))
    if not len(rows):
        return None
    places = ", ".join(str(complete.place(row)) for row in rows[:MAX_DETAILS].tolist())
    places += ", ..." if len(rows) > MAX_DETAILS else ""
    return f"{len(rows)} row(s) outside the space that the training rows span: /instances/{places}."


def _predictions(model: LinearModel, predictions: Array, *, objects: bool) -> Any:
    return orjson.Fragment(to_objects(predictions, model.targets)) if objects else np.ascontiguousarray(predictions)


def _shaped(values: Array, model: LinearModel, *, objects: bool, by_feature: bool = False) -> Any:
    """(m, k, ...) as it is, or as an object by target for each row; then by feature below that, if it is."""
    if not objects:
        return np.ascontiguousarray(values)
    return _joined(
        len(values),
        values[0].size,
        lambda some: [
            {
                target: dict(zip(model.columns, value, strict=True)) if by_feature else value
                for target, value in zip(model.targets, row, strict=True)
            }
            for row in values[some].tolist()
        ],
    )


def _extrapolation(model: LinearModel, x: Array, complete: CompleteRows) -> orjson.Fragment:
    found = model.extrapolation(x)
    places = complete.positions

    def described(row: int) -> dict[str, Any] | None:
        if row < 0:
            return None
        leverage = float(found.leverage[row])
        outside = zip(model.columns, found.outside[row], strict=True)
        return {
            "leverage": leverage if np.isfinite(leverage) else None,
            "outside": [name for name, is_outside in outside if is_outside],
            "flag": bool(found.flag[row]),
        }

    return _joined(len(places), len(model.columns), lambda some: [described(row) for row in places[some].tolist()])


def _joined(rows: int, width: int, objects: Callable[[slice], list[Any]]) -> orjson.Fragment:
    """One list in JSON, made of some rows at a time: as objects they take many times as much memory."""
    at_once = max(1, MAX_CHUNK_VALUES // width)
    pieces = (orjson.dumps(objects(slice(start, start + at_once)))[1:-1] for start in range(0, rows, at_once))
    return orjson.Fragment(b"[%b]" % b",".join(pieces))
