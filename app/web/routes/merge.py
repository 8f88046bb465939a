"""POST /models/{model}/merge: version files of other sites in, a durable job out."""

import contextlib

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.web.auth import AccessScope, require_scope
from app.web.job_response import IdempotencyKey, Prefer, job_response, new_job_id
from app.web.merges import OCTETS, VERSION_TYPE, submit_versions
from app.web.multipart import MEDIA_TYPE as FORM
from app.web.query import ModelName, query_parameters
from app.web.schemas.jobs import JobView
from app.web.schemas.merge import MergeOptions
from app.web.schemas.openapi_schema import made_later
from app.web.schemas.problems import problem_responses
from app.web.state import get_services

router = APIRouter(tags=["Train"], dependencies=[require_scope(AccessScope.TRAIN)])

_FILE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        "required": ["file"],
    }
}


@router.post(
    "/models/{model}/merge",
    name="mergeVersions",
    summary="Merge versions of other sites",
    description=(
        "Adds the rows of version files from other services, or takes them out again, without the rows: a version's "
        "statistics are enough for the exact model of all rows together. The body is one file, or a form with several. "
        "Features, targets, terms and kinds have to be the same; levels are united. Records a training job, as "
        "`POST /train`. If the model has no current version, the first file gives the columns of a new one."
    ),
    status_code=202,
    response_model=JobView,
    openapi_extra=made_later(
        lambda: {
            "requestBody": {"required": True, "content": {OCTETS: _FILE, VERSION_TYPE: _FILE, FORM: _FORM}},
            "parameters": query_parameters(MergeOptions),
        }
    ),
    responses={
        200: {"model": JobView, "description": "The job ended while the request waited for it."},
        **problem_responses(400, 404, 409, 413, 415, 422, 429, 507),
    },
)
async def merge(
    request: Request, model: ModelName, _prefer: Prefer = None, idempotency_key: IdempotencyKey = None
) -> Response:
    services = get_services(request)
    job_id = new_job_id(idempotency_key)
    with services.jobs.uploads.exclusive(job_id) if idempotency_key else contextlib.nullcontext():
        job = await submit_versions(services, request, model, job_id)
    return await job_response(request, job)
