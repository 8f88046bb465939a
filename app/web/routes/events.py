"""GET /models/{model}/events: versions, drift and rolling error of a model as server-sent events."""

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from app.errors import LinserveError
from app.web.auth import AccessScope, require_scope
from app.web.model_watcher import MAX_FOLLOWERS
from app.web.query import ModelName, reject_unknown_parameters
from app.web.schemas.problems import problem_responses
from app.web.state import get_services

router = APIRouter(tags=["Models"], dependencies=[require_scope(AccessScope.READ), reject_unknown_parameters()])


async def _existing(request: Request, model: ModelName) -> AsyncIterator[str]:
    # A dependency, so that an unknown model gets 404, and a follower too many 503, before the stream begins.
    services = get_services(request)
    with services.model_watcher.acquire_slot():
        await run_in_threadpool(services.registry.versions, model)
        yield model


@router.get(
    "/models/{model}/events",
    name="followModel",
    summary="Follow a model as server-sent events",
    description=(
        "Sends the events `versions` (the current version and the list of all), `drift` (the figures of a day that "
        "differ most, and the requests of an hour) and `outcomes` (the rolling error of 7 days by version): one of "
        "each at first, and another one when it has changed, at most once a second. Rows are never sent. The stream "
        "ends when the model is deleted, the API key is revoked or the service stops. A client that reconnects with "
        "the `id` of the last event as Last-Event-ID, as a browser's EventSource does, gets only what has changed "
        f"since. A worker refuses more than {MAX_FOLLOWERS:,} followers at a time (503)."
    ),
    response_class=EventSourceResponse,
    responses=problem_responses(404, 422),
)
async def follow_model(
    request: Request,
    model: Annotated[str, Depends(_existing)],
    events: Annotated[
        int | None, Query(ge=1, description="Number of events after which the stream ends.", examples=[1])
    ] = None,
    last_event_id: Annotated[str | None, Header(description="`id` of the last event received.")] = None,
) -> AsyncIterator[ServerSentEvent]:
    services = get_services(request)
    sent = 0
    async with contextlib.aclosing(services.model_watcher.watch(model, last_event_id)) as found:
        async for event in found:
            try:
                services.access.check(request.scope, AccessScope.READ)
            except LinserveError:  # the key was revoked meanwhile
                return
            if event is None:
                continue
            yield ServerSentEvent(event=event.kind, id=event.event_id, raw_data=event.text)
            sent += 1
            if sent == events:
                return
