"""Training jobs: read, list, follow, cancel."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.errors import LinserveError
from app.jobs.job import Job, Status
from app.web import bodies
from app.web.access import Right
from app.web.errors import problems
from app.web.guard import needs
from app.web.job_view import JobList, JobView, view
from app.web.parameters import JobId
from app.web.services import Services, services

router = APIRouter(tags=["Jobs"], dependencies=[needs(Right.READ)])


async def wait_for(found: Services, job: Job, seconds: float) -> Job:
    """The job once it has ended, or as it is after so many seconds, or when the service stops."""
    if seconds <= 0:
        return job
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), contextlib.aclosing(found.following.looks(job)) as looks:
            async for look in looks:
                job = look.job
    return job


@router.get("/jobs", name="listJobs", summary="List jobs, newest first", responses=problems(422))
def list_jobs(
    request: Request,
    status: Annotated[Status | None, Query(description="Only jobs of this status.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    next: Annotated[str | None, Query(description="The `next` of the page before.")] = None,  # noqa: A002 - its name in the design
) -> JobList:
    page = services(request).jobs.list(status=status, limit=limit, token=next)
    return JobList.model_validate({"items": [view(job) for job in page.jobs], "next": page.next})


@router.get("/jobs/{job}", name="getJob", summary="Read a job", response_model=JobView, responses=problems(404))
def get_job(request: Request, job: JobId) -> Response:
    return bodies.json_response(view(services(request).jobs.get(job)))


@router.post(
    "/jobs/{job}/cancel",
    name="cancelJob",
    summary="Cancel a job",
    dependencies=[needs(Right.TRAIN)],
    description=(
        "A running gradient descent stops within a second, an exact solution after the fit under way. "
        "Cancelling a cancelled job changes nothing."
    ),
    response_model=JobView,
    responses=problems(404, 409),
)
def cancel_job(request: Request, job: JobId) -> Response:
    request.state.job = job  # for the log
    return bodies.json_response(view(services(request).jobs.cancel(job)))


async def _followed(request: Request, job: JobId) -> AsyncIterator[Job]:
    # As a dependency: an unknown job is answered with 404, one follower too many with 503, before the stream begins.
    found = services(request)
    with found.following.admitted():
        yield await run_in_threadpool(found.jobs.get, job)


@router.get(
    "/jobs/{job}/events",
    name="followJob",
    summary="Follow a job as server-sent events",
    description=(
        "An event `job` with the whole job whenever it changed. The stream ends with the job, or once the API key is "
        "taken back. Of more than a thousand who follow jobs at a time, some are refused (503)."
    ),
    response_class=EventSourceResponse,
    responses=problems(404),
)
async def follow_job(request: Request, followed: Annotated[Job, Depends(_followed)]) -> AsyncIterator[ServerSentEvent]:
    found = services(request)
    shown = None
    async with contextlib.aclosing(found.following.looks(followed)) as looks:
        async for look in looks:
            try:
                found.access.check(request.scope, Right.READ)
            except LinserveError:  # the key was taken back meanwhile
                return
            if look.text != shown:
                shown = look.text
                yield ServerSentEvent(event="job", raw_data=shown)
