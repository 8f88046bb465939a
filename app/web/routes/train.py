"""POST /train: rows in, a durable job out."""

import contextlib
import uuid
from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from app.data.formats import BY_MEDIA_TYPE, LABELS
from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.paths import prefix
from app.web.preferences import preferences
from app.web.schemas.jobs import JobView, job_to_view
from app.web.schemas.problems import problem_responses
from app.web.schemas.train import CSV_EXAMPLE, EXAMPLES, TrainRequest
from app.web.schemas.train_query import query_parameters
from app.web.state import get_services
from app.web.submissions import submit_file, submit_json

router = APIRouter(tags=["Train"], dependencies=[require_scope(AccessScope.TRAIN)])

_KEYS = uuid.UUID("6b1d6a5e-7d0a-5b0e-9a53-0c0f5f3c7a11")  # Namespace of the job ids made from Idempotency-Keys.

_Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description=(
            "`wait=10` waits up to 10 s for the job to end; `respond-async` does not wait. Both together wait. "
            "As in RFC 7240, the first of a name counts, and others are ignored."
        ),
        examples=["wait=10"],
    ),
]
_IdempotencyKey = Annotated[
    str | None,
    Header(
        description=(
            "The same key with the same request names the same job, for as long as that job can be read: a key is "
            "forgotten with its job, and the service keeps the newest LINSERVE_MAX_RETAINED_JOBS jobs. With another "
            "request the key is refused (422), and also while the first request is still being received (409)."
        ),
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
    ),
]


@router.post(
    "/train",
    name="train",
    summary="Train a new version",
    description=(
        "Records a training job and answers at once; with `Prefer: wait=10` it waits for up to 10 seconds for the job "
        "to end. Once answered, the job survives any crash. Rows come as JSON, or as a file: "
        f"{LABELS}, plain or with a Content-Encoding of gzip or zstd. If the model "
        "exists, its new version has the columns of the current one, unless the request names its features or has "
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
async def train(request: Request, _prefer: _Prefer = None, idempotency_key: _IdempotencyKey = None) -> Response:
    services = get_services(request)
    job_id = str(uuid.uuid5(_KEYS, idempotency_key) if idempotency_key else uuid.uuid4())
    # The key is refused from here on, because finding the content type may read the beginning of the body.
    with services.jobs.uploads.exclusive(job_id) if idempotency_key else contextlib.nullcontext():
        if not request.headers.get("content-type", "").startswith(bodies.JSON):
            services.jobs.uploads.check_room(bodies.content_length(request))  # before a byte of the file is awaited
        media_type = await bodies.content_type(request, bodies.JSON, *BY_MEDIA_TYPE)
        if media_type == bodies.JSON:
            job = await submit_json(services, request, job_id)
        else:
            job = await submit_file(services, request, BY_MEDIA_TYPE[media_type], job_id)
    request.state.job = job.id  # for the log
    preferred = preferences(request.headers.getlist("prefer"))
    wait = min(preferred.wait or 0, services.max_wait_seconds)
    job = await services.job_watcher.wait_for_end(job, wait)
    ended = preferred.wait is not None and job.status.ended
    headers = {"location": f"{prefix(request.scope)}/jobs/{job.id}"}
    if applied := preferred.applied(wait, ended=ended):
        headers["preference-applied"] = applied
    return bodies.json_response(job_to_view(job), 200 if ended else 202, headers)
