"""Predictions if the rows or the results are a table: its bytes in memory or in a temporary file."""

import contextlib
import io
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from app.data.batch import Body, RowBatch
from app.data.formats import BY_MEDIA_TYPE
from app.data.formats.base import TableFormat
from app.data.json_encoder import JsonEncoder
from app.data.json_rows import as_rows
from app.errors import InvalidInput, not_stored
from app.prediction.estimates import table_bytes
from app.prediction.predictor import Executor, Workload, choose_executor
from app.prediction.selection import VersionSelector
from app.prediction.tables import TableOptions, TablePrediction, TableRows, batches_of_rows
from app.storage.memory_budget import Reservation
from app.storage.spooled_output import SpooledOutput
from app.web import bodies
from app.web.decompression import IDENTITY, content_encoding
from app.web.predict_json import decode_request, run_in
from app.web.state import get_memory, get_services
from app.web.version_headers import VERSION

MEMORY_BYTES = 1 << 23  # Bytes of a body, or of a response, above which it is in a temporary file.
CHUNK_BYTES = 1 << 18
_CHUNK_OVERHEAD = 64  # Bytes that a chunk takes in addition to its content, which may be one byte.

MEDIA_TYPES = (bodies.JSON, *BY_MEDIA_TYPE)


async def predict_file(
    request: Request,
    selector: VersionSelector,
    table_format: TableFormat,
    read_options: Callable[[], TableOptions],
    media_type: str,
) -> Response:
    """Predict for the rows of a file and respond with a table of this media type.

    `read_options` is called after the body was received, because a form may have options after its file.
    """
    services = get_services(request)
    encoding = content_encoding(request)
    async with contextlib.AsyncExitStack() as stack:
        chunks = bodies.iter_limited(request, services.max_upload_bytes)
        body = await stack.enter_async_context(_spool_body(request, chunks))
        options = read_options()
        if choose_executor(_workload(body, table_format, encoding)) is Executor.TURN:
            await stack.enter_async_context(services.large_body_limiter.slot())
        content = await stack.enter_async_context(_decompress(request, body, encoding))
        version = await selector.resolve_async()
        length = None if isinstance(content, Path) else len(content)
        work = table_bytes(length, version.model, needs_design=options.prediction.needs_design)
        stack.enter_context(get_memory(request).reserved(work))

        def predict() -> Response:
            rows = TableRows(content, table_format, version, options, get_memory(request).reserve)
            return _respond(request, rows.prediction(), rows.batches(services.max_upload_bytes), media_type)

        return await run_in_threadpool(predict)


async def predict_rows(request: Request, selector: VersionSelector, options: TableOptions, media_type: str) -> Response:
    """Predict for rows in a JSON body and respond with a table of this media type."""
    services = get_services(request)
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
            with memory.reserved(table_bytes(len(body), version.model, needs_design=options.prediction.needs_design)):
                prediction = TablePrediction(version, options)
                batches = batches_of_rows(rows, encoder, version, options, prediction.reasons)
                return _respond(request, prediction, batches, media_type)

    return await run_in(choose_executor(Workload(body_bytes=len(body), tables=1)), services, predict)


def _workload(body: Body, table_format: TableFormat, encoding: str) -> Workload:
    """Return the work of decoding a table. The size of one that is compressed, Arrow or Parquet bounds no rows."""
    expands = encoding != IDENTITY or not table_format.is_text
    return Workload(body_bytes=sys.maxsize if expands or isinstance(body, Path) else len(body), tables=1)


class _MemoryShare:
    """The memory for one body or response: up to MEMORY_BYTES, if the budget allows."""

    def __init__(self, memory: Reservation) -> None:
        self._memory = memory
        self._bytes = 0

    def reserve(self, count: int) -> bool:
        """Reserve `count` more bytes and return True, or release all and return False: they have to go to a file."""
        if self._bytes + count <= MEMORY_BYTES and self._memory.try_reserve(count):
            self._bytes += count
            return True
        self._memory.release(self._bytes)
        return False


@contextlib.asynccontextmanager
async def _spool_body(request: Request, chunks: AsyncIterator[bytes]) -> AsyncIterator[Body]:
    """Yield the whole body: bytes, or the path of a temporary file if it is long."""
    services = get_services(request)
    share = _MemoryShare(get_memory(request))
    first: list[bytes] = []
    async for chunk in chunks:
        first.append(chunk)
        if not share.reserve(len(chunk) + _CHUNK_OVERHEAD):
            break
    else:
        content = b"".join(first)
        first.clear()
        yield content
        return
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(services.scratch.open(bodies.content_length(request)))
            await run_in_threadpool(file.writelines, first)
            first.clear()
            async for chunk in chunks:
                file.write(chunk)
        except OSError as error:
            raise not_stored("The rows", error) from error
        yield file.path


@contextlib.asynccontextmanager
async def _decompress(request: Request, body: Body, encoding: str) -> AsyncIterator[Body]:
    """Yield the body without its Content-Encoding. Even a few bytes may expand to many."""
    if encoding == IDENTITY:
        yield body
        return
    file = body.open("rb") if isinstance(body, Path) else io.BytesIO(body)
    compressed = bodies.chunks_of(file, CHUNK_BYTES)
    limit = get_services(request).max_upload_bytes
    async with _spool_body(request, bodies.iter_decompressed(request, compressed, encoding, limit)) as content:
        yield content


def _respond(request: Request, prediction: TablePrediction, batches: Iterator[RowBatch], media_type: str) -> Response:
    """Predict for all batches, then return the response with all of their results."""
    services = get_services(request)
    share = _MemoryShare(get_memory(request))
    output = SpooledOutput(share.reserve, services.scratch.open, services.max_upload_bytes)
    prediction.write(batches, BY_MEDIA_TYPE.get(media_type), output)
    services.metrics.predicted(prediction.rows)
    card = prediction.version.card
    headers = {
        "linserve-model": card.model,
        VERSION: str(card.version),
        **bodies.missing_rows(prediction.missing, prediction.reasons),
    }
    if isinstance(written := output.written(), bytes):
        return Response(written, headers=headers, media_type=media_type)
    headers["content-length"] = str(output.length)
    return StreamingResponse(bodies.chunks_of(written, CHUNK_BYTES), headers=headers, media_type=media_type)
