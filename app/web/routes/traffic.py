"""/models/{model}/traffic: the shares of a model's requests that several versions answer, and a shadow."""

import re
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.data.json_faults import escaped
from app.data.names import MAX_LISTED, MAX_NAME_LENGTH, listed
from app.errors import Conflict, FieldError, InvalidInput
from app.prediction.column_differences import column_differences
from app.registry.base import ModelReader
from app.registry.model_card import ModelCard
from app.registry.names import no_version
from app.registry.splits import Split
from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.query import ModelName, reject_unknown_parameters
from app.web.schemas.problems import problem_responses
from app.web.schemas.traffic import EXAMPLES, TrafficTarget, TrafficView
from app.web.state import Services, get_services
from app.web.traffic_view import traffic_to_view

router = APIRouter(tags=["Models"], dependencies=[reject_unknown_parameters()])

MAX_BYTES = 1 << 12
MAX_VERSIONS = 20  # Versions in a split.
TOTAL = 100
_NUMBER = re.compile("[1-9][0-9]{0,11}")


@router.get(
    "/models/{model}/traffic",
    name="getTraffic",
    summary="Read the split of a model's traffic, with its counts",
    description=(
        "Requests that other workers answered are at most 10 s late in the counts, or 80 s if replicas share a bucket."
    ),
    response_model=TrafficView,
    responses=problem_responses(404, 422, 503),
    dependencies=[require_scope(AccessScope.READ)],
)
def get_traffic(request: Request, model: ModelName) -> Response:
    return bodies.json_response(traffic_to_view(get_services(request), model))


@router.put(
    "/models/{model}/traffic",
    name="setTraffic",
    summary="Split the requests of a model between versions, or let a shadow predict too",
    description=(
        "Applies to `POST /predict` and `POST /models/{model}/predict`. A client keeps its version. The header "
        "`Linserve-Sticky` identifies the client; without it, the client's address does. Each response names its "
        "version. A promotion ends the split. An `update` always starts from the current version. Every worker on this "
        "machine uses the split from its next request on, and replicas that share a bucket within a second. Versions "
        "of the split cannot be deleted.\n\n"
        "The rows of a client have to suit each version that has a share. If a version would reject or misread rows "
        "that the current version accepts, the response is 409, and `errors` has the columns: those that a version "
        "lacks or needs in addition, those of another kind, with other levels or other rules for missing values, and "
        "those that have another place in arrays. The columns of a shadow are not compared."
    ),
    response_model=TrafficView,
    openapi_extra=bodies.openapi_request_body(TrafficTarget, EXAMPLES),
    responses=problem_responses(404, 409, 413, 415, 422, 503),
    dependencies=[require_scope(AccessScope.ADMIN)],
)
async def set_traffic(
    request: Request,
    model: ModelName,
    *,
    force: Annotated[
        bool, Query(description="Set the split even if a version rejects or misreads some rows.", examples=[True])
    ] = False,
) -> Response:
    await bodies.content_type(request, bodies.JSON)
    target = bodies.decode(TrafficTarget, await bodies.read_body(request, MAX_BYTES))
    shares, services = _shares(target), get_services(request)
    await run_in_threadpool(_set, services, model, shares, target.shadow, force=force)
    return bodies.json_response(await run_in_threadpool(traffic_to_view, services, model))


@router.delete(
    "/models/{model}/traffic",
    name="deleteTraffic",
    summary="End a split: the current version answers all requests",
    description="A model without a split is not changed.",
    status_code=204,
    responses=problem_responses(404, 409, 422, 503),
    dependencies=[require_scope(AccessScope.ADMIN)],
)
def delete_traffic(request: Request, model: ModelName) -> None:
    services = get_services(request)
    services.registry.versions(model)
    services.splits.remove(model)


def _shares(target: TrafficTarget) -> dict[int, int]:
    """Return the percentages by version; none if there is only a shadow. Raises InvalidInput."""
    given = target.__pydantic_extra__ or {}
    for name in given:
        if not _NUMBER.fullmatch(name):
            pointer = f"/{escaped(name)}" if len(name) <= MAX_NAME_LENGTH else ""
            raise InvalidInput.at(pointer, 'Expected numbers of versions, such as "7", and `shadow`.')
    if not given and target.shadow is None:
        raise InvalidInput.at("", 'Expected percentages by version, such as {"7": 90, "8": 10}, or a `shadow`.')
    if len(given) > MAX_VERSIONS:
        raise InvalidInput.at("", f"A split has at most {MAX_VERSIONS} versions.")
    if given and (total := sum(given.values())) != TOTAL:
        raise InvalidInput.at("", f"The percentages sum to {total}. Expected {TOTAL}.")
    return {int(name): share for name, share in given.items()}


def _set(services: Services, model: str, shares: dict[int, int], shadow: int | None, *, force: bool) -> None:
    """Set the split for the version that is current now. Raises InvalidInput, NotFound, Conflict, Unavailable."""
    registry = services.registry
    versions, current = registry.versions(model), registry.current(model).card
    for number in [*shares, *([] if shadow is None else [shadow])]:
        if number not in versions:
            raise no_version(model, number)
    shares = shares or {current.version: TOTAL}
    answering = {number for number, share in shares.items() if share}
    if shadow is not None and answering == {shadow}:
        message = f"Version {shadow} answers all requests, so it cannot be their shadow. Name another version."
        raise InvalidInput.at("/shadow", message)
    if not force:
        _check_columns(registry, current, sorted(answering - {current.version}))
    services.splits.set(model, Split.new(current.version, shares, shadow))


def _check_columns(registry: ModelReader, current: ModelCard, versions: Iterable[int]) -> None:
    """Raise Conflict if one of the versions rejects or misreads rows that the current version accepts."""
    found = {number: column_differences(registry.card(current.model, number), current) for number in versions}
    details = [
        FieldError(message, pointer=f"/{number}", column=column)
        for number, differences in found.items()
        for column, message in differences
    ]
    if details:
        number = next(number for number, differences in found.items() if differences)
        names = listed([difference.column for difference in found[number]])
        message = (
            f"Version {number} would reject or misread rows that the current version {current.version} accepts, "
            f"because of {names}. Train a version with the same columns, or add ?force=true if no client sends such "
            "rows."
        )
        raise Conflict(message, details[:MAX_LISTED])
