"""The page on which a person imports a model that was fitted elsewhere, from a file."""

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.errors import Forbidden, InvalidInput, LinserveError, UnsupportedMediaType
from app.exchange import IMPORTS
from app.pages.access import MULTIPART, AccessScope, check_csrf, form_access, page_access
from app.pages.csrf import FIELD as CSRF
from app.pages.page_route import PageRoute
from app.pages.rendering import render
from app.pages.train_form import value_of
from app.web import bodies
from app.web.imports import import_version
from app.web.multipart import Form
from app.web.paths import prefix
from app.web.problems import problem_from_error
from app.web.recognition import open_form

MODEL = "model"  # Name of the form's field.
# Texts of the choices of `promote`.
PROMOTIONS = {
    "always": "Make the version current",
    "if_better": "Make it current only if no version is",
    "never": "Do not make it current",
}
ACCEPTED = ",".join(sorted({extension for each in IMPORTS for extension in each.extensions}))

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/import", dependencies=[page_access(AccessScope.TRAIN)])
async def import_page(request: Request, model: str = "") -> Response:
    return _page(request, {MODEL: model})


@router.post("/import", dependencies=[form_access(AccessScope.TRAIN, multipart=True)])
async def import_file(request: Request) -> Response:
    received = bodies.received_of(request)
    try:
        received.content_type = request.headers["content-type"]
        if not received.content_type.lower().startswith(MULTIPART):
            raise UnsupportedMediaType(f"Expected a form of the type {MULTIPART}.")
        await bodies.unless_disconnected(open_form(received))
        check_csrf(request, value_of(received.fields, CSRF))
        received.meaning = _options
        if not received.file_name:
            raise InvalidInput("No file was chosen. Choose a file with a model.")
        version = await import_version(request, value_of(received.fields, MODEL), None)
    except Forbidden:
        raise
    except LinserveError as error:
        return _page(request, dict(received.fields.given), error)
    card = version.card
    return RedirectResponse(
        f"{prefix(request.scope)}/models/{card.model}/versions/{card.version}", HTTPStatus.SEE_OTHER
    )


def _options(form: Form) -> Form:
    """Return the fields of the form that are options of an import."""
    options = [(name, text.strip()) for name, text in form.given if name not in (CSRF, MODEL)]
    return Form(options, form.options, is_complete=form.is_complete)


def _page(request: Request, values: dict[str, str], error: LinserveError | None = None) -> Response:
    problem = None if error is None else problem_from_error(type(error).__name__, error.message, error.details)
    if problem is not None:
        request.state.problem = problem  # for the log
    context: dict[str, Any] = {
        "title": "Import a model",
        "problem": problem,
        "faulty": [] if error is None else [fault.parameter for fault in error.details if fault.parameter],
        "values": values,
        "accepted": ACCEPTED,
        "promotions": PROMOTIONS,
    }
    return render(request, "import.html", context, HTTPStatus.OK if problem is None else problem["status"])
