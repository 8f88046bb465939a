"""DELETE /models/{model}: a model with all its versions and its waiting jobs."""

import time
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request

from app.errors import Conflict, PreconditionRequired
from app.web.auth import AccessScope
from app.web.dependencies import require_scope
from app.web.entity_tags import check_unchanged
from app.web.query import ModelName, reject_unknown_parameters
from app.web.schemas.problems import problem_responses
from app.web.state import get_services

router = APIRouter(tags=["Models"], dependencies=[require_scope(AccessScope.ADMIN), reject_unknown_parameters()])

PUBLISHING_TIMEOUT = 5.0  # Longest wait for jobs that publish a version, in seconds.
POLL_SECONDS = 0.05


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
    check_unchanged(registry, model, if_match)
    deadline = time.monotonic() + PUBLISHING_TIMEOUT
    while publishing := services.jobs.cancel_all(model):
        if time.monotonic() > deadline:
            raise Conflict(
                f"Job {publishing[0]} is publishing a version of this model. Wait for its end and try again."
            )
        time.sleep(POLL_SECONDS)
    registry.delete_model(model, lambda: check_unchanged(registry, model, if_match))
