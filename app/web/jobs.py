"""Training jobs: read, list, follow, cancel."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.jobs.job import Job, Status
from app.web import bodies
from app.web.access import Right
from app.web.errors import Problem, problem_of, problems
from app.web.guard import needs
from app.web.parameters import JobId
from app.web.services import Services, services

router = APIRouter(tags=["Jobs"], dependencies=[needs(Right.READ)])

FOLLOW_SECONDS = 0.25
WAIT_SECONDS = (0.02, 0.25)  # a waiting request asks the database first so often, and later so seldom


class ProgressView(BaseModel):
    phase: Literal["reading", "fitting", "publishing"]
    rows: int
    epoch: int | None
    epochs: int | None
    loss: float | None


class JobView(BaseModel):
    """A training job. It ends in exactly one of succeeded, failed and cancelled."""

    id: str
    status: Status
    model: str
    version: int | None = Field(description="The version it published.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: ProgressView | None
    loss_curve: list[tuple[int, float]] | None = Field(
        description="[epoch, mean squared error], at most 500; epoch 0 is before the first step. Not in lists."
    )
    metrics: dict[str, Any] | None = Field(
        examples=[{"apples": {"r2": 0.999, "rmse": 1.0}, "oranges": {"r2": 0.999, "rmse": 0.9}, "mse": 0.909}]
    )
    warnings: list[str]
    error: Problem | None = Field(description="Why it failed.")


class JobList(BaseModel):
    items: list[JobView]
    next: str | None = Field(description="Asks for the next page; null on the last.")


def view(job: Job) -> dict[str, Any]:
    """The job as JobView has it."""
    shown = asdict(job)
    if job.error is not None:
        shown["error"] = problem_of(job.error.error, job.error.message, job.error.details)
        shown["error"].pop("request_id", None)  # the request that asks is not the one that failed
    return shown


async def wait_for(found: Services, job: Job, seconds: float) -> Job:
    """The job once it has ended, or as it is after so many seconds, or when the service stops."""
    until = time.monotonic() + seconds
    pause, most = WAIT_SECONDS
    while not job.status.ended and (left := until - time.monotonic()) > 0 and not found.stopping.is_set():
        await asyncio.sleep(min(pause, left))
        pause = min(1.2 * pause, most)
        job = await run_in_threadpool(found.jobs.get, job.id)
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
    description="A running gradient descent stops within a second. Cancelling a cancelled job changes nothing.",
    response_model=JobView,
    responses=problems(404, 409),
)
def cancel_job(request: Request, job: JobId) -> Response:
    request.state.job = job  # for the log
    return bodies.json_response(view(services(request).jobs.cancel(job)))


async def _known_job(request: Request, job: JobId) -> None:
    # As a dependency: an unknown job is answered with 404 before the stream begins.
    await run_in_threadpool(services(request).jobs.get, job)


@router.get(
    "/jobs/{job}/events",
    name="followJob",
    summary="Follow a job as server-sent events",
    description="An event `job` with the whole job whenever it changed. The stream ends with the job.",
    response_class=EventSourceResponse,
    responses=problems(404),
    dependencies=[Depends(_known_job)],
)
async def follow_job(request: Request, job: JobId) -> AsyncIterator[ServerSentEvent]:
    found = services(request)
    shown = b""
    while not found.stopping.is_set():
        state = await run_in_threadpool(found.jobs.get, job)
        now = orjson.dumps(view(state), option=orjson.OPT_UTC_Z)
        if now != shown:
            shown = now
            yield ServerSentEvent(event="job", raw_data=now.decode())
        if state.status.ended:
            return
        await asyncio.sleep(FOLLOW_SECONDS)
