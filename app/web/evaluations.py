"""Evaluate versions on the rows of a request body."""

import asyncio
import contextlib
import threading
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app.data.batch import Body
from app.data.formats import BY_MEDIA_TYPE, check_options
from app.data.formats.base import TableFormat
from app.data.json_rows import has_more_brackets, is_json
from app.data.json_tables import split_records
from app.errors import InvalidInput, MalformedBody
from app.prediction.estimates import table_bytes
from app.prediction.evaluation import (
    MAX_SEGMENTS,
    EvaluationOptions,
    VersionEvaluation,
    check_columns,
    evaluate_rows,
    evaluate_table,
    read_options,
    working_bytes,
)
from app.prediction.predictor import Executor, Workload, choose_executor
from app.prediction.selection import VersionSelector
from app.prediction.tables import TableRows
from app.registry.version_file import Version
from app.storage.memory_budget import Reservation
from app.web import bodies
from app.web.auth import AccessScope
from app.web.decompression import content_encoding
from app.web.hints import not_json
from app.web.query import read_query
from app.web.schemas.evaluation import EvaluateParameters, EvaluateRequest
from app.web.spooling import decompressed_body, spool_body, table_workload
from app.web.state import get_memory, get_services

MEDIA_TYPES = (bodies.JSON, *BY_MEDIA_TYPE)
MAX_METRICS = 20_000  # Versions times targets times segments in a response, which has about 250 bytes for each.

_OTHER_BRACKETS = 3  # Opening brackets of a body that belong to no row: those of the body and of its two lists.


async def evaluate_request(request: Request, model: str, number: int | None = None) -> dict[str, Any]:
    """Return the answer to POST /models/{model}/evaluate, or to that of a version, and record it if it asks for that.

    Raises InvalidInput, and what reading a body raises.
    """
    media_type = await bodies.content_type(request, *MEDIA_TYPES)

    services = get_services(request)

    def parameters() -> EvaluateParameters:
        read = read_query(request, EvaluateParameters, bodies.received_of(request).form)
        if read.record:
            services.access.check(request.scope, AccessScope.TRAIN)
        if number is None:
            return read
        if read.versions:
            raise InvalidInput.of_parameter("versions", "The path names a version. Leave `versions` out.")
        return read.model_copy(update={"versions": [number]})

    evaluation = await evaluate_body(request, model, media_type, parameters)
    if not parameters().record:
        return evaluation
    return await run_in_threadpool(services.evaluations.add, model, evaluation)


async def evaluate_body(
    request: Request, model: str, media_type: str, parameters: Callable[[], EvaluateParameters]
) -> dict[str, Any]:
    """Return the metrics of the versions on the rows of a body. Nothing is stored.

    `parameters` is called before the rows are received, and after them, because those of a form may follow its file.
    A fault in the rows names the version that found it, if there are several.
    """
    table_format = BY_MEDIA_TYPE.get(media_type)
    check_options(table_format, parameters().reading())
    if table_format is None:
        await bodies.complete_form(request, get_services(request).max_json_bytes)
        options, versions = await _read(request, model, parameters())
        results = await _evaluate_json(request, versions, options)
    else:
        async with _spooled(request, table_format) as content:
            options, versions = await _read(request, model, parameters())
            check_options(table_format, options.table.reading)
            reading = bodies.with_encoding(request, table_format, options.table.reading)
            options = replace(options, table=replace(options.table, reading=reading))
            with _departure(request) as check:
                results = await run_in_threadpool(
                    _evaluate_file, request, content, table_format, versions, options, check=check
                )
    return {
        "model": model,
        "by": options.by,
        "level": options.level,
        "weight": options.table.weights,
        "versions": [msgspec.to_builtins(result) for result in results],
    }


async def _read(
    request: Request, model: str, parameters: EvaluateParameters
) -> tuple[EvaluationOptions, list[Version]]:
    """Return the options and the versions. Raises InvalidInput if the options do not fit them."""
    options, registry = parameters.options(), get_services(request).registry
    numbers: Sequence[int | None] = parameters.versions or [None]
    if len(set(numbers)) < len(numbers):
        raise InvalidInput.of_parameter("versions", "A version is named more than once. Name each once.")
    versions = [await VersionSelector(registry, model, number).resolve_async() for number in numbers]
    groups = 1 if options.by is None else MAX_SEGMENTS + 2
    if (count := groups * sum(len(version.model.targets) for version in versions)) > MAX_METRICS:
        message = (
            f"The answer would have the metrics of {count} targets and segments, and the limit is {MAX_METRICS}. "
            "Evaluate fewer versions at once, or leave `by` out."
        )
        raise InvalidInput.of_parameter("versions", message)
    for version in versions:
        with _named(version, versions):
            check_columns(version, options)
    return options, versions


@contextlib.contextmanager
def _named(version: Version, versions: Sequence[Version]) -> Iterator[None]:
    """Name the version in a fault, if there are several."""
    try:
        yield
    except InvalidInput as error:
        if len(versions) == 1:
            raise
        name = f"Version {version.card.version}: "
        details = [replace(detail, message=name + detail.message) for detail in error.details]
        raise InvalidInput(name + error.message, details) from None


async def _evaluate_json(
    request: Request, versions: Sequence[Version], options: EvaluationOptions
) -> list[VersionEvaluation]:
    services, memory = get_services(request), get_memory(request)
    body = await bodies.read_body(request, services.max_json_bytes)

    def evaluate() -> list[VersionEvaluation]:
        with memory.reserved(bodies.decoding_bytes(body)):
            rows = _decode(body, services.max_instances)
            results = []
            for version in versions:
                size = table_bytes(len(body), version.model, needs_design=False)
                size += working_bytes(version.model, by_segment=options.by is not None)
                with _named(version, versions), memory.reserved(size):
                    results.append(evaluate_rows(rows.instances, rows.targets, version, options))
            return results

    async with _turn(request, Workload(body_bytes=len(body), tables=1)):
        return await run_in_threadpool(evaluate)


@contextlib.asynccontextmanager
async def _spooled(request: Request, table_format: TableFormat) -> AsyncIterator[Body]:
    """Yield the whole body, decompressed, after waiting for a turn if it is long."""
    encoding = content_encoding(request)
    async with contextlib.AsyncExitStack() as stack:
        chunks = bodies.iter_limited(request, get_services(request).max_upload_bytes)
        body = await stack.enter_async_context(spool_body(request, chunks))
        await stack.enter_async_context(_turn(request, table_workload(body, table_format, encoding)))
        yield await stack.enter_async_context(decompressed_body(request, body, encoding))


def _evaluate_file(
    request: Request,
    content: Body,
    table_format: TableFormat,
    versions: Sequence[Version],
    options: EvaluationOptions,
    *,
    check: Callable[[], None],
) -> list[VersionEvaluation]:
    results = []
    for version in versions:
        with _named(version, versions):
            results.append(_evaluate_table(request, content, table_format, version, options, check=check))
    return results


def _evaluate_table(
    request: Request,
    content: Body,
    table_format: TableFormat,
    version: Version,
    options: EvaluationOptions,
    *,
    check: Callable[[], None],
) -> VersionEvaluation:
    length = None if isinstance(content, Path) else len(content)
    size = table_bytes(length, version.model, needs_design=False)
    size += working_bytes(version.model, by_segment=options.by is not None)
    # What reading reserves is released before the next version.
    read = Reservation(get_services(request).memory)
    try:
        with get_memory(request).reserved(size):
            rows = TableRows(content, table_format, version, read_options(options), read.reserve)
            return evaluate_table(rows, options, get_services(request).max_upload_bytes, check)
    finally:
        read.release_all()


@contextlib.contextmanager
def _departure(request: Request) -> Iterator[Callable[[], None]]:
    """Yield a function that raises MalformedBody once the client has closed the connection. Any thread may call it."""
    gone = threading.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    def check() -> None:
        if gone.is_set():
            raise MalformedBody("The client closed the connection before the response.")

    watching = asyncio.create_task(watch())
    try:
        yield check
    finally:
        watching.cancel()


@contextlib.asynccontextmanager
async def _turn(request: Request, workload: Workload) -> AsyncIterator[None]:
    """Wait for one of the turns of long requests, if this is one."""
    if choose_executor(workload) is Executor.TURN:
        async with get_services(request).large_body_limiter.slot():
            yield
    else:
        yield


def _decode(body: bytes, max_rows: int) -> EvaluateRequest:
    """Decode a body of JSON: a request, or a table of records or of pandas' `split`.

    Raises MalformedBody or InvalidInput.
    """
    # Counted before decoding, because invalid rows would take many times their length in memory. A valid row has one
    # pair of brackets, and its targets another.
    message = f"At most {max_rows} instances fit into one request. Send them in several requests, or as a table."
    too_many = InvalidInput.at("/instances", message)
    if len(body) > max_rows and has_more_brackets(body, 2 * max_rows + _OTHER_BRACKETS):
        raise too_many if is_json(body.removeprefix(BOM_UTF8)) else not_json(body, "")
    if records := split_records(body):
        rows = EvaluateRequest(instances=records)
    elif body.removeprefix(BOM_UTF8).lstrip().startswith(b"[") and is_json(body.removeprefix(BOM_UTF8)):
        rows = bodies.decode(EvaluateRequest, b'{"instances":%b}' % body.removeprefix(BOM_UTF8))
    else:
        rows = bodies.decode(EvaluateRequest, body)
    if len(rows.instances) > max_rows:
        raise too_many
    return rows
