"""POST /train: rows in, a durable job out."""

import contextlib
import dataclasses
import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from fastapi import APIRouter, Header, Request
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.data.content import explained
from app.data.formats import BY_MEDIA_TYPE, LABELS, check_header
from app.data.formats.base import TableFormat
from app.data.groups import split_groups
from app.data.json_rows import as_rows, first_rounded_rows, to_column, to_matrix
from app.data.names import MAX_NAME_LENGTH
from app.data.rounding import rounding_warnings
from app.data.training_rows import MATRIX, write_matrix
from app.data.weights import first_fault
from app.errors import FieldError, InvalidInput
from app.jobs.job import Job
from app.regression.sufficient_statistics import WeightKind
from app.storage.memory_budget import LARGE_BODY
from app.training.inheritance import weight_kind
from app.training.initial_coefficients import detach
from app.training.planner import (
    build_training_request,
    columns_of_file,
    current_version,
    index_left_out,
    index_warnings,
    names_of_rows,
)
from app.web import bodies
from app.web.auth import AccessScope
from app.web.dependencies import require_scope
from app.web.path_prefix import prefix
from app.web.preferences import preferences
from app.web.problems import problem_responses
from app.web.routes.jobs import wait_for
from app.web.schemas.jobs import JobView, job_to_view
from app.web.schemas.train import FileOptions, TrainRequest, from_query, query_parameters
from app.web.schemas.train_examples import CSV_EXAMPLE, EXAMPLES
from app.web.state import Services, get_services

router = APIRouter(tags=["Train"], dependencies=[require_scope(AccessScope.TRAIN)])

PIECE_BYTES = 1 << 18  # Bytes of an upload hashed and written at a time, in a thread.
_KEYS = uuid.UUID("6b1d6a5e-7d0a-5b0e-9a53-0c0f5f3c7a11")  # namespace of the job ids made from Idempotency-Keys


@router.post(
    "/train",
    name="train",
    summary="Train a new version",
    description=(
        "Records a training job and answers at once; with `Prefer: wait=10` it waits for up to 10 seconds for the job "
        "to end. Once answered, the job survives any crash. Rows come as JSON, or as a file: "
        f"{LABELS}, plain or with a Content-Encoding of gzip or zstd. If the model "
        "exists, its new version has the columns of the current one, unless the request names its features or says "
        "`schema: infer`."
    ),
    status_code=202,
    response_model=JobView,
    openapi_extra={
        **bodies.openapi_request_body(TrainRequest, EXAMPLES, csv_example=CSV_EXAMPLE),
        "parameters": query_parameters(),
    },
    responses={
        200: {"model": JobView, "description": "The job ended while the request waited for it."},
        **problem_responses(404, 409, 413, 415, 422, 429, 507),
    },
)
async def train(
    request: Request,
    _prefer: Annotated[
        str | None,
        Header(
            alias="Prefer",
            description=(
                "`wait=10` waits up to 10 s for the job to end; `respond-async` does not wait. Both together wait. "
                "As in RFC 7240, the first of a name counts, and others are ignored."
            ),
            examples=["wait=10"],
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            description=(
                "The same key with the same request names the same job, for as long as that job can be read: a key is "
                "forgotten with its job, of which the service keeps as many as LINSERVE_MAX_RETAINED_JOBS says. With "
                "another request it is refused (422), and while the first is still being received, too (409)."
            ),
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
        ),
    ] = None,
) -> Response:
    found = get_services(request)
    kind = await bodies.content_type(request, bodies.JSON, *BY_MEDIA_TYPE)
    job_id = str(uuid.uuid5(_KEYS, idempotency_key) if idempotency_key else uuid.uuid4())
    with found.jobs.spool.exclusive(job_id) if idempotency_key else contextlib.nullcontext():
        job = await _recorded(found, request, kind, job_id)
    request.state.job = job.id  # for the log
    preferred = preferences(request.headers.getlist("prefer"))
    wait = min(preferred.wait or 0, found.limits.wait_seconds)
    job = await wait_for(found, job, wait)
    ended = preferred.wait is not None and job.status.ended
    headers = {"location": f"{prefix(request.scope)}/jobs/{job.id}"}
    if applied := preferred.applied(wait, ended=ended):
        headers["preference-applied"] = applied
    return bodies.json_response(job_to_view(job), 200 if ended else 202, headers)


async def _recorded(found: Services, request: Request, kind: str, job_id: str) -> Job:
    if kind == bodies.JSON:
        if request.query_params:
            message = "With a JSON body, options are expected in the body, but were found in the query. Move them."
            name = next(iter(request.query_params))
            raise InvalidInput(message, [FieldError(message, parameter=name[:MAX_NAME_LENGTH])])
        body = await bodies.read_body(request, found.limits.json_bytes)
        async with found.turns.turn() if len(body) > LARGE_BODY else contextlib.nullcontext():
            with found.memory.working(request, bodies.decoding_bytes(body)):
                return await run_in_threadpool(_train_from_json, found, body, job_id)
    return await _train_from_file(found, request, BY_MEDIA_TYPE[kind], job_id)


def _train_from_json(found: Services, body: bytes, job_id: str) -> Job:
    fingerprint = hashlib.sha256(body).hexdigest()
    if job := found.jobs.repeated(job_id, fingerprint):
        return job
    found.jobs.check_room(job_id)
    asked = bodies.decode(TrainRequest, body)
    current = current_version(found, asked)
    features, targets = names_of_rows(asked, current)
    missing = asked.missing == "drop"
    instances: Sequence[Any] = as_rows(asked.instances, features, "/instances", missing=missing)
    rows_of_targets = as_rows(asked.targets, targets, "/targets", missing=missing)
    if len(instances) != len(rows_of_targets):
        raise InvalidInput.at(
            "/targets",
            f"Found {len(rows_of_targets)} rows of targets for {len(instances)} instances. Send one for each.",
        )
    request = build_training_request(
        found,
        asked,
        features=features,
        targets=targets,
        upload=found.jobs.spool.new(),
        form=MATRIX,
        weight=None if asked.sample_weights is None else "sample_weights",
        fingerprint=fingerprint,
    )
    folds = []
    if request.fold_groups is not None and request.groups not in features:
        instances, column = split_groups(instances, request.fold_groups, missing=missing)
        folds.append(column)
    columns = [
        to_matrix(instances, features, "/instances", missing=missing),
        to_matrix(rows_of_targets, targets, "/targets", missing=missing),
    ]
    rounded = first_rounded_rows(instances, features, columns[0])
    rounded |= first_rounded_rows(rows_of_targets, targets, columns[1])
    if asked.sample_weights is not None:
        base = current.card if current and asked.mode != "replace" else None
        columns.append(_weights(asked.sample_weights, len(instances), weight_kind(request, base)))
        rounded |= first_rounded_rows(asked.sample_weights, ["sample_weights"], columns[2])
    columns += folds
    request = dataclasses.replace(request, warnings=tuple(rounding_warnings(rounded)))
    found.jobs.spool.check_room(sum(column.nbytes for column in columns))
    with found.jobs.spool.open_new(request.upload) as file:
        request = detach(request, found.jobs.spool)
        write_matrix(file, *columns)
        found.jobs.spool.sync(file)
    return found.jobs.submit(request, job_id)


def _weights(given: Sequence[Any], rows: int, kind: WeightKind) -> NDArray[np.float64]:
    if len(given) != rows:
        raise InvalidInput.at("/sample_weights", f"Found {len(given)} weights for {rows} instances. Send one for each.")
    weights = to_column(given, "/sample_weights")
    if fault := first_fault(weights, kind):
        raise InvalidInput.at(f"/sample_weights/{fault[0]}", fault[1])
    return weights


async def _train_from_file(found: Services, request: Request, table_format: TableFormat, job_id: str) -> Job:
    options = from_query(request.query_params)
    check_header(table_format, options.header)
    await run_in_threadpool(found.jobs.check_room, job_id)
    digest = hashlib.sha256(str((table_format.name, sorted(request.query_params.multi_items()))).encode())
    upload = found.jobs.spool.new()
    with found.jobs.spool.open_new(upload) as file:
        body = bodies.iter_body(request, found.limits.upload_bytes)
        length = bodies.content_length(request)
        with found.memory.working(request, 2 * min(length or PIECE_BYTES, PIECE_BYTES)):
            async for piece in bodies.gathered(found.jobs.spool.admit(body, length), PIECE_BYTES):
                if len(piece) <= LARGE_BODY:  # A thread would cost more than it saves.
                    _store(file, digest, piece)
                else:
                    await run_in_threadpool(_store, file, digest, piece)
        await run_in_threadpool(found.jobs.spool.sync, file)
    with contextlib.ExitStack() as working:
        with found.jobs.spool.remove_on_error(upload):
            size = await run_in_threadpool(_metadata_bytes, table_format, found.jobs.spool.path(upload))
            working.enter_context(found.memory.working(request, size))
        return await run_in_threadpool(
            _train_from_upload, found, upload, table_format, options, job_id=job_id, fingerprint=digest.hexdigest()
        )


def _metadata_bytes(table_format: TableFormat, path: Path) -> int:
    with explained(path, table_format):
        return table_format.metadata_bytes(path)


def _store(file: BinaryIO, digest: Any, piece: bytearray) -> None:
    """Hash and write a piece, both without the GIL, and meanwhile receive nothing more: predictions come between."""
    digest.update(piece)
    file.write(piece)


def _train_from_upload(
    found: Services, upload: str, table_format: TableFormat, options: FileOptions, *, job_id: str, fingerprint: str
) -> Job:
    with found.jobs.spool.remove_on_error(upload):
        if job := found.jobs.repeated(job_id, fingerprint):
            found.jobs.spool.remove(upload)
            return job
        path = found.jobs.spool.path(upload)
        with explained(path, table_format, options.header):
            names = table_format.column_names(path, options.header)
            current = current_version(found, options)
            index = index_left_out(table_format.index_columns(path), options, current)
            features, targets = columns_of_file(names, table_format, options, current, index)
            others = [name for name in (options.weight, options.division.groups) if name is not None]
            table_format.check_size(path, [*(features or ()), *targets, *others], found.limits.upload_bytes)
        request = build_training_request(
            found,
            options,
            features=features,
            targets=targets,
            upload=upload,
            form=table_format.name,
            weight=options.weight,
            fingerprint=fingerprint,
            header=options.header,
        )
        request = dataclasses.replace(request, warnings=index_warnings(index))
    return found.jobs.submit(request, job_id)
