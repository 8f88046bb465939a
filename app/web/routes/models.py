"""Models and their versions: read, download, promote, delete a version."""

import base64
import os
import re
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from app.errors import InvalidInput, ModelFileInvalid, NoCurrentVersion, NotFound
from app.registry.names import MODEL_NAME
from app.registry.reader import ModelReader
from app.registry.version_file import Version
from app.web import bodies
from app.web.auth import AccessScope
from app.web.card_statistics import MAX_COVARIANCE_COEFFICIENTS
from app.web.dependencies import require_scope
from app.web.entity_tags import check_unchanged, etag_matches, make_etag
from app.web.model_view import DEFAULT_LEVEL, Extra, model_to_view, view_bytes
from app.web.query import ModelName, OtherVersionNumber, VersionNumber, reject_unknown_parameters
from app.web.schemas.models import (
    NO_CURRENT,
    CurrentModelView,
    ModelList,
    ModelSummary,
    ModelView,
    Promotion,
    UnpromotedModelView,
)
from app.web.schemas.problems import problem_responses
from app.web.state import get_memory, get_services

router = APIRouter(tags=["Models"], dependencies=[require_scope(AccessScope.READ), reject_unknown_parameters()])

MAX_PROMOTION_BYTES = 1 << 12
CHUNK_BYTES = 1 << 16  # Bytes of a file read at a time.

IfNoneMatch = Annotated[str | None, Header(description="A known ETag. The response is 304 if it is still valid.")]
Level = Annotated[
    float,
    Query(gt=0, lt=1, allow_inf_nan=False, description="Level of the confidence intervals of the coefficients."),
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
    next: Annotated[str | None, Query(description="The `next` of the previous page.")] = None,  # noqa: A002 - its name in the API
) -> ModelList:
    registry = get_services(request).registry
    last = "" if next is None else decode_cursor(next)
    names = [name for name in registry.models() if name > last]
    items = []
    for name in names[:limit]:
        try:
            items.append(_summary(registry, name))
        except (NotFound, ModelFileInvalid):
            continue  # deleted meanwhile, or without an intact version, which is logged
    return ModelList(items=items, next=encode_cursor(names[limit - 1]) if len(names) > limit else None)


def _summary(registry: ModelReader, model: str) -> ModelSummary:
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
        etag = make_etag(model, None, versions)
        if etag_matches(if_none_match, etag):
            return _not_modified(etag)
        body = {"model": model, "current": None, "note": NO_CURRENT, "versions": versions}
        return bodies.json_response(body, headers={"etag": etag})
    etag = _with_options(make_etag(model, version.card.version, versions), level, include)
    if etag_matches(if_none_match, etag):
        return _not_modified(etag)
    return _card_response(request, version, etag, current=True, level=level, include=include, versions=versions)


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
    loaded = registry.version(model, version)
    current = registry.served_number(model) == version
    etag = _with_options(f'"{model}/{version}/{"current" if current else "other"}"', level, include)
    if etag_matches(if_none_match, etag):
        return _not_modified(etag)
    return _card_response(request, loaded, etag, current=current, level=level, include=include)


def _card_response(
    request: Request,
    version: Version,
    etag: str,
    *,
    current: bool,
    level: float,
    include: Extra | None,
    versions: list[int] | None = None,
) -> Response:
    with get_memory(request).reserved(view_bytes(version.model, include)):
        card = model_to_view(version, current=current, level=level, include=include)
        if versions is not None:
            card["versions"] = versions
        return bodies.json_response(card, headers={"etag": etag})


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
    etag = f'"{model}/{version}"'
    if etag_matches(if_none_match, etag):
        file.close()
        return _not_modified(etag)
    headers = {
        "content-disposition": f'attachment; filename="{model}-{version:06d}.safetensors"',
        "content-length": str(os.fstat(file.fileno()).st_size),
        "etag": etag,
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
        "Every worker serves it from its next request on. With If-Match and the ETag of `GET /models/{model}`, the "
        "version is promoted only if nothing was promoted, published or deleted since."
    ),
    response_model=CurrentModelView,
    openapi_extra=bodies.openapi_request_body(Promotion, {"Roll back to version 1": {"version": 1}}),
    responses=problem_responses(404, 412, 413, 415, 422),
)
async def promote(
    request: Request,
    model: ModelName,
    if_match: Annotated[str | None, Header(description="The expected ETag. The response to another is 412.")] = None,
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
    description=(
        "The current version, and the one that is served in its place, cannot be deleted. The number is not used again."
    ),
    status_code=204,
    responses=problem_responses(404, 409, 422),
)
def delete_version(request: Request, model: ModelName, version: OtherVersionNumber) -> None:
    get_services(request).registry.delete(model, version)


def _not_modified(etag: str) -> Response:
    return Response(status_code=304, headers={"etag": etag})


def _with_options(etag: str, level: float, include: Extra | None) -> str:
    """Return the entity tag of a card that was computed with these options; the same tag with the default ones."""
    options = "" if level == DEFAULT_LEVEL else f"/level-{level!r}"
    options += "" if include is None else f"/{include}"
    return f'{etag[:-1]}{options}"'


def encode_cursor(last: str) -> str:
    """Return the cursor of the page after the model `last`."""
    return base64.urlsafe_b64encode(last.encode()).decode()


def decode_cursor(cursor: str) -> str:
    """Return the last model of the page before. Raises InvalidInput if no page had this cursor."""
    try:
        last = base64.urlsafe_b64decode(cursor.encode()).decode()
    except ValueError:
        last = ""
    if not re.fullmatch(MODEL_NAME, last):
        raise InvalidInput.of_parameter("next", "The token is invalid. Send the `next` of the previous page.")
    return last
