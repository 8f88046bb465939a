"""Receive outcomes, and match them to the recorded predictions."""

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app.data.batch import Body
from app.data.columns.schema import PLAIN, Column, Dialect, TableSchema
from app.data.formats import BY_MEDIA_TYPE, check_options
from app.data.formats.base import TableFormat
from app.data.json_rows import has_more_brackets, is_json
from app.data.json_tables import split_records
from app.data.outcome_rows import OutcomeBatch, OutcomeColumns, outcomes_of_file, outcomes_of_json
from app.errors import InvalidInput, NoCurrentVersion
from app.monitoring.outcomes.records import Matches, OutcomeRows
from app.prediction.estimates import TABLE_BYTES
from app.prediction.predictor import Executor, Workload, choose_executor
from app.web import bodies
from app.web.decompression import content_encoding
from app.web.hints import not_json
from app.web.predict_json import run_in
from app.web.query import read_query
from app.web.schemas.actuals import ActualsParameters, ActualsRequest
from app.web.spooling import decompressed_body, spool_body, table_workload
from app.web.state import get_memory, get_services

MEDIA_TYPES = (bodies.JSON, *BY_MEDIA_TYPE)

_OTHER_BRACKETS = 2  # Opening brackets of a body that belong to no row.


class _Source(NamedTuple):
    """A file of outcomes, and how the text of the training rows was read."""

    content: Body
    table_format: TableFormat
    known: Dialect


async def match_request(request: Request, model: str) -> dict[str, Any]:
    """Return the answer to POST /models/{model}/actuals. If a row is invalid, nothing is stored."""
    media_type = await bodies.content_type(request, *MEDIA_TYPES)
    table_format = BY_MEDIA_TYPE.get(media_type)
    services = get_services(request)
    schema = await run_in_threadpool(_schema, request, model)
    if table_format is None:
        await bodies.complete_form(request, services.max_json_bytes)
    form = bodies.received_of(request).form
    parameters = read_query(request, ActualsParameters, form)
    check_options(table_format, parameters.reading())
    if table_format is None:
        return await _match_json(request, model, schema, parameters)
    encoding = content_encoding(request)
    async with contextlib.AsyncExitStack() as stack:
        chunks = bodies.iter_limited(request, services.max_upload_bytes)
        body = await stack.enter_async_context(spool_body(request, chunks))
        parameters = read_query(request, ActualsParameters, form)
        if choose_executor(table_workload(body, table_format, encoding)) is Executor.TURN:
            await stack.enter_async_context(services.large_body_limiter.slot())
        content = await stack.enter_async_context(decompressed_body(request, body, encoding))
        stack.enter_context(get_memory(request).reserved(TABLE_BYTES))
        source = _Source(content, table_format, PLAIN if schema is None else schema.dialect)

        def match() -> dict[str, Any]:
            columns = _columns(request, model, schema, parameters.prediction_id)
            return _match_file(request, model, columns, source, parameters)

        return await run_in_threadpool(match)


def _schema(request: Request, model: str) -> TableSchema | None:
    """Return the columns of the current version; None if no version is current. Raises ModelNotFound."""
    registry = get_services(request).registry
    registry.versions(model)
    try:
        return registry.current(model).table
    except NoCurrentVersion:
        return None


def _columns(request: Request, model: str, schema: TableSchema | None, ids: str) -> OutcomeColumns:
    """Return the columns of outcomes: the targets of the current version, and those of recorded predictions."""
    targets = {} if schema is None else {column.name: column for column in schema.targets}
    for names in get_services(request).outcomes.targets(model).values():
        for name in names:
            targets.setdefault(name, Column(name))
    if not targets:
        raise InvalidInput("No version of the model is current, and no predictions are recorded. Promote a version.")
    others = frozenset() if schema is None else {column.name for column in schema.features}
    return OutcomeColumns(list(targets.values()), frozenset(others), ids)


async def _match_json(
    request: Request, model: str, schema: TableSchema | None, parameters: ActualsParameters
) -> dict[str, Any]:
    services = get_services(request)
    body = await bodies.read_body(request, services.max_json_bytes)

    def match() -> dict[str, Any]:
        with get_memory(request).reserved(bodies.decoding_bytes(body)):
            payload = _decode(body, services.max_instances)
            columns = _columns(request, model, schema, parameters.prediction_id)
            batch = outcomes_of_json(payload.actuals, columns, "/actuals")
            return _match(request, model, [batch], replace=payload.replace or parameters.replace)

    # Never on the event loop, because it waits for the database.
    executor = choose_executor(Workload(body_bytes=len(body), tables=1))
    return await run_in(executor, services, match)


def _decode(body: bytes, max_rows: int) -> ActualsRequest:
    """Decode a body: a request, or its rows alone. Raises MalformedBody or InvalidInput."""
    too_many = InvalidInput.at(
        "/actuals", f"At most {max_rows} outcomes fit into one request. Send them in several requests, or as a table."
    )
    if len(body) > max_rows and has_more_brackets(body, max_rows + _OTHER_BRACKETS):
        raise too_many if is_json(body) else not_json(body, "")
    if rows := split_records(body):
        payload = ActualsRequest(actuals=rows)
    elif body.lstrip().startswith(b"[") and is_json(body):
        payload = bodies.decode(ActualsRequest, b'{"actuals":%b}' % body)
    else:
        payload = bodies.decode(ActualsRequest, body)
    if len(payload.actuals) > max_rows:
        raise too_many
    return payload


def _match_file(
    request: Request, model: str, columns: OutcomeColumns, source: _Source, parameters: ActualsParameters
) -> dict[str, Any]:
    content, table_format, known = source
    reading = bodies.with_encoding(request, table_format, parameters.reading())
    memory = get_memory(request)
    memory.reserve(table_format.metadata_bytes(content))
    limit = get_services(request).max_upload_bytes
    memory.reserve(table_format.check_size(content, [columns.ids, *columns.names], limit))
    read = partial(outcomes_of_file, content, table_format, columns, reading, known)
    for _ in read():  # All rows, because nothing is stored if one is at fault.
        pass
    return _match(request, model, read(), replace=parameters.replace)


def _match(request: Request, model: str, batches: Iterable[OutcomeBatch], *, replace: bool) -> dict[str, Any]:
    """Match all rows, and return the answer."""
    matches, rows = Matches(), 0
    match: Callable[..., None] = get_services(request).outcomes.match
    for batch in batches:
        match(model, OutcomeRows(batch.ids, batch.targets, batch.values), matches, replace=replace)
        rows += len(batch.ids)
    return {
        "model": model,
        "rows": rows,
        "matched": matches.matched,
        "repeated": matches.repeated,
        "replaced": matches.replaced,
        "different": {"rows": matches.different, "prediction_ids": matches.different_ids},
        "unknown": {"rows": matches.unknown, "prediction_ids": matches.unknown_ids},
        "without_values": matches.without_values,
        "versions": {str(version): count for version, count in sorted(matches.versions.items())},
    }
