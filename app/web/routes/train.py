"""POST /train: rows in, a durable job out."""

import contextlib

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.data.formats import BY_MEDIA_TYPE, LABELS
from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.job_response import IdempotencyKey, Prefer, job_response, new_job_id
from app.web.schemas.jobs import JobView
from app.web.schemas.openapi_schema import made_later
from app.web.schemas.problems import problem_responses
from app.web.schemas.train import CSV_EXAMPLE, EXAMPLES
from app.web.schemas.train_query import query_parameters
from app.web.state import get_services
from app.web.submissions import submit_file, submit_json

router = APIRouter(tags=["Train"], dependencies=[require_scope(AccessScope.TRAIN)])


@router.post(
    "/train",
    name="train",
    summary="Train a new version",
    description=(
        "Records a training job and answers at once; with `Prefer: wait=10` it waits for up to 10 seconds for the job "
        "to end. Once answered, the job survives any crash. Rows come as JSON, or as a file: "
        f"{LABELS}, plain or with a Content-Encoding of gzip, deflate or zstd. A JSON body with `source` names "
        "files in a bucket or on the service's machine instead, if the operator allows it. If the model "
        "exists, its new version has the columns of the current one, unless the request names its features or has "
        "`schema: infer`."
    ),
    status_code=202,
    response_model=JobView,
    openapi_extra=made_later(
        lambda: {
            **bodies.openapi_request_body("TrainBody", EXAMPLES, csv_example=CSV_EXAMPLE, options=query_parameters()),
            "parameters": query_parameters(),
        }
    ),
    responses={
        200: {"model": JobView, "description": "The job ended while the request waited for it."},
        **problem_responses(404, 409, 413, 415, 422, 429, 507),
    },
)
async def train(request: Request, _prefer: Prefer = None, idempotency_key: IdempotencyKey = None) -> Response:
    services = get_services(request)
    job_id = new_job_id(idempotency_key)
    # The key is refused from here on, because finding the content type may read the beginning of the body.
    with services.jobs.uploads.exclusive(job_id) if idempotency_key else contextlib.nullcontext():
        if not request.headers.get("content-type", "").startswith(bodies.JSON):
            services.jobs.uploads.check_room(bodies.content_length(request))  # before a byte of the file is awaited
        media_type = await bodies.content_type(request, bodies.JSON, *BY_MEDIA_TYPE)
        if media_type == bodies.JSON:
            job = await submit_json(services, request, job_id)
        else:
            job = await submit_file(services, request, BY_MEDIA_TYPE[media_type], job_id)
    return await job_response(request, job)
