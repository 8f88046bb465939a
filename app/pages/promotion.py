"""The form that makes a version current, which also rolls back."""

from http import HTTPStatus

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.errors import InvalidInput, PreconditionFailed
from app.pages.access import AccessScope, form_access, form_of
from app.pages.page_route import PageRoute
from app.pages.rendering import render
from app.registry.base import ModelReader
from app.web.paths import prefix
from app.web.query import ModelName
from app.web.state import get_services

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[form_access(AccessScope.ADMIN)])

NONE = "none"  # Value of the field `expected` if no version was current.
MAX_DIGITS = 12


@router.post("/models/{model}/current")
async def promote(request: Request, model: ModelName) -> Response:
    """Promote the version, unless another one has become current since the form was made."""
    form = form_of(request)
    number, expected = _number_in(form.get("version")), form.get("expected", "")
    registry, splits = get_services(request).registry, get_services(request).splits

    def check() -> None:
        check_current(registry, model, expected)
        splits.before_promotion(model, number)

    try:
        await run_in_threadpool(registry.promote, model, number, check)
    except PreconditionFailed:
        current = await run_in_threadpool(registry.served_number, model)
        context = {
            "title": "Another version is current now",
            "model": model,
            "version": number,
            "expected": expected,
            "current": current,
        }
        return render(request, "promotion_conflict.html", context, HTTPStatus.PRECONDITION_FAILED)
    before = f"&before={expected}" if expected.isdecimal() else ""
    return RedirectResponse(f"{prefix(request.scope)}/models/{model}?promoted={number}{before}", HTTPStatus.SEE_OTHER)


def check_current(registry: ModelReader, model: str, expected: str) -> None:
    """Raise PreconditionFailed unless the version with the number `expected`, or none, is current."""
    current = registry.served_number(model)
    if expected != (NONE if current is None else str(current)):
        raise PreconditionFailed("Another version has become current since the page was loaded.")


def _number_in(text: str | None) -> int:
    if text is None or not (text.isascii() and text.isdecimal()) or not 0 < len(text) <= MAX_DIGITS:
        raise InvalidInput.of_parameter("version", "Expected the number of a version, such as 2.")
    return int(text)
