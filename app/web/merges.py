"""Receive the version files of a merge, and submit its job."""

import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.errors import FieldError, InvalidInput, UnsupportedMediaType
from app.jobs.job import Job
from app.registry.names import MODEL_NAME, MODEL_NAME_RULE
from app.storage.memory_budget import LARGE_BODY
from app.training.merge_plan import plan_merge
from app.training.request import TrainingRequest
from app.training.version_files import VersionFilesWriter
from app.web import bodies
from app.web.multipart import MEDIA_TYPE as FORM
from app.web.query import read_query
from app.web.receiving import SLICE_BYTES, ReceivedUpload, received_upload, store_part
from app.web.schemas.merge import MergeOptions
from app.web.state import Services, get_memory
from app.web.version_form import version_parts

VERSION_TYPE = "application/vnd.linserve.version"
OCTETS = "application/octet-stream"
MEDIA_TYPES = (OCTETS, VERSION_TYPE, FORM)


async def submit_versions(services: Services, request: Request, model: str, job_id: str) -> Job:
    """Store the version files of a request, check them and submit their job."""
    options = read_query(request, MergeOptions)
    media_type = _media_type(request)
    if not re.fullmatch(MODEL_NAME, model):
        raise InvalidInput.of_parameter("model", MODEL_NAME_RULE)
    jobs, uploads = services.jobs, services.jobs.uploads
    length = bodies.content_length(request)
    uploads.check_room(length)
    await run_in_threadpool(jobs.check_room, job_id)
    digest = hashlib.sha256(f"{model} {options.model_dump_json()}".encode())
    with received_upload(uploads) as upload:
        with uploads.open_new(upload.name) as file:
            chunks = uploads.admit(bodies.iter_body(request, services.max_upload_bytes), length)
            content_type = request.headers["content-type"]
            parts = version_parts(content_type, chunks) if media_type == FORM else _whole(chunks)
            with get_memory(request).reserved(2 * SLICE_BYTES):
                await _write(parts, VersionFilesWriter(file), digest)
            await run_in_threadpool(uploads.sync, file)
        draft = options.to_request(model=model, upload=upload.name, fingerprint=digest.hexdigest())
        size = uploads.path(upload.name).stat().st_size
        async with services.large_body_limiter.slot() if size > LARGE_BODY else contextlib.nullcontext():
            return await run_in_threadpool(_submit, services, request, upload, draft, job_id)


def _media_type(request: Request) -> str:
    """Return the media type of the body. Raises UnsupportedMediaType."""
    given = request.headers.getlist("content-type")
    media_type = given[0].partition(";")[0].strip().lower() if len(given) == 1 else ""
    if media_type in MEDIA_TYPES:
        return media_type
    message = (
        f"Content-Type has to be {', '.join(MEDIA_TYPES[:-1])} or {FORM}, for version files as `GET "
        "/models/{model}/versions/{version}/file` has them. Send one with: curl --data-binary @FILE "
        f"-H 'Content-Type: {OCTETS}'"
    )
    raise UnsupportedMediaType(message, [FieldError(message, parameter="Content-Type")])


async def _whole(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """Yield the body as one file; nothing if it is empty."""
    is_first = True
    async for chunk in chunks:
        if chunk and is_first:
            yield None
            is_first = False
        yield chunk


async def _write(parts: AsyncIterator[bytes | None], writer: VersionFilesWriter, digest: Any) -> None:
    """Write the files, and hash them, SLICE_BYTES at a time."""
    joined = bytearray()

    async def flush() -> None:
        nonlocal joined
        content, joined = joined, bytearray()
        await store_part(writer.write, content, digest)

    async for part in parts:
        if part is None:
            await flush()
            writer.begin()
            digest.update(b"\0file\0")
            continue
        joined += part
        if len(joined) >= SLICE_BYTES:
            await flush()
    await flush()
    writer.end()


def _submit(services: Services, request: Request, upload: ReceivedUpload, draft: TrainingRequest, job_id: str) -> Job:
    jobs, uploads = services.jobs, services.jobs.uploads
    upload.take()
    with uploads.remove_on_error(draft.upload):
        if job := jobs.find_repeated(job_id, draft.fingerprint):
            uploads.discard(draft.upload)
            return job
        training = plan_merge(
            draft,
            uploads.path(draft.upload),
            services.registry,
            services.min_merge_rows,
            partial(_reserved, request),
        )
    uploads.hand_over(draft.upload)
    return jobs.submit(training, job_id)


def _reserved(request: Request, count: int) -> contextlib.AbstractContextManager[object]:
    return get_memory(request).reserved(count)
