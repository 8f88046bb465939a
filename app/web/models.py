"""Models and their versions: read, download, promote, delete."""

import base64
import os
import re
from typing import Annotated, Any

import msgspec
import numpy as np
from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from app.errors import InvalidInput, ModelFileInvalid, NotFound, PreconditionFailed
from app.registry.names import MODEL_NAME
from app.registry.version_file import Version
from app.regression.inference import Inference, infer
from app.web import bodies
from app.web.access import Right
from app.web.errors import problems
from app.web.guard import needs
from app.web.parameters import ModelName, VersionNumber
from app.web.services import services

router = APIRouter(tags=["Models"], dependencies=[needs(Right.READ)])

MAX_PROMOTION_BYTES = 1 << 12
CHUNK_BYTES = 1 << 16

ByTarget = dict[str, dict[str, float | None]]
IfNoneMatch = Annotated[str | None, Header(description="The ETag that is at hand: 304 where it is still right.")]


class ModelView(BaseModel):
    """A model card: what is known of a version."""

    model: str
    version: int
    current: bool = Field(description="Whether it is the one that is served.")
    features: list[str]
    targets: list[str]
    terms: list[str] = Field(description="Made from the features; empty where the coefficients are the features' own.")
    intercept: dict[str, float]
    coefficients: dict[str, dict[str, float]]
    standard_errors: ByTarget | None = Field(description="The intercept among them; null where inference is not valid.")
    t_values: ByTarget | None
    p_values: ByTarget | None
    confidence_intervals: dict[str, dict[str, list[float]]] | None = Field(description="95 %: [lower, upper].")
    f_tests: ByTarget | None = Field(description="Of all coefficients but the intercept together: f and p_value.")
    residual_deviation: dict[str, float] | None = Field(description="Estimated standard deviation of the errors.")
    no_intervals: str | None = Field(description="Why inference is not valid for this version.")
    metrics: dict[str, Any] = Field(description="Of the training rows; `mse` over all targets.")
    validation: dict[str, Any] | None = Field(description="How the cross-validation divided the rows into folds.")
    no_folds: str | None = Field(
        description="Why no statistics of folds are stored, to which an update could add its rows."
    )
    rows: int
    dropped_rows: int = Field(description="Of the job's rows, those left out because a value was missing.")
    rank: int = Field(description="Coefficients that the rows determine, the intercept among them.")
    condition_number: float = Field(description="Of the centred feature columns at unit norm.")
    ranges: dict[str, list[float]] = Field(description="[minimum, maximum] of each column in training.")
    solver: dict[str, Any]
    weight_kind: str = Field(description="What the weights of the rows mean: `precision` or `frequency`.")
    shares: dict[str, float] | None = Field(
        description="What decay has left of a row, by the version in which it was added; null if it was not recorded."
    )
    mode: str = Field(description="What the job's rows were to those of the parent: `replace`, `update` or `forget`.")
    warnings: list[str]
    job: str | None
    parent: int | None
    created_at: str
    libraries: dict[str, str]


class CurrentModelView(ModelView):
    versions: list[int]


class ModelSummary(BaseModel):
    model: str
    version: int = Field(description="The current one.")
    features: list[str]
    targets: list[str]
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
    description="Those with a current version. A page has fewer where some of its models have none that can be read.",
    responses=problems(422),
)
def list_models(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    next: Annotated[str | None, Query(description="The `next` of the page before.")] = None,  # noqa: A002 - its name in the design
) -> ModelList:
    registry = services(request).registry
    last = "" if next is None else _last_of(next)
    names = [name for name in registry.models() if name > last]
    items = []
    for name in names[:limit]:
        try:
            card, versions = registry.current(name).card, registry.versions(name)
        except (NotFound, ModelFileInvalid):
            continue  # deleted meanwhile, or without one intact version, which the log says
        items.append(
            ModelSummary(
                model=name,
                version=card.version,
                features=list(card.features),
                targets=list(card.targets),
                versions=versions,
            )
        )
    return ModelList(items=items, next=_token(names[limit - 1]) if len(names) > limit else None)


@router.get(
    "/models/{model}",
    name="getModel",
    summary="Read a model's current card, and which versions there are",
    response_model=CurrentModelView,
    responses=problems(404),
)
def get_model(request: Request, model: ModelName, if_none_match: IfNoneMatch = None) -> Response:
    registry = services(request).registry
    version = registry.current(model)
    versions = registry.versions(model)
    tag = _tag(version.card.version, versions, model)
    if _has(if_none_match, tag):
        return Response(status_code=304, headers={"etag": tag})
    return bodies.json_response(_card(version, current=True) | {"versions": versions}, headers={"etag": tag})


@router.get(
    "/models/{model}/versions/{version}",
    name="getVersion",
    summary="Read a version's card",
    response_model=ModelView,
    responses=problems(404, 422),
)
def get_version(
    request: Request, model: ModelName, version: VersionNumber, if_none_match: IfNoneMatch = None
) -> Response:
    registry = services(request).registry
    found = registry.version(model, version)
    current = registry.served_number(model) == version
    tag = f'"{model}/{version}/{"current" if current else "other"}"'
    if _has(if_none_match, tag):
        return Response(status_code=304, headers={"etag": tag})
    return bodies.json_response(_card(found, current=current), headers={"etag": tag})


@router.get(
    "/models/{model}/versions/{version}/file",
    name="downloadVersion",
    summary="Download a version as a safetensors file",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        **problems(404, 422),
    },
)
def download_version(
    request: Request, model: ModelName, version: VersionNumber, if_none_match: IfNoneMatch = None
) -> Response:
    file = services(request).registry.file(model, version)
    tag = f'"{model}/{version}"'
    if _has(if_none_match, tag):
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
    dependencies=[needs(Right.ADMIN)],
    summary="Promote a version, or roll back to it",
    description=(
        "Every worker serves it from its next request on. With If-Match and the ETag of `GET /models/{model}`, only if "
        "nothing was promoted, published or deleted since."
    ),
    response_model=CurrentModelView,
    openapi_extra=bodies.documented(Promotion, {"Roll back to version 1": {"version": 1}}),
    responses=problems(404, 412, 413, 415, 422),
)
async def promote(
    request: Request,
    model: ModelName,
    if_match: Annotated[str | None, Header(description="The ETag that has to be right still, or 412.")] = None,
) -> Response:
    bodies.content_type(request, bodies.JSON)
    promotion = bodies.decode(Promotion, await bodies.read(request, MAX_PROMOTION_BYTES))
    registry = services(request).registry

    def check() -> None:
        if if_match is None:
            return
        number = registry.served_number(model)
        if number is None or not _has(if_match, _tag(number, registry.versions(model), model), weakly=False):
            raise PreconditionFailed("The model changed since: its ETag is another one now.")

    await run_in_threadpool(registry.promote, model, promotion.version, check)
    return await run_in_threadpool(get_model, request, model)


@router.delete(
    "/models/{model}/versions/{version}",
    name="deleteVersion",
    dependencies=[needs(Right.ADMIN)],
    summary="Delete a version",
    description="Neither the current one nor the one that is served in its place. Its number is not used again.",
    status_code=204,
    responses=problems(404, 409, 422),
)
def delete_version(request: Request, model: ModelName, version: VersionNumber) -> None:
    services(request).registry.delete(model, version)


def _tag(current: int, versions: list[int], model: str) -> str:
    return f'"{model}/{current}/of-{len(versions)}-{versions[-1]}"'


def _has(condition: str | None, tag: str, *, weakly: bool = True) -> bool:
    """Whether a condition has this entity tag among its own: weakly for If-None-Match, not so for If-Match.

    RFC 9110, 13.1: a weak tag says that what it stands for is much the same, which is too little to change it.
    """
    found = [] if condition is None else [one.strip() for one in condition.split(",")]
    return "*" in found or tag in found or (weakly and f"W/{tag}" in found)


def _token(last: str) -> str:
    """What asks for the models behind the last of a page."""
    return base64.urlsafe_b64encode(last.encode()).decode()


def _last_of(token: str) -> str:
    try:
        last = base64.urlsafe_b64decode(token.encode()).decode()
    except ValueError:
        last = ""
    if not re.fullmatch(MODEL_NAME, last):
        raise InvalidInput.at("/next", "The token comes from the `next` of a page before.")
    return last


def _card(version: Version, *, current: bool) -> dict[str, Any]:
    card, model = version.card, version.model
    ranges = np.column_stack([model.statistics.minimum, model.statistics.maximum]).tolist()
    inference = None
    if card.no_intervals is None:
        inference = infer(model)
    return {
        "model": card.model,
        "version": card.version,
        "current": current,
        "features": card.features,
        "targets": card.targets,
        "terms": card.terms,
        "intercept": dict(zip(card.targets, model.intercept.tolist(), strict=True)),
        "coefficients": {
            target: dict(zip(model.columns, row, strict=True))
            for target, row in zip(card.targets, model.weights.tolist(), strict=True)
        },
        **_inference(version, inference),
        "no_intervals": card.no_intervals,
        "metrics": card.metrics,
        "validation": None if card.validation is None else msgspec.to_builtins(card.validation),
        "no_folds": card.no_folds,
        "rows": card.rows,
        "dropped_rows": card.dropped_rows,
        "rank": card.rank,
        "condition_number": card.condition_number,
        "ranges": dict(zip(model.columns, ranges, strict=True)),
        "solver": msgspec.to_builtins(card.solver),
        "weight_kind": card.weight_kind,
        "shares": None if card.shares is None else {str(version): share for version, share in card.shares.items()},
        "mode": card.mode,
        "warnings": card.warnings,
        "job": card.job,
        "parent": card.parent,
        "created_at": card.created_at,
        "libraries": card.libraries,
    }


def _inference(version: Version, inference: Inference | None) -> dict[str, Any]:
    if inference is None:
        fields = ("standard_errors", "t_values", "p_values", "confidence_intervals", "f_tests", "residual_deviation")
        return dict.fromkeys(fields)
    card, skipped = version.card, not version.model.has_intercept
    names = ("intercept", *version.model.columns)[skipped:]

    def by_target(values: Any) -> dict[str, Any]:
        return {
            target: dict(zip(names, row[skipped:], strict=True))
            for target, row in zip(card.targets, values.tolist(), strict=True)
        }

    f_tests = zip(inference.f_values.tolist(), inference.f_p_values.tolist(), strict=True)
    return {
        "standard_errors": by_target(inference.standard_errors),
        "t_values": by_target(inference.t_values),
        "p_values": by_target(inference.p_values),
        "confidence_intervals": by_target(np.stack([inference.lower, inference.upper], axis=-1)),
        "f_tests": {
            target: {"f": f, "p_value": p_value} for target, (f, p_value) in zip(card.targets, f_tests, strict=True)
        },
        "residual_deviation": dict(zip(card.targets, inference.residual_deviation.tolist(), strict=True)),
    }
