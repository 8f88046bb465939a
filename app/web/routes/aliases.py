"""/models/{model}/aliases: names of versions, which clients use in place of numbers."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.registry.names import no_version
from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.query import ModelName, reject_unknown_parameters
from app.web.schemas.aliases import EXAMPLES, AliasList, AliasTarget, AliasView
from app.web.schemas.problems import problem_responses
from app.web.state import get_services

router = APIRouter(tags=["Models"], dependencies=[reject_unknown_parameters()])

MAX_BYTES = 1 << 12
AliasName = Annotated[str, Path(description="Alias of a version.", examples=["champion"])]


@router.get(
    "/models/{model}/aliases",
    name="listAliases",
    summary="List the aliases of a model's versions",
    response_model=AliasList,
    responses=problem_responses(404, 422, 503),
    dependencies=[require_scope(AccessScope.READ)],
)
def list_aliases(request: Request, model: ModelName) -> Response:
    services = get_services(request)
    services.registry.versions(model)
    current = services.registry.served_number(model)
    return bodies.json_response({"model": model, "current": current, "aliases": services.aliases.all(model)})


@router.put(
    "/models/{model}/aliases/{alias}",
    name="setAlias",
    summary="Give a version an alias, or move the alias to it",
    description=(
        "`POST /models/{model}/aliases/{alias}/predict` then predicts with this version, until the alias is moved or "
        "deleted. A promotion does not move it. A version with an alias cannot be deleted. Every worker on this "
        "machine uses it from its next request on, and replicas that share a bucket within a second."
    ),
    response_model=AliasView,
    openapi_extra=bodies.openapi_request_body(AliasTarget, EXAMPLES),
    responses=problem_responses(404, 409, 413, 415, 422, 503),
    dependencies=[require_scope(AccessScope.ADMIN)],
)
async def set_alias(request: Request, model: ModelName, alias: AliasName) -> Response:
    await bodies.content_type(request, bodies.JSON)
    target = bodies.decode(AliasTarget, await bodies.read_body(request, MAX_BYTES))
    services = get_services(request)

    def store() -> None:
        if target.version not in services.registry.versions(model):
            raise no_version(model, target.version)
        services.aliases.set(model, alias, target.version)

    await run_in_threadpool(store)
    return bodies.json_response({"model": model, "alias": alias, "version": target.version})


@router.delete(
    "/models/{model}/aliases/{alias}",
    name="deleteAlias",
    summary="Delete an alias",
    description="The version is not deleted. Deleting an alias that does not exist succeeds.",
    status_code=204,
    responses=problem_responses(404, 409, 422, 503),
    dependencies=[require_scope(AccessScope.ADMIN)],
)
def delete_alias(request: Request, model: ModelName, alias: AliasName) -> None:
    services = get_services(request)
    services.registry.versions(model)
    services.aliases.remove(model, alias)
