"""Receive a file into temporary storage, and inspect it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.data.batch import Source
from app.data.content import explained
from app.data.formats import check_options
from app.data.formats.arrow import ARROW
from app.data.formats.base import TableFormat
from app.data.formats.file_set import known_format
from app.data.formats.ndjson import NDJSON
from app.data.json_tables import is_table, json_table_to_arrow
from app.errors import not_stored
from app.storage.memory_budget import Reservation
from app.storage.temp import TempFile
from app.training.inspection import inspect_file
from app.training.json_rows import rows_to_inspect
from app.training.request import TrainingRequest
from app.training.source_rows import first_files, local_copies
from app.training.sources import resolve_quickly
from app.web import bodies
from app.web.receiving import SLICE_BYTES, Watch, store_part, unwatched
from app.web.schemas.inspection import InspectRequest, inspection_to_view
from app.web.schemas.train import SourceRequest, TrainingOptions
from app.web.schemas.train_query import check_early
from app.web.state import Services, get_memory
from app.web.submissions import check_no_options, names_source, read_options

PROFILE_BYTES = 1 << 24  # Bytes of the batches that are read, estimated.


async def inspect_body(
    services: Services, request: Request, table_format: TableFormat | None, watch: Watch = unwatched
) -> dict[str, Any]:
    """Return the answer to POST /inspect. A body of JSON has no table format.

    `watch` is entered while the stored file is inspected.
    """
    try:
        with services.scratch.open(bodies.content_length(request)) as file:
            if table_format is None:
                return await _inspect_json(services, request, file, watch)
            check_early(request.query_params, bodies.received_of(request).form)
            async for part in bodies.regroup(bodies.iter_body(request, services.max_upload_bytes), SLICE_BYTES):
                await store_part(file.write, part)
            options = read_options(request, table_format)
            draft = _draft(services, options, table_format)
            draft = replace(draft, reading=bodies.with_encoding(request, table_format, draft.reading))
            if warning := bodies.received_of(request).warning:
                draft = replace(draft, warnings=(warning,))
            async with services.large_body_limiter.slot():
                return await _inspect_file(services, request, options, draft, file.path, watch=watch)
    except OSError as error:
        raise not_stored("The rows", error) from error


async def _inspect_json(services: Services, request: Request, file: TempFile, watch: Watch) -> dict[str, Any]:
    memory = get_memory(request)
    body = await bodies.read_body(request, services.max_json_bytes)
    async with services.large_body_limiter.slot():
        with memory.reserved(bodies.decoding_bytes(body)):
            if names_source(body):
                check_no_options(request)
                return await run_in_threadpool(_inspect_source, services, memory, body)
            options, draft = await run_in_threadpool(_write_json, services, request, body, file)
        return await _inspect_file(services, request, options, draft, file.path, watch=watch)


async def _inspect_file(
    services: Services, request: Request, options: TrainingOptions, draft: TrainingRequest, path: Path, *, watch: Watch
) -> dict[str, Any]:
    def inspect() -> dict[str, Any]:
        with watch(path, draft):
            return _inspect(services, get_memory(request), options, draft, path)

    return await run_in_threadpool(inspect)


def _draft(services: Services, options: TrainingOptions, table_format: TableFormat) -> TrainingRequest:
    return options.to_request(default_model=services.default_model, upload="", format=table_format.name, fingerprint="")


def _write_json(
    services: Services, request: Request, body: bytes, file: BinaryIO
) -> tuple[TrainingOptions, TrainingRequest]:
    """Write the rows of a JSON body, a request or a table, to the file. Return their options, and the draft."""
    if is_table(body):
        table = read_options(request, ARROW)
        json_table_to_arrow(body, file)
        return table, _draft(services, table, ARROW)
    check_no_options(request)
    options = bodies.decode(InspectRequest, body)
    current = None if options.model is None else services.registry.current(options.model)
    draft, rows = rows_to_inspect(_draft(services, options, NDJSON), options, current)
    rows.write(file)
    return options, draft


def _inspect_source(services: Services, memory: Reservation, body: bytes) -> dict[str, Any]:
    """Inspect the first files of a source, with as many bytes as an upload may have."""
    options = bodies.decode(SourceRequest, body)
    files = resolve_quickly(options.source, services.sources, options.format)
    check_options(files.table_format, options.reading())
    first = first_files(files, services.max_upload_bytes)
    draft = _draft(services, options, files.table_format)
    if len(first.files) < len(files.files):
        warning = f"Only the first {len(first.files)} of {len(files.files)} files were read."
        draft = replace(draft, warnings=(*draft.warnings, warning))
    with local_copies(first, services.scratch, services.max_upload_bytes) as rows:
        return _inspect(services, memory, options, draft, rows)


def _inspect(
    services: Services, memory: Reservation, options: TrainingOptions, draft: TrainingRequest, source: Source
) -> dict[str, Any]:
    version = None if options.model is None else services.registry.current(options.model)
    table_format = known_format(draft.format, source)
    with explained(source, table_format):
        size = table_format.metadata_bytes(source)
    with memory.reserved(size + PROFILE_BYTES):
        inspection = inspect_file(draft, source, version, services.max_upload_bytes, memory.reserve)
        number = None if version is None else version.card.version
        return inspection_to_view(inspection, options.model, number)
