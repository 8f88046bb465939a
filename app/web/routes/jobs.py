"""Training jobs: read, list, follow, cancel."""

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from app.errors import FieldError, InvalidInput, LinserveError
from app.jobs.job import JobFilter, Status
from app.registry.names import MODEL_NAME, MODEL_NAME_RULE
from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.job_watcher import JobSnapshot
from app.web.query import JobId, reject_unknown_parameters
from app.web.schemas.jobs import JobList, JobView, job_to_view
from app.web.schemas.problems import problem_responses
from app.web.state import get_services

router = APIRouter(tags=["Jobs"], dependencies=[require_scope(AccessScope.READ), reject_unknown_parameters()])


def job_filter(
    status: Annotated[Status | None, Query(description="Only jobs of this status.")] = None,
    model: Annotated[str | None, Query(description="Only jobs of this model.", examples=["crop-yield"])] = None,
    since: Annotated[
        str | None,
        Query(
            description="Only jobs recorded at this time (RFC 3339) or later.",
            examples=["2026-01-01T00:00:00Z"],
            json_schema_extra={"format": "date-time"},
        ),
    ] = None,
) -> JobFilter:
    """Return the conditions of a list. Raises InvalidInput."""
    if model is not None and not re.fullmatch(MODEL_NAME, model):
        raise InvalidInput("No model can have this name.", [FieldError(MODEL_NAME_RULE, parameter="model")])
    return JobFilter(status, model, None if since is None else _parse_time(since))


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidInput.of_parameter(
        "since", "Expected a time with its offset from UTC, such as 2026-01-01T00:00:00Z. In a query, + is written %2B."
    )


@router.get(
    "/jobs",
    name="listJobs",
    summary="List jobs, newest first",
    description=(
        "`next` continues the list, alone or with the same parameters. A job that is recorded, ends or is removed "
        "between two pages causes no other job to be skipped or repeated."
    ),
    responses=problem_responses(422),
)
def list_jobs(
    request: Request,
    conditions: Annotated[JobFilter, Depends(job_filter)],
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    next: Annotated[str | None, Query(description="The `next` of the previous page.")] = None,  # noqa: A002 - its name in the API
) -> JobList:
    page = get_services(request).jobs.list(conditions, limit=limit, token=next)
    return JobList.model_validate({"items": [job_to_view(job) for job in page.jobs], "next": page.next})


@router.get(
    "/jobs/{job}", name="getJob", summary="Read a job", response_model=JobView, responses=problem_responses(404, 422)
)
def get_job(request: Request, job: JobId) -> Response:
    services = get_services(request)
    return bodies.json_response(job_to_view(services.job_watcher.serve_version_of(services.jobs.get(job))))


@router.post(
    "/jobs/{job}/cancel",
    name="cancelJob",
    summary="Cancel a job",
    dependencies=[require_scope(AccessScope.TRAIN)],
    description=(
        "A running job ends within a second. "
        "A job that has ended stays as it is and is returned. One that publishes its version is not cancelled (409)."
    ),
    response_model=JobView,
    responses=problem_responses(404, 409, 422),
)
def cancel_job(request: Request, job: JobId) -> Response:
    request.state.job = job  # for the log
    cancelled = get_services(request).jobs.cancel(job)
    request.state.job = cancelled.id
    return bodies.json_response(job_to_view(cancelled))


LastEventId = Annotated[
    str | None,
    Header(description="`id` of the last event received. The next event is sent, or 204 if there is none."),
]


async def _followed(
    request: Request, job: JobId, last_event_id: LastEventId = None
) -> AsyncIterator[tuple[JobSnapshot, float]]:
    """Yield the last snapshot of the job, and the time of the request on the clock of the event loop.

    This is a dependency, so that the stream does not begin if the job is unknown (404) or has too many followers (503).
    """
    services = get_services(request)
    came_at = asyncio.get_running_loop().time()
    with services.job_watcher.acquire_slot():
        snapshot = await services.job_watcher.find(job)
        if snapshot.job.status.ended and snapshot.event_id == last_event_id:
            raise HTTPException(204)  # after which a browser's EventSource does not connect again
        yield snapshot, came_at


@router.get(
    "/jobs/{job}/events",
    name="followJob",
    summary="Follow a job as server-sent events",
    description=(
        "Sends an event `job` with the whole job whenever it changed. The stream ends with the job, or once the API "
        "key is revoked. A client that reconnects with the `id` of the last event as Last-Event-ID, as a browser's "
        "EventSource does, gets the next event, or 204 if the job has ended. An event comes within about a second. "
        "A worker refuses more than a thousand followers at a time (503)."
    ),
    response_class=EventSourceResponse,
    responses={
        204: {"description": "The job has ended, and the client has its last event."},
        **problem_responses(404, 422),
    },
)
async def follow_job(
    request: Request,
    followed: Annotated[tuple[JobSnapshot, float], Depends(_followed)],
    last_event_id: LastEventId = None,
) -> AsyncIterator[ServerSentEvent]:
    services = get_services(request)
    (known, came_at), sent = followed, last_event_id
    since = -math.inf
    if sent is not None:
        since = came_at  # A snapshot from before may be older than the event that another worker sent last.
        # A comment, because a client that waits for the next event knows that it is connected only once bytes arrive.
        yield ServerSentEvent(comment="connected")
    async with contextlib.aclosing(services.job_watcher.watch(known, since=since)) as snapshots:
        async for snapshot in snapshots:
            try:
                services.access.check(request.scope, AccessScope.READ)
            except LinserveError:  # the key was revoked meanwhile
                return
            if snapshot.event_id != sent:
                sent = snapshot.event_id
                yield ServerSentEvent(event="job", id=sent, raw_data=snapshot.text)
