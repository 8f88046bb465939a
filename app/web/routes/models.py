"""Models and their versions: read, download, promote, delete a version."""

import base64
import os
import re
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from app.errors import InvalidInput, ModelFileInvalid, NoCurrentVersion, NotFound
from app.prediction.estimates import inference_bytes
from app.registry.names import MODEL_NAME
from app.registry.publisher import ModelPublisher
from app.web import bodies
from app.web.auth import AccessScope
from app.web.dependencies import require_scope
from app.web.entity_tags import check_unchanged, has, tag_of
from app.web.problems import problem_responses
from app.web.query import ModelName, OtherVersionNumber, VersionNumber, reject_unknown_parameters
from app.web.schemas.card_statistics import MAX_COVARIANCE_COEFFICIENTS
from app.web.schemas.models import DEFAULT_LEVEL, CurrentModelView, Extra, ModelView, card_view
from app.web.state import get_memory, get_services

router = APIRouter(tags=["Models"], dependencies=[require_scope(AccessScope.READ), reject_unknown_parameters()])

MAX_PROMOTION_BYTES = 1 << 12
CHUNK_BYTES = 1 << 16
NO_CURRENT = "no current version; promote one"

IfNoneMatch = Annotated[str | None, Header(description="The ETag that is at hand: 304 where it is still right.")]
Level = Annotated[
    float, Query(gt=0, lt=1, allow_inf_nan=False, description="Of the confidence intervals of the coefficients.")
]
Include = Annotated[
    Extra | None,
    Query(
        description=(
            "`covariance` adds the covariance matrices of the coefficients, of which there may be at most "
            f"{MAX_COVARIANCE_COEFFICIENTS}."
        )
    ),
]


class ModelSummary(BaseModel):
    model: str
    current: int | None = Field(description="Number of the current version.")
    note: str | None = Field(None, description=f"`{NO_CURRENT}` if `current` is null.")
    features: list[str] = Field(description="Of the current version, or of the newest if none is current.")
    targets: list[str] = Field(description="Of the current version, or of the newest if none is current.")
    versions: list[int]


class UnpromotedModelView(BaseModel):
    """A model with versions, of which none is current."""

    model: str
    current: int | None = Field(description="Always null.")
    note: str = Field(examples=[NO_CURRENT])
    versions: list[int]


class ModelList(BaseModel):
    items: list[ModelSummary]
    next: str | None = Field(description="Asks for the next page; null on the last.")


class Promotion(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1, examples=[1])


@router.get(
    "/models",
    name="listModels",
    summary="List models, by their names",
    description="A page has fewer if some of its models have no version that can be read.",
    responses=problem_responses(422),
)
def list_models(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    next: Annotated[str | None, Query(description="The `next` of the page before.")] = None,  # noqa: A002 - its name in the design
) -> ModelList:
    registry = get_services(request).registry
    last = "" if next is None else _last_of(next)
    names = [name for name in registry.models() if name > last]
    items = []
    for name in names[:limit]:
        try:
            items.append(_summary(registry, name))
        except (NotFound, ModelFileInvalid):
            continue  # deleted meanwhile, or without one intact version, which the log says
    return ModelList(items=items, next=_token(names[limit - 1]) if len(names) > limit else None)


def _summary(registry: ModelPublisher, model: str) -> ModelSummary:
    versions = registry.versions(model)
    try:
        card = registry.current(model).card
        current: int | None = card.version
    except NoCurrentVersion:
        card, current = registry.version(model, versions[-1]).card, None
    return ModelSummary(
        model=model,
        current=current,
        note=NO_CURRENT if current is None else None,
        features=list(card.features),
        targets=list(card.targets),
        versions=versions,
    )


@router.get(
    "/models/{model}",
    name="getModel",
    summary="Read a model's current card, and which versions there are",
    description="If no version is current, `current` is null, and there is no card.",
    response_model=CurrentModelView | UnpromotedModelView,
    responses=problem_responses(404, 422),
)
def get_model(
    request: Request,
    model: ModelName,
    *,
    level: Level = DEFAULT_LEVEL,
    include: Include = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    return _current_card(request, model, level=level, include=include, if_none_match=if_none_match)


def _current_card(
    request: Request,
    model: str,
    *,
    level: float = DEFAULT_LEVEL,
    include: Extra | None = None,
    if_none_match: str | None = None,
) -> Response:
    registry = get_services(request).registry
    versions = registry.versions(model)
    try:
        version = registry.current(model)
    except NoCurrentVersion:
        version = None
    tag = tag_of(model, version.card.version if version else None, versions)
    tag = _with_options(tag, level, include) if version else tag
    if has(if_none_match, tag):
        return Response(status_code=304, headers={"etag": tag})
    if version is None:
        found = {"model": model, "current": None, "note": NO_CURRENT, "versions": versions}
        return bodies.json_response(found, headers={"etag": tag})
    with get_memory(request).reserved(inference_bytes(version.model)):
        card = card_view(version, current=True, level=level, include=include) | {"versions": versions}
        return bodies.json_response(card, headers={"etag": tag})


@router.get(
    "/models/{model}/versions/{version}",
    name="getVersion",
    summary="Read a version's card",
    response_model=ModelView,
    responses=problem_responses(404, 422),
)
def get_version(
    request: Request,
    model: ModelName,
    version: VersionNumber,
    *,
    level: Level = DEFAULT_LEVEL,
    include: Include = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    registry = get_services(request).registry
    found = registry.version(model, version)
    current = registry.served_number(model) == version
    tag = _with_options(f'"{model}/{version}/{"current" if current else "other"}"', level, include)
    if has(if_none_match, tag):
        return Response(status_code=304, headers={"etag": tag})
    with get_memory(request).reserved(inference_bytes(found.model)):
        card = card_view(found, current=current, level=level, include=include)
        return bodies.json_response(card, headers={"etag": tag})


@router.get(
    "/models/{model}/versions/{version}/file",
    name="downloadVersion",
    summary="Download a version as a safetensors file",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        **problem_responses(404, 422),
    },
)
def download_version(
    request: Request, model: ModelName, version: VersionNumber, if_none_match: IfNoneMatch = None
) -> Response:
    file = get_services(request).registry.file(model, version)
    tag = f'"{model}/{version}"'
    if has(if_none_match, tag):
        file.close()
        return Response(status_code=304, headers={"etag": tag})
    headers = {
        "content-disposition": f'attachment; filename="{model}-{version:06d}.safetensors"',
        "content-length": str(os.fstat(file.fileno()).st_size),
        "etag": tag,
    }
    return StreamingResponse(
        bodies.chunks_of(file, CHUNK_BYTES), media_type="application/octet-stream", headers=headers
    )


@router.put(
    "/models/{model}/current",
    name="promote",
    dependencies=[require_scope(AccessScope.ADMIN)],
    summary="Promote a version, or roll back to it",
    description=(
        "Every worker serves it from its next request on. With If-Match and the ETag of `GET /models/{model}`, only if "
        "nothing was promoted, published or deleted since."
    ),
    response_model=CurrentModelView,
    openapi_extra=bodies.openapi_request_body(Promotion, {"Roll back to version 1": {"version": 1}}),
    responses=problem_responses(404, 412, 413, 415, 422),
)
async def promote(
    request: Request,
    model: ModelName,
    if_match: Annotated[str | None, Header(description="The ETag that has to be right still, or 412.")] = None,
) -> Response:
    await bodies.content_type(request, bodies.JSON)
    promotion = bodies.decode(Promotion, await bodies.read_body(request, MAX_PROMOTION_BYTES))
    registry = get_services(request).registry

    check = partial(check_unchanged, registry, model, if_match)
    await run_in_threadpool(registry.promote, model, promotion.version, check)
    return await run_in_threadpool(_current_card, request, model)


@router.delete(
    "/models/{model}/versions/{version}",
    name="deleteVersion",
    dependencies=[require_scope(AccessScope.ADMIN)],
    summary="Delete a version",
    description="Neither the current one nor the one that is served in its place. Its number is not used again.",
    status_code=204,
    responses=problem_responses(404, 409, 422),
)
def delete_version(request: Request, model: ModelName, version: OtherVersionNumber) -> None:
    get_services(request).registry.delete(model, version)


def _with_options(tag: str, level: float, include: Extra | None) -> str:
    """Return the entity tag of a card that was computed with these options; the same tag with the default ones."""
    options = "" if level == DEFAULT_LEVEL else f"/level-{level!r}"
    options += "" if include is None else f"/{include}"
    return f'{tag[:-1]}{options}"'


def _token(last: str) -> str:
    """What asks for the models behind the last of a page."""
    return base64.urlsafe_b64encode(last.encode()).decode()


def _last_of(token: str) -> str:
    try:
        last = base64.urlsafe_b64decode(token.encode()).decode()
    except ValueError:
        last = ""
    if not re.fullmatch(MODEL_NAME, last):
        raise InvalidInput.of_parameter("next", "The token is invalid. Send the `next` of the previous page.")
    return last
