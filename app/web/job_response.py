"""The headers of requests that record a job, and the response with the job."""

import uuid
from typing import Annotated, TypeAlias

from fastapi import Header, Request
from starlette.responses import Response

from app.jobs.job import Job
from app.web import bodies
from app.web.paths import prefix
from app.web.preferences import preferences
from app.web.schemas.jobs import job_to_view
from app.web.state import get_services

_KEYS = uuid.UUID("6b1d6a5e-7d0a-5b0e-9a53-0c0f5f3c7a11")  # Namespace of the job ids made from Idempotency-Keys.

Prefer: TypeAlias = Annotated[
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
IdempotencyKey: TypeAlias = Annotated[
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


def new_job_id(idempotency_key: str | None) -> str:
    """Return the id of the job of a request: the same for the same key."""
    return str(uuid.uuid5(_KEYS, idempotency_key) if idempotency_key else uuid.uuid4())


async def job_response(request: Request, job: Job) -> Response:
    """Return the response to a request that has recorded a job, after the wait that the client prefers."""
    services = get_services(request)
    request.state.job = job.id  # for the log
    preferred = preferences(request.headers.getlist("prefer"))
    wait = min(preferred.wait or 0, services.max_wait_seconds)
    job = await services.job_watcher.wait_for_end(job, wait)
    ended = preferred.wait is not None and job.status.ended
    headers = {"location": f"{prefix(request.scope)}/jobs/{job.id}"}
    if applied := preferred.applied(wait, ended=ended):
        headers["preference-applied"] = applied
    return bodies.json_response(job_to_view(job), 200 if ended else 202, headers)
