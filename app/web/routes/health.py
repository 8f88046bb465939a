"""Liveness, readiness and metrics of the process."""

import contextlib
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.errors import NotFound, Unavailable
from app.prediction.selection import VersionSelector
from app.web.query import reject_unknown_parameters
from app.web.schemas.problems import problem_responses
from app.web.state import Services, get_services

router = APIRouter(tags=["Health"], dependencies=[reject_unknown_parameters()])


class Live(BaseModel):
    status: str = Field(examples=["live"])


class Ready(BaseModel):
    status: str = Field(examples=["ready"])
    model: str = Field(examples=["crop-yield"])
    version: int = Field(examples=[1])
    storage: Literal["folder", "store", "cache"] = Field(
        description="Where versions come from. `cache`: the store cannot be reached, so the versions that were read "
        "before are served, and promotions on other machines are not seen."
    )


@router.get(
    "/health/live",
    name="live",
    summary="Check that the process responds",
    responses=problem_responses(422, open_to_all=True),
)
async def live() -> Live:
    return Live(status="live")


@router.get(
    "/health/ready",
    name="ready",
    summary="Check that the default model is loaded",
    responses=problem_responses(422, open_to_all=True),
)
async def ready(request: Request) -> Ready:
    services = get_services(request)
    if services.stopping.is_set():
        raise Unavailable("The service is stopping.")
    try:
        card = (await VersionSelector(services.registry, services.default_model).resolve_async()).card
    except NotFound as error:
        raise Unavailable(error.message) from None
    return Ready(status="ready", model=card.model, version=card.version, storage=services.registry.storage)


@router.get(
    "/metrics",
    name="metrics",
    summary="Counters for Prometheus, over all workers",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **problem_responses(422, open_to_all=True),
    },
)
async def metrics(request: Request) -> Response:
    services = get_services(request)
    services.metrics.write()
    text = await run_in_threadpool(_text, services)
    return Response(text, media_type="text/plain; version=1.0.0; charset=utf-8")


def _text(services: Services) -> bytes:
    jobs, seen = None, None
    with contextlib.suppress(Unavailable):  # The store has logged the reason.
        jobs, seen = services.jobs.counts(), services.jobs.store.trainer_seen()
    return services.metrics.text(jobs, seen, services.model_gauges.families())
