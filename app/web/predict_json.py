"""Predictions for rows in a JSON body, in this service's own format or a foreign one.

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
from app.prediction.encoding import Recorded
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
    """A query, and the ids of its rows if the body has them beside the rows."""

    query: PredictionQuery
    ids: object = None  # Not checked yet.


# Function that decodes a body, given the largest number of rows. Raises MalformedBody or InvalidInput.
Decode: TypeAlias = Callable[[bytes, int], DecodedBody]
Encode: TypeAlias = Callable[[PredictionResult, Recorded | None], bytes]

T = TypeVar("T")

_RECORDS = re.compile(rb"\s*\[\s*\{")  # beginning of an array of objects, which is a table's rows alone

_OTHER_BRACKETS = 3  # Brackets of a body that belong to no row: of the body and of its two lists.


async def predict_json(request: Request, selector: VersionSelector, decode: Decode, encode: Encode) -> Response:
    """Read a JSON body, predict, and respond in JSON."""
    services = get_services(request)
    body = await bodies.read_body(request, services.max_json_bytes)
    executor = choose_executor(Workload(body_bytes=len(body)))
    if executor is not Executor.INLINE:
        return await run_in(executor, services, partial(_decode_and_predict, request, selector, body, decode, encode))
    decoded = decode(body, services.max_instances)
    version = await selector.resolve_async()
    job = _job(decoded, version)
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
    # Count brackets before decoding, because invalid rows would take many times their length in memory. A valid row has
    # one pair.
    message = f"At most {max_rows} instances fit into one request. Send them in several requests, or as a table."
    too_many = InvalidInput.at("/instances", message)
    if len(body) > max_rows and has_more_brackets(body, max_rows + _OTHER_BRACKETS):
        raise too_many if is_json(body.removeprefix(BOM_UTF8)) else not_json(body, "")
    if rows := split_records(body):
        payload = PredictRequest(instances=rows)
    elif _RECORDS.match(body) and is_json(body):
        payload = bodies.decode(PredictRequest, b'{"instances":%b}' % body)
    else:
        payload = bodies.decode(PredictRequest, body)
    if len(payload.instances) > max_rows:
        raise too_many
    return payload


def decode_query(body: bytes, max_rows: int) -> DecodedBody:
    """Decode a body of this service's own format to a query. Raises MalformedBody or InvalidInput."""
    payload = decode_request(body, max_rows)
    return DecodedBody(payload.query(), payload.prediction_id)


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
    request: Request, selector: VersionSelector, body: bytes, decode: Decode, encode: Encode
) -> Response:
    services = get_services(request)
    with get_memory(request).reserved(bodies.decoding_bytes(body)):
        decoded, version = decode(body, services.max_instances), selector()
        return _predict(request, _job(decoded, version), encode)


def _predict(request: Request, job: _Job, encode: Encode) -> Response:
    services = get_services(request)
    version, query = job.version, job.query
    if (length := job.work.response_bytes) > MAX_RESPONSE:
        raise InvalidInput.at(
            query.pointer,
            f"The answer would have about {length} bytes, and the limit is {MAX_RESPONSE}. Send fewer instances, or "
            "accept a table.",
        )
    recorded = None
    with get_memory(request).reserved(job.bytes):
        if job.ids is None:
            result = Predictor(version, services.monitor).predict(query)
        else:
            result, bounds = predict(query, version, services.monitor)
            recorded = record(services, version, job.ids, result.predictions, bounds)
        content = encode(result, recorded)
    get_memory(request).reserve(len(content))
    services.metrics.predicted(len(query.rows))
    traffic.answered(request, version, len(query.rows), query, result.predictions)
    headers = None
    if "null" in (query.options.missing, query.options.unknown):
        headers = bodies.missing_rows(result.rows.missing, result.reasons)
    response = Response(content, headers=headers, media_type=bodies.JSON)
    response.headers[VERSION] = str(version.card.version)
    return response
