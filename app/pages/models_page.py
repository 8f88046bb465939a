"""The page of all models."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from markupsafe import Markup
from starlette.responses import RedirectResponse, Response

from app.errors import ModelFileInvalid, NotFound
from app.monitoring.monitor import Traffic
from app.pages.access import AccessScope, page_access
from app.pages.charts.sparkline import sparkline
from app.pages.error_history import ErrorHistory
from app.pages.page_route import PageRoute
from app.pages.rendering import render
from app.registry.base import ModelReader
from app.registry.model_card import ModelCard
from app.web.card_reasons import NO_VARIATION
from app.web.paths import prefix
from app.web.routes.models import decode_cursor, encode_cursor
from app.web.state import get_services

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[page_access(AccessScope.READ)])

PAGE = 50  # Models on a page.
MAX_TARGETS = 3  # Targets of a model whose fit is shown.

_history = ErrorHistory()


@dataclass(frozen=True)
class Fit:
    """How well a model fits one target."""

    target: str
    r2: float | None
    reason: str  # the reason if `r2` is None


@dataclass(frozen=True)
class Row:
    """A model in the table. The card is that of the current version, or of the newest one if none is current."""

    model: str
    current: int | None
    versions: int
    card: ModelCard | None
    fault: str | None  # why the card cannot be read
    fits: tuple[Fit, ...]
    more_targets: int
    line: Markup
    error: float | None  # cross-validated, of the newest version that has one
    traffic: Traffic


@router.get("/")
def models(
    request: Request,
    next: Annotated[str | None, Query()] = None,  # noqa: A002 - its name in the URL
    q: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    services = get_services(request)
    registry = services.registry
    wanted = q.strip().lower()
    names = [name for name in registry.models() if wanted in name]
    start = 0 if next is None else bisect_right(names, decode_cursor(next))
    listed = {}
    for name in names[start : start + PAGE]:
        try:
            listed[name] = registry.versions(name)
        except NotFound:  # deleted meanwhile
            continue
    errors, complete = _history.read(registry, listed.items())
    traffic = services.monitor.traffic_of(listed)
    rows = [_row(registry, name, numbers, errors[name], traffic[name]) for name, numbers in listed.items()]
    context = {
        "title": "Models",
        "rows": rows,
        "total": len(names),
        "first": start + 1,
        "searched": q,
        "has_search": bool(wanted) or len(names) > PAGE,
        "complete": complete,
        "previous": _link(request, names, start - PAGE, wanted) if start > 0 else None,
        "next": _link(request, names, start + PAGE, wanted) if start + PAGE < len(names) else None,
    }
    return render(request, "models.html", context)


@router.get("/models")
def other_path(request: Request) -> Response:
    return RedirectResponse(f"{prefix(request.scope)}/", 303)


def _link(request: Request, names: list[str], start: int, wanted: str) -> str:
    """Return the link to the page that begins with the model at this index."""
    query = {"q": wanted} if wanted else {}
    if start > 0:
        query["next"] = encode_cursor(names[start - 1])
    return f"{prefix(request.scope)}/" + (f"?{urlencode(query)}" if query else "")


def _row(
    registry: ModelReader, model: str, versions: list[int], errors: dict[int, float | None], traffic: Traffic
) -> Row:
    current = registry.current_number(model)
    card, fault = None, None
    try:
        card = registry.card(model, versions[-1] if current is None else current)
    except (NotFound, ModelFileInvalid) as error:
        fault = error.message
    targets = () if card is None else card.targets
    return Row(
        model=model,
        current=current,
        versions=len(versions),
        card=card,
        fault=fault,
        fits=() if card is None else tuple(_fit(card, target) for target in targets[:MAX_TARGETS]),
        more_targets=max(0, len(targets) - MAX_TARGETS),
        line=sparkline(errors, "Cross-validated error"),
        error=next((error for error in reversed(errors.values()) if error is not None), None),
        traffic=traffic,
    )


def _fit(card: ModelCard, target: str) -> Fit:
    return Fit(target, card.metrics.get(target, {}).get("r2"), card.inference_unavailable or NO_VARIATION)
