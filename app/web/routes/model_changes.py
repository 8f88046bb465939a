"""Changes to models: promote a version, delete a version, delete a model with all its versions."""

import contextlib
import time
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.errors import Conflict, PreconditionFailed, PreconditionRequired, Unavailable
from app.registry.base import ModelReader
from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.query import ModelName, OtherVersionNumber, reject_unknown_parameters
from app.web.routes.models import CardOptions, etag_matches, get_model, make_etag
from app.web.schemas.models import CurrentModelView, Promotion
from app.web.schemas.problems import problem_responses
from app.web.state import get_services

router = APIRouter(tags=["Models"], dependencies=[require_scope(AccessScope.ADMIN), reject_unknown_parameters()])

MAX_PROMOTION_BYTES = 1 << 12
PUBLISHING_TIMEOUT = 5.0  # Longest wait for jobs that publish a version, in seconds.
POLL_SECONDS = 0.05


@router.put(
    "/models/{model}/current",
    name="promote",
    summary="Promote a version, or roll back to it",
    description=(
        "Every worker serves it from its next request on. With If-Match and the ETag of `GET /models/{model}`, the "
        "version is promoted only if nothing was promoted, published or deleted since. A promotion ends a split of the "
        "traffic, also that of the version that is current already."
    ),
    response_model=CurrentModelView,
    openapi_extra=bodies.openapi_request_body(Promotion, {"Roll back to version 1": {"version": 1}}),
    responses=problem_responses(404, 409, 412, 413, 415, 422, 503),
)
async def promote(
    request: Request,
    model: ModelName,
    if_match: Annotated[str | None, Header(description="The expected ETag. The response to another is 412.")] = None,
) -> Response:
    await bodies.content_type(request, bodies.JSON)
    promotion = bodies.decode(Promotion, await bodies.read_body(request, MAX_PROMOTION_BYTES))
    registry = get_services(request).registry
    splits = get_services(request).splits

    def check() -> None:
        _check_unchanged(registry, model, if_match)
        splits.before_promotion(model, promotion.version)

    await run_in_threadpool(registry.promote, model, promotion.version, check)
    return await run_in_threadpool(get_model, request, model, CardOptions())


@router.delete(
    "/models/{model}/versions/{version}",
    name="deleteVersion",
    summary="Delete a version",
    description=(
        "The current version, the one that is served in its place, a version with an alias and one that takes part in "
        "a split of the traffic cannot be deleted. The number is not used again."
    ),
    status_code=204,
    responses=problem_responses(404, 409, 422),
)
def delete_version(request: Request, model: ModelName, version: OtherVersionNumber) -> None:
    services = get_services(request)
    services.registry.versions(model)
    if names := [alias for alias, named in services.aliases.all(model).items() if named == version]:
        raise Conflict(f'Version {version} has the alias "{names[0]}". Move the alias, or delete it first.')
    split = services.splits.get(model)
    if split is not None and version in split.versions and split.current == services.registry.served_number(model):
        raise Conflict(f"Version {version} takes part in the traffic split. Change or delete the split first.")
    services.registry.delete(model, version)
    with contextlib.suppress(Unavailable):  # It is logged, and the records expire.
        services.outcomes.forget(model, version)


@router.delete(
    "/models/{model}",
    name="deleteModel",
    summary="Delete a model with all its versions",
    description=(
        "With If-Match and the ETag of `GET /models/{model}`, the model is deleted only if nothing was promoted, "
        "published or deleted since. `If-Match: *` deletes the model as it is. Without If-Match the response is 428. "
        "Waiting and running jobs of the model are cancelled first. The request waits for a job that is already "
        "publishing; its version changes the ETag. Version numbers are not used again: a later training under this "
        "name continues after the last one."
    ),
    status_code=204,
    # FastAPI does not know that the header is required, because it would respond with 422 instead of 428.
    openapi_extra={
        "parameters": [
            {
                "name": "If-Match",
                "in": "header",
                "required": True,
                "description": "The model's current ETag, or `*`. The response to another ETag is 412.",
                "schema": {"type": "string"},
                "example": "*",
            }
        ]
    },
    responses=problem_responses(404, 409, 412, 422, 428),
)
def delete_model(
    request: Request,
    model: ModelName,
    if_match: Annotated[str | None, Header(include_in_schema=False)] = None,
    *,
    force: Annotated[bool, Query(description="Also delete the default model.", examples=[True])] = False,
) -> None:
    services = get_services(request)
    registry = services.registry
    registry.versions(model)
    if if_match is None:
        raise PreconditionRequired(
            "An If-Match header is needed: the ETag of GET /models/{model}, or * for the model as it is."
        )
    if model == services.default_model and not force:
        raise Conflict(f'"{model}" is the default model. Add ?force=true to delete it.')
    check = partial(_check_unchanged, registry, model, if_match)
    check()
    deadline = time.monotonic() + PUBLISHING_TIMEOUT
    while publishing := services.jobs.cancel_all(model):
        if time.monotonic() > deadline:
            raise Conflict(
                f"Job {publishing[0]} is publishing a version of this model. Wait for its end and try again."
            )
        time.sleep(POLL_SECONDS)
    check()
    last = registry.versions(model)[-1]
    services.outcomes.forget(model, last, others=True)  # First, because nobody could repeat it later.
    registry.delete_model(model, check)
    services.aliases.delete(model)
    services.splits.remove(model)
    services.evaluations.delete(model)
    with contextlib.suppress(Unavailable):
        services.outcomes.forget(model, last, others=True, deleted=True)  # What was predicted meanwhile.


def _check_unchanged(registry: ModelReader, model: str, condition: str | None) -> None:
    """Raise PreconditionFailed if the condition does not name the model's present entity tag."""
    if condition is None:
        return
    etag = make_etag(model, registry.served_number(model), registry.versions(model))
    if not etag_matches(condition, etag, weakly=False):
        raise PreconditionFailed(
            "The model has changed, and with it its ETag. Read the model again before you repeat the request."
        )
