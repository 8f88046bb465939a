"""Receive the rows of a training, as JSON or as a file, and submit its job.

An upload is on disk, or in the store if there is one, before its job is recorded. So an acknowledged job never lacks
its rows.
"""

import codecs
import contextlib
import hashlib
from dataclasses import replace
from typing import Any, BinaryIO

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.data.content import explained
from app.data.formats import BY_NAME, check_options
from app.data.formats.arrow import ARROW
from app.data.formats.base import TableFormat
from app.data.formats.file_set import FileSetFormat
from app.data.json_tables import is_table, json_table_to_arrow
from app.data.names import MAX_NAME_LENGTH
from app.data.training_rows import MATRIX
from app.errors import InvalidInput
from app.jobs.host.devices import check_device
from app.jobs.job import Job
from app.storage.memory_budget import LARGE_BODY, Reservation
from app.training.initial_coefficients import detach
from app.training.json_rows import plan_rows
from app.training.planner import plan_file
from app.training.request import TrainingRequest
from app.training.source_rows import file_set
from app.training.sources import resolve_quickly
from app.web import bodies
from app.web.receiving import SLICE_BYTES, ReceivedUpload, Watch, received_upload, store_part, unwatched
from app.web.schemas.train import FileOptions, SourceRequest, TrainRequest
from app.web.schemas.train_query import check_early, from_query
from app.web.state import Services, get_memory


async def submit_json(services: Services, request: Request, job_id: str, watch: Watch = unwatched) -> Job:
    """Read a JSON body, a request or a table, and submit its job. `watch` is entered while a table is planned."""
    body = await bodies.read_body(request, services.max_json_bytes)
    memory = get_memory(request)
    async with services.large_body_limiter.slot() if len(body) > LARGE_BODY else contextlib.nullcontext():
        with memory.reserved(bodies.decoding_bytes(body)):
            if await run_in_threadpool(names_source, body):
                check_no_options(request)
                return await run_in_threadpool(_submit_source, services, memory, body, job_id)
            if await run_in_threadpool(is_table, body):
                return await run_in_threadpool(_submit_table, services, request, body, job_id, watch)
            check_no_options(request)
            return await run_in_threadpool(_submit_json, services, body, job_id)


def names_source(body: bytes) -> bool:
    """Return True if a JSON body has a `source` instead of rows."""
    if b'"source"' not in body:
        return False
    try:
        request = orjson.loads(body.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError:
        return False
    return isinstance(request, dict) and "source" in request and "instances" not in request


def check_no_options(request: Request) -> None:
    """Raise InvalidInput if there are options outside of a JSON body with instances."""
    form = bodies.received_of(request).form
    if name := next(iter([*request.query_params, *(name for name, _ in form.given), *form.options]), None):
        place = "query" if request.query_params else "form"
        raise InvalidInput.of_parameter(
            name[:MAX_NAME_LENGTH],
            f"With a JSON body, options are expected in the body, but were found in the {place}. Move them.",
        )


def _submit_table(services: Services, request: Request, body: bytes, job_id: str, watch: Watch) -> Job:
    """Submit the job of a JSON table, which is stored as an Arrow stream."""
    jobs, uploads = services.jobs, services.jobs.uploads
    options = read_options(request, ARROW)
    jobs.check_room(job_id)
    uploads.check_room(len(body))
    with received_upload(uploads) as upload:
        with uploads.open_new(upload.name) as file:
            digest = _digest(request, ARROW)
            digest.update(body)
            json_table_to_arrow(body, file)
            uploads.sync(file)
        draft = options.to_request(
            default_model=services.default_model,
            upload=upload.name,
            format=ARROW.name,
            fingerprint=_fingerprint(request, digest),
        )
        return _submit_upload(services, get_memory(request), upload, draft, job_id, watch=watch)


def _submit_json(services: Services, body: bytes, job_id: str) -> Job:
    jobs, uploads = services.jobs, services.jobs.uploads
    fingerprint = hashlib.sha256(body).hexdigest()
    if job := jobs.find_repeated(job_id, fingerprint):
        return job
    jobs.check_room(job_id)
    options = bodies.decode(TrainRequest, body)
    draft = options.to_request(
        default_model=services.default_model, upload=uploads.new(), format=MATRIX, fingerprint=fingerprint
    )
    training, rows = plan_rows(draft, options, services.registry)
    check_device(services.capabilities, training.solver.device)
    uploads.check_room(rows.size)
    with uploads.open_new(training.upload) as file:
        training = detach(training, uploads)
        rows.write(file)
        uploads.sync(file)
    uploads.hand_over(training.upload)
    return jobs.submit(training, job_id)


def _submit_source(services: Services, memory: Reservation, body: bytes, job_id: str) -> Job:
    """Submit the job of files that are read from where they are. The first one is read for its columns."""
    jobs = services.jobs
    fingerprint = hashlib.sha256(body).hexdigest()
    if job := jobs.find_repeated(job_id, fingerprint):
        return job
    jobs.check_room(job_id)
    options = bodies.decode(SourceRequest, body)
    files = resolve_quickly(options.source, services.sources, options.format)
    check_options(files.table_format, options.reading())
    draft = options.to_request(
        default_model=services.default_model, upload=jobs.uploads.new(), format=files.format, fingerprint=fingerprint
    )
    rows = file_set(files, wait=None)
    with memory.reserved(FileSetFormat(files.table_format).metadata_bytes(rows)):
        training = plan_file(draft, rows, services.registry, services.max_upload_bytes)
    check_device(services.capabilities, training.solver.device)
    return jobs.submit(training, job_id)


async def submit_file(
    services: Services,
    request: Request,
    table_format: TableFormat,
    job_id: str,
    watch: Watch = unwatched,
) -> Job:
    """Store a file, and submit its job. `watch` is entered while the stored file is planned."""
    check_early(request.query_params, bodies.received_of(request).form)
    digest = _digest(request, table_format)
    jobs, uploads = services.jobs, services.jobs.uploads
    await run_in_threadpool(jobs.check_room, job_id)
    with received_upload(uploads) as upload:
        with uploads.open_new(upload.name) as file:
            await _receive(services, request, file, digest)
            options = read_options(request, table_format)
            await run_in_threadpool(uploads.sync, file)
        draft = options.to_request(
            default_model=services.default_model,
            upload=upload.name,
            format=table_format.name,
            fingerprint=_fingerprint(request, digest),
        )
        received = bodies.received_of(request)
        draft = replace(
            draft,
            reading=bodies.with_encoding(request, table_format, draft.reading),
            warnings=(*draft.warnings, *([received.warning] if received.warning else [])),
        )
        memory = get_memory(request)
        return await run_in_threadpool(_submit_upload, services, memory, upload, draft, job_id, watch=watch)


def read_options(request: Request, table_format: TableFormat) -> FileOptions:
    """Return the options of a table, which are in the query and in a form that was read."""
    options = from_query(request.query_params, bodies.received_of(request).form)
    check_options(table_format, options.reading())
    return options


def _digest(request: Request, table_format: TableFormat) -> Any:
    """Return a hash of the format and the query, to which the rows are added."""
    return hashlib.sha256(str((table_format.name, sorted(request.query_params.multi_items()))).encode())


def _fingerprint(request: Request, digest: Any) -> str:
    """Return the hash of a request from that of its query and rows. Fields of other names may be in any order."""
    rows: str = digest.hexdigest()
    form = bodies.received_of(request).form
    if not form:
        return rows
    fields = sorted(form.fields, key=lambda item: item[0])
    return hashlib.sha256(str((rows, fields, form.options)).encode()).hexdigest()


async def _receive(services: Services, request: Request, file: BinaryIO, digest: Any) -> None:
    """Write the body to the file, and hash it."""
    chunks = bodies.iter_body(request, services.max_upload_bytes)
    length = bodies.content_length(request)
    with get_memory(request).reserved(2 * min(length or SLICE_BYTES, SLICE_BYTES)):
        async for part in bodies.regroup(services.jobs.uploads.admit(chunks, length), SLICE_BYTES):
            await store_part(file.write, part, digest)


def _submit_upload(
    services: Services,
    memory: Reservation,
    upload: ReceivedUpload,
    draft: TrainingRequest,
    job_id: str,
    *,
    watch: Watch = unwatched,
) -> Job:
    jobs, uploads, table_format = services.jobs, services.jobs.uploads, BY_NAME[draft.format]
    upload.take()
    path = uploads.path(draft.upload)
    with uploads.remove_on_error(draft.upload):
        if job := jobs.find_repeated(job_id, draft.fingerprint):
            uploads.discard(draft.upload)
            return job
        with watch(path, draft):
            with explained(path, table_format):
                size = table_format.metadata_bytes(path)
            with memory.reserved(size):
                training = plan_file(draft, path, services.registry, services.max_upload_bytes)
        check_device(services.capabilities, training.solver.device)
    uploads.hand_over(draft.upload)
    return jobs.submit(training, job_id)
