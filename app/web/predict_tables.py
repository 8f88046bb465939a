"""Predictions if the rows or the results are a table: its bytes in memory or in a temporary file."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from app.data.batch import RowBatch
from app.data.formats import BY_MEDIA_TYPE
from app.data.formats.base import ResultFormat, TableFormat
from app.data.json_encoder import JsonEncoder
from app.data.json_rows import as_rows
from app.errors import InvalidInput
from app.prediction.estimates import table_bytes
from app.prediction.predictor import Executor, PredictionResult, Workload, choose_executor
from app.prediction.query import PredictionQuery
from app.prediction.selection import VersionSelector
from app.prediction.tables import TableOptions, TablePrediction, TableRows, batches_of_rows
from app.registry.version_file import Version
from app.storage.spooled_output import SpooledOutput
from app.web import bodies, traffic
from app.web.decompression import content_encoding
from app.web.predict_json import decode_request, run_in
from app.web.recording import TableRecorder, recorded_headers
from app.web.spooling import CHUNK_BYTES, MemoryShare, decompressed_body, spool_body, table_workload
from app.web.state import get_memory, get_services
from app.web.version_headers import VERSION

MEDIA_TYPES = (bodies.JSON, *BY_MEDIA_TYPE)


class TableRequest(NamedTuple):
    """The options of a request for a table, and the column with ids under which its predictions are recorded."""

    options: TableOptions
    ids: str | None = None


async def predict_file(
    request: Request,
    selector: VersionSelector,
    table_format: TableFormat,
    read_options: Callable[[], TableRequest],
    media_type: str,
    *,
    result_format: ResultFormat | None = None,
    format_for: Callable[[Version], TableFormat] | None = None,
) -> Response:
    """Predict for the rows of a file and respond with a table of this media type.

    `read_options` is called after the body was received, because a form may have options after its file. Without
    `result_format`, the media type gives the format of the results. `format_for` returns a format that depends on the
    version, in place of `table_format`.
    """
    services = get_services(request)
    encoding = content_encoding(request)
    async with contextlib.AsyncExitStack() as stack:
        chunks = bodies.iter_limited(request, services.max_upload_bytes)
        body = await stack.enter_async_context(spool_body(request, chunks))
        options, ids = read_options()
        if choose_executor(table_workload(body, table_format, encoding)) is Executor.TURN:
            await stack.enter_async_context(services.large_body_limiter.slot())
        content = await stack.enter_async_context(decompressed_body(request, body, encoding))
        version = await selector.resolve_async()
        length = None if isinstance(content, Path) else len(content)
        work = table_bytes(length, version.model, needs_design=_needs_design(options, ids))
        stack.enter_context(get_memory(request).reserved(work))

        def predict() -> Response:
            read_as = table_format if format_for is None else format_for(version)
            rows = TableRows(content, read_as, version, options, get_memory(request).reserve)
            written_as = media_type, result_format or BY_MEDIA_TYPE.get(media_type)
            return _respond(request, rows.prediction(), rows.batches(services.max_upload_bytes), written_as, ids)

        return await run_in_threadpool(predict)


async def predict_rows(
    request: Request, selector: VersionSelector, table_request: TableRequest, media_type: str
) -> Response:
    """Predict for rows in a JSON body and respond with a table of this media type."""
    services = get_services(request)
    options, ids = table_request
    memory = get_memory(request)
    body = await bodies.read_body(request, services.max_json_bytes)

    def predict() -> Response:
        with memory.reserved(bodies.decoding_bytes(body)):
            payload = decode_request(body, services.max_instances)
            if payload.model_fields_set - {"instances"}:
                raise InvalidInput(
                    "If the answer is a table, options are expected in the query, but were found in the body. Move "
                    "them."
                )
            version = selector()
            encoder = JsonEncoder(options.columns(version.table))
            missing = options.prediction.missing == "null"
            rows = as_rows(payload.instances, encoder.names, "/instances", missing=missing, numbers=encoder.is_plain)
            with memory.reserved(table_bytes(len(body), version.model, needs_design=_needs_design(options, ids))):
                prediction = TablePrediction(version, options)
                batches = batches_of_rows(rows, encoder, version, options, prediction.reasons)
                written_as = media_type, BY_MEDIA_TYPE.get(media_type)
                return _respond(request, prediction, batches, written_as, ids)

    return await run_in(choose_executor(Workload(body_bytes=len(body), tables=1)), services, predict)


def _needs_design(options: TableOptions, ids: str | None) -> bool:
    """Return True if the design matrix of the version has to be decomposed, as for the intervals that are recorded."""
    return options.prediction.needs_design or ids is not None


def _respond(
    request: Request,
    prediction: TablePrediction,
    batches: Iterator[RowBatch],
    written_as: tuple[str, ResultFormat | None],
    ids: str | None,
) -> Response:
    """Predict for all batches, then return the response with all of their results.

    `written_as` is the media type and the format of the results. The predictions are recorded under the ids in the
    column `ids`, if there is one, once all of them are made.
    """
    services = get_services(request)
    media_type, result_format = written_as
    recorder = None
    if ids is not None:
        recorder = TableRecorder(services, prediction, ids, get_memory(request).reserve)
    sample = None if traffic.shadow_of(request) is None else traffic.SampledRows(prediction.version)

    def observe(query: PredictionQuery, kept: Any, result: PredictionResult) -> None:
        if recorder is not None:
            recorder.add(query, kept, result)
        if sample is not None:
            sample.add(query, result.predictions)

    if recorder is not None or sample is not None:
        prediction.observe = observe
    prediction.observer = services.monitor
    share = MemoryShare(get_memory(request))
    output = SpooledOutput(share.reserve, services.scratch.open, services.max_upload_bytes)
    prediction.write(batches, result_format, output)
    services.metrics.predicted(prediction.rows)
    rows = (None, None) if sample is None else sample.collected()
    traffic.answered(request, prediction.version, prediction.rows, *rows)
    card = prediction.version.card
    headers = {
        "linserve-model": card.model,
        VERSION: str(card.version),
        **bodies.missing_rows(prediction.missing, prediction.reasons),
    }
    if recorder is not None:
        headers |= recorded_headers(recorder.record())
    if isinstance(written := output.written(), bytes):
        return Response(written, headers=headers, media_type=media_type)
    headers["content-length"] = str(output.length)
    return StreamingResponse(bodies.chunks_of(written, CHUNK_BYTES), headers=headers, media_type=media_type)
