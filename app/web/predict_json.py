"""Predictions for rows in one body that is kept in memory, in this service's own format or a foreign one.

A wire format decodes the body and encodes the result. The bounds on memory and time are the same for all of them.
"""

import contextlib
import re
from codecs import BOM_UTF8
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.data.json_rows import has_more_brackets, is_json
from app.data.json_tables import split_records
from app.errors import InvalidInput
from app.prediction.encoding import Recorded, encode_result
from app.prediction.estimates import MAX_RESPONSE, rows_bytes, workload
from app.prediction.predictor import Executor, PredictionResult, Predictor, Workload, choose_executor
from app.prediction.query import PredictionQuery
from app.prediction.selection import VersionSelector
from app.registry.version_file import Version
from app.web import bodies, traffic
from app.web.hints import not_json
from app.web.recording import predict, record, take_ids, with_interval
from app.web.schemas.predict import PredictRequest
from app.web.state import Services, get_memory, get_services
from app.web.version_headers import VERSION


class DecodedBody(NamedTuple):
    """A query, and the ids of its rows if the body has them."""

    query: PredictionQuery
    ids: object = None  # Not checked yet.


class BodySize(NamedTuple):
    """The work and the memory that decoding a body takes, if it is not all JSON."""

    text: int  # Bytes of JSON that take as long to decode.
    memory: int  # Bytes that decoding takes, with the decoded values.


# Function that decodes a body for a version, given the largest number of rows. Raises MalformedBody or InvalidInput.
Decode: TypeAlias = Callable[[bytes, Version, int], DecodedBody]
Encode: TypeAlias = Callable[[PredictionResult, Recorded | None], Response]

T = TypeVar("T")

_RECORDS = re.compile(rb"\s*\[\s*\{")  # beginning of an array of objects, which is a table's rows alone

_OTHER_BRACKETS = 3  # Brackets of a body that belong to no row: of the body and of its two lists.


async def predict_json(request: Request, selector: VersionSelector, decode: Decode, encode: Encode) -> Response:
    """Read the body, predict, and respond."""
    body = await bodies.read_body(request, get_services(request).max_json_bytes)
    return await predict_body(request, selector, body, decode, encode)


async def predict_body(
    request: Request,
    selector: VersionSelector,
    body: bytes,
    decode: Decode,
    encode: Encode,
    *,
    size: BodySize | None = None,
) -> Response:
    """Predict for the rows of a body that has been read, and respond. By default, the body is JSON."""
    services = get_services(request)
    executor = choose_executor(Workload(body_bytes=len(body) if size is None else size.text))
    if executor is not Executor.INLINE:
        compute = partial(_decode_and_predict, request, selector, body, decode, encode, size=size)
        return await run_in(executor, services, compute)
    version = await selector.resolve_async()
    job = _job(decode(body, version, services.max_instances), version)
    executor = choose_executor(job.work)
    if job.ids is not None and executor is Executor.INLINE:
        executor = Executor.THREAD  # It waits until the predictions are recorded.
    return await run_in(executor, services, partial(_predict, request, job, encode))


async def run_in(executor: Executor, services: Services, compute: Callable[[], T]) -> T:
    """Call `compute` in the thread that the executor names. Raises WorkerBusy if the wait for a turn is too long."""
    if executor is Executor.INLINE:
        return compute()
    async with services.large_body_limiter.slot() if executor is Executor.TURN else contextlib.nullcontext():
        return await run_in_threadpool(compute)


def decode_request(body: bytes, max_rows: int) -> PredictRequest:
    """Decode a body of this service's own format. Raises MalformedBody or InvalidInput."""
    refuse_many_brackets(body, max_rows)
    if rows := split_records(body):
        payload = PredictRequest(instances=rows)
    elif _RECORDS.match(body) and is_json(body):
        payload = bodies.decode(PredictRequest, b'{"instances":%b}' % body)
    else:
        payload = bodies.decode(PredictRequest, body)
    if len(payload.instances) > max_rows:
        raise too_many_rows(max_rows)
    return payload


def refuse_many_brackets(body: bytes, max_rows: int, brackets: int = 1, *, has_tables: bool = True) -> None:
    """Raise an error if a body of JSON has more rows, each with at most this number of pairs of brackets.

    It is called before decoding, because invalid rows would take many times their length in memory.
    """
    most = max_rows * brackets + _OTHER_BRACKETS
    if len(body) > most and has_more_brackets(body, most):
        is_valid = is_json(body.removeprefix(BOM_UTF8))
        raise too_many_rows(max_rows, has_tables=has_tables) if is_valid else not_json(body, "")


def too_many_rows(max_rows: int, pointer: str = "/instances", *, has_tables: bool = True) -> InvalidInput:
    """Return the error for a body with more rows. With `has_tables`, the format also takes tables."""
    table = ", or as a table" if has_tables else ""
    message = f"At most {max_rows} instances fit into one request. Send them in several requests{table}."
    return InvalidInput.at(pointer, message)


def decode_query(body: bytes, _: Version, max_rows: int) -> DecodedBody:
    """Decode a body of this service's own format to a query. Raises MalformedBody or InvalidInput."""
    payload = decode_request(body, max_rows)
    return DecodedBody(payload.query(), payload.prediction_id)


def encode_json(result: PredictionResult, recorded: Recorded | None = None) -> Response:
    """Return the response in this service's own format."""
    return Response(encode_result(result, recorded), media_type=bodies.JSON)


class _Job(NamedTuple):
    """What to predict, and how much work it is."""

    version: Version
    query: PredictionQuery
    work: Workload
    bytes: int  # Bytes to reserve.
    ids: list[str] | None


def _job(decoded: DecodedBody, version: Version) -> _Job:
    """Read the ids, and estimate the work. Raises InvalidInput."""
    query, ids = take_ids(decoded.query.with_rows(version.encoder), decoded.ids, version)
    computed = query if ids is None else with_interval(query, version)
    work = workload(computed, version.model)
    return _Job(version, query, work, rows_bytes(computed, work, version), ids)


def _decode_and_predict(
    request: Request,
    selector: VersionSelector,
    body: bytes,
    decode: Decode,
    encode: Encode,
    *,
    size: BodySize | None,
) -> Response:
    services = get_services(request)
    with get_memory(request).reserved(bodies.decoding_bytes(body) if size is None else size.memory):
        version = selector()
        return _predict(request, _job(decode(body, version, services.max_instances), version), encode)


def _predict(request: Request, job: _Job, encode: Encode) -> Response:
    services = get_services(request)
    version, query = job.version, job.query
    if (length := job.work.response_bytes) > MAX_RESPONSE:
        raise InvalidInput.at(
            query.pointer,
            f"The answer would have about {length} bytes, and the limit is {MAX_RESPONSE}. Send fewer rows. "
            "POST /predict can also return a table, which may be longer.",
        )
    recorded = None
    with get_memory(request).reserved(job.bytes):
        if job.ids is None:
            result = Predictor(version, services.monitor).predict(query)
        else:
            result, bounds = predict(query, version, services.monitor)
            recorded = record(services, version, job.ids, result.predictions, bounds)
        response = encode(result, recorded)
    get_memory(request).reserve(len(response.body))
    services.metrics.predicted(len(query.rows))
    traffic.answered(request, version, len(query.rows), query, result.predictions)
    if "null" in (query.options.missing, query.options.unknown):
        response.headers.update(bodies.missing_rows(result.rows.missing, result.reasons))
    response.headers[VERSION] = str(version.card.version)
    return response
