"""Models and their versions: list, read, download."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from app.errors import InvalidInput, ModelFileInvalid, NoCurrentVersion, NotFound
from app.registry.base import ModelReader
from app.registry.merge_export import encode_for_merge
from app.registry.names import MODEL_NAME
from app.registry.version_file import Version, file_length
from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.card_statistics import MAX_COVARIANCE_COEFFICIENTS
from app.web.model_view import DEFAULT_LEVEL, Extra, model_to_view, table_of, view_bytes
from app.web.query import ModelName, VersionNumber, reject_unknown_parameters
from app.web.schemas.models import (
    NO_CURRENT,
    CurrentModelView,
    ModelList,
    ModelSummary,
    ModelView,
    UnpromotedModelView,
)
from app.web.schemas.problems import problem_responses
from app.web.schemas.tables import VersionSchema
from app.web.state import get_memory, get_services

router = APIRouter(tags=["Models"], dependencies=[require_scope(AccessScope.READ), reject_unknown_parameters()])

CHUNK_BYTES = 1 << 16  # Bytes of a file read at a time.
ENCODING_FACTOR = 5  # Bytes that making a file for a merge takes, per byte of the version.

IfNoneMatch = Annotated[str | None, Header(description="A known ETag. The response is 304 if it is still valid.")]


@dataclass(frozen=True)
class CardOptions:
    """The parameters of a request for a card."""

    level: Annotated[
        float,
        Query(gt=0, lt=1, allow_inf_nan=False, description="Level of the confidence intervals of the coefficients."),
    ] = DEFAULT_LEVEL
    include: Annotated[
        Extra | None,
        Query(
            description=(
                "`covariance` adds the covariance matrices of the coefficients, of which there may be at most "
                f"{MAX_COVARIANCE_COEFFICIENTS}."
            )
        ),
    ] = None
    if_none_match: IfNoneMatch = None


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
def get_model(request: Request, model: ModelName, options: Annotated[CardOptions, Depends()]) -> Response:
    registry = get_services(request).registry
    versions = registry.versions(model)
    try:
        version = registry.current(model)
    except NoCurrentVersion:
        etag = make_etag(model, None, versions)
        if etag_matches(options.if_none_match, etag):
            return _not_modified(etag)
        body = {"model": model, "current": None, "note": NO_CURRENT, "versions": versions}
        return bodies.json_response(body, headers={"etag": etag})
    etag = make_etag(model, version.card.version, versions)
    return _card_response(request, version, etag, options, current=True, versions=versions)


@router.get(
    "/models/{model}/versions/{version}",
    name="getVersion",
    summary="Read a version's card",
    response_model=ModelView,
    responses=problem_responses(404, 422),
)
def get_version(
    request: Request, model: ModelName, version: VersionNumber, options: Annotated[CardOptions, Depends()]
) -> Response:
    registry = get_services(request).registry
    loaded = registry.version(model, version)
    return version_card(request, loaded, options, current=registry.served_number(model) == version)


def version_card(request: Request, version: Version, options: CardOptions, *, current: bool) -> Response:
    """Return the card of a version, with its entity tag."""
    card = version.card
    etag = f'"{card.model}/{card.version}/{"current" if current else "other"}"'
    return _card_response(request, version, etag, options, current=current)


def _card_response(
    request: Request, version: Version, etag: str, options: CardOptions, *, current: bool, **additions: list[int]
) -> Response:
    """Return the card with some additions. `etag` is the tag of the card with the default options."""
    level, include = options.level, options.include
    if level != DEFAULT_LEVEL:
        etag = f'{etag[:-1]}/level-{level!r}"'
    if include is not None:
        etag = f'{etag[:-1]}/{include}"'
    if etag_matches(options.if_none_match, etag):
        return _not_modified(etag)
    with get_memory(request).reserved(view_bytes(version.model, include)):
        card = model_to_view(version, current=current, level=level, include=include)
        return bodies.json_response(card | additions, headers={"etag": etag})


@router.get(
    "/models/{model}/versions/{version}/file",
    name="downloadVersion",
    summary="Download a version as a safetensors file",
    description=(
        "With `for=merge`, the file is for a merge at another site: it has no values of single rows, such as minima "
        "and maxima, and no history. It is refused (409) if the version, or a level of a category, has fewer rows than "
        "LINSERVE_MIN_MERGE_ROWS."
    ),
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        **problem_responses(404, 409, 422),
    },
)
def download_version(
    request: Request,
    model: ModelName,
    version: VersionNumber,
    purpose: Annotated[Literal["merge"] | None, Query(alias="for", description="`merge`: see above.")] = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    if purpose == "merge":
        return _download_for_merge(request, model, version, if_none_match)
    etag = f'"{model}/{version}"'
    headers = {"content-disposition": f'attachment; filename="{model}-{version:06d}.safetensors"', "etag": etag}
    if etag_matches(if_none_match, etag):
        get_services(request).registry.file(model, version).close()  # raises if there is none
        return _not_modified(etag)
    return version_file(request, model, version, headers, "application/octet-stream")


def version_file(request: Request, model: str, version: int, headers: Mapping[str, str], media_type: str) -> Response:
    """Return the response with a version's file. Raises ModelNotFound or VersionNotFound."""
    file = get_services(request).registry.file(model, version)
    return StreamingResponse(
        bodies.chunks_of(file, CHUNK_BYTES),
        media_type=media_type,
        headers={**headers, "content-length": str(file_length(file))},
    )


def _download_for_merge(request: Request, model: str, number: int, if_none_match: str | None) -> Response:
    services = get_services(request)
    version = services.registry.version(model, number)
    # The tag is weak, because safetensors writes the metadata in any order.
    etag = f'W/"{model}/{number}/for-merge-{services.min_merge_rows}"'
    if etag_matches(if_none_match, etag):
        return _not_modified(etag)
    with get_memory(request).reserved(ENCODING_FACTOR * version.size):
        content = encode_for_merge(version, services.min_merge_rows)
    get_memory(request).reserve(len(content))
    headers = {
        "content-disposition": f'attachment; filename="{model}-{number:06d}-for-merge.safetensors"',
        "etag": etag,
    }
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.get(
    "/models/{model}/schema",
    name="getSchema",
    summary="Read the schema of a model's current version",
    description="The columns that rows to train on and to predict for have, and how their cells are read.",
    response_model=VersionSchema,
    responses=problem_responses(404, 422),
)
def get_schema(request: Request, model: ModelName, if_none_match: IfNoneMatch = None) -> Response:
    return _schema_response(get_services(request).registry.current(model), if_none_match)


@router.get(
    "/models/{model}/versions/{version}/schema",
    name="getVersionSchema",
    summary="Read the schema of a version",
    response_model=VersionSchema,
    responses=problem_responses(404, 422),
)
def get_version_schema(
    request: Request, model: ModelName, version: VersionNumber, if_none_match: IfNoneMatch = None
) -> Response:
    return _schema_response(get_services(request).registry.version(model, version), if_none_match)


def _schema_response(version: Version, if_none_match: str | None) -> Response:
    card = version.card
    etag = f'"{card.model}/{card.version}/schema"'
    if etag_matches(if_none_match, etag):
        return _not_modified(etag)
    view = {
        "model": card.model,
        "version": card.version,
        "columns": card.columns,
        **table_of(card),
    }
    name = f"{card.model}-{card.version:06d}-schema.json"
    headers = {"content-disposition": f'attachment; filename="{name}"', "etag": etag}
    return bodies.json_response(view, headers=headers)


def _not_modified(etag: str) -> Response:
    return Response(status_code=304, headers={"etag": etag})


def make_etag(model: str, current: int | None, versions: list[int]) -> str:
    """Return the entity tag of a model, which changes with every promotion, new version and deletion."""
    return f'"{model}/{"none" if current is None else current}/of-{len(versions)}-{versions[-1]}"'


def etag_matches(condition: str | None, etag: str, *, weakly: bool = True) -> bool:
    """Return True if the condition names this entity tag (RFC 9110, 8.8.3 and 13.1).

    If-None-Match compares weakly. If-Match does not, because a weak tag does not identify one state of the model.
    """
    names = [] if condition is None else [name.strip() for name in condition.split(",")]
    return "*" in names or etag in names or (weakly and f"W/{etag}" in names)


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
