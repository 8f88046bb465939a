"""The page on which a person trains a model from a file, after a look at its first rows and its columns."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.data.formats import BY_MEDIA_TYPE, BY_SUFFIX
from app.data.formats.base import TableFormat
from app.errors import Forbidden, InvalidInput, LinserveError, UnsupportedMediaType
from app.pages.access import AccessScope, check_csrf, form_access, page_access
from app.pages.csrf import FIELD as CSRF
from app.pages.page_route import PageRoute, wants_fragment
from app.pages.rendering import render
from app.pages.train_form import PREVIEW_OF, options_of, suggested_model, value_of, values_of, without_new_model
from app.pages.train_preview import Preview
from app.training.request import DIAGNOSED_ROWS
from app.web import bodies
from app.web.inspections import inspect_body
from app.web.job_response import new_job_id
from app.web.multipart import Form
from app.web.paths import prefix
from app.web.problems import problem_from_error
from app.web.schemas.solver_options import SOLVER_OPTIONS
from app.web.state import Services, get_services
from app.web.submissions import submit_file, submit_json

MAX_SUGGESTED_MODELS = 200  # Names offered for the model.
ACCEPTED = ",".join(sorted(f".{suffix}" for suffix in (*BY_SUFFIX, "json")))  # File names that a browser offers.

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/train", dependencies=[page_access(AccessScope.TRAIN)])
async def train_page(request: Request, model: str = "") -> Response:
    return await _page(request, Preview(request), model=model)


@router.get("/inspect", dependencies=[page_access(AccessScope.TRAIN)])
async def reloaded(request: Request) -> Response:
    """Send a browser that opens the address of a preview to the form."""
    return RedirectResponse(f"{prefix(request.scope)}/train", HTTPStatus.SEE_OTHER)


@router.post("/inspect", dependencies=[form_access(AccessScope.TRAIN, multipart=True)])
async def preview(request: Request) -> Response:
    shown = Preview(request)
    try:
        models = frozenset(await run_in_threadpool(get_services(request).registry.models))
        table_format = await _open_form(request, lambda form: without_new_model(form, models))
        shown.view = await inspect_body(get_services(request), request, table_format, shown.watch(always=True))
    except Forbidden:
        raise
    except LinserveError as error:
        return await _page(request, shown, error)
    return await _page(request, shown)


@router.post("/train", dependencies=[form_access(AccessScope.TRAIN, multipart=True)])
async def train(request: Request) -> Response:
    services, shown = get_services(request), Preview(request)
    try:
        services.jobs.uploads.check_room(bodies.content_length(request))  # before a byte of the file is awaited
        table_format = await _open_form(request)
        job_id, watch = new_job_id(None), shown.watch(always=False)
        if table_format is None:
            job = await submit_json(services, request, job_id, watch)
        else:
            job = await submit_file(services, request, table_format, job_id, watch)
    except Forbidden:
        raise
    except LinserveError as error:
        return await _page(request, shown, error)
    request.state.job = job.id  # for the log
    return RedirectResponse(f"{prefix(request.scope)}/jobs/{job.id}", HTTPStatus.SEE_OTHER)


async def _open_form(request: Request, meaning: Callable[[Form], Form] = options_of) -> TableFormat | None:
    """Read the form up to its file, and check the token before it. Return the format of the file, or None for JSON.

    `meaning` returns the options that the fields stand for.
    """
    refused: UnsupportedMediaType | None = None
    try:
        media_type = await bodies.content_type(request, bodies.JSON, *BY_MEDIA_TYPE)
    except UnsupportedMediaType as error:
        refused, media_type = error, ""
    received = bodies.received_of(request)
    check_csrf(request, value_of(received.fields, CSRF))
    received.meaning = meaning
    if not received.file_name and not received.head:
        raise InvalidInput("No file was chosen. Choose one.")
    if refused is not None:
        raise refused
    return BY_MEDIA_TYPE.get(media_type)


async def _page(request: Request, shown: Preview, error: LinserveError | None = None, *, model: str = "") -> Response:
    """Return the page; for a script that asks for the preview alone, that part of it."""
    problem = None if error is None else problem_from_error(type(error).__name__, error.message, error.details)
    if problem is not None:
        request.state.problem = problem  # for the log
    file_name = bodies.received_of(request).file_name
    suggestion, values = suggested_model(file_name), values_of(shown.form)
    context: dict[str, Any] = {
        "title": "Train a model",
        "path": "/train",
        "problem": problem,
        "faulty": [] if error is None else [fault.parameter for fault in error.details if fault.parameter],
        "accepted": ACCEPTED,
        "values": {**values, "model": values.get("model") or model or suggestion},
        "suggested_model": suggestion,
        "default_model": get_services(request).default_model,
        "solvers": {kind: options.model_fields for kind, options in SOLVER_OPTIONS.items()},
        "diagnosed_rows": DIAGNOSED_ROWS,
        "file_name": file_name,
        "preview_of": value_of(shown.form, PREVIEW_OF),
        **shown.context(),
    }
    status = HTTPStatus.OK if problem is None else problem["status"]
    if wants_fragment(request):
        return render(request, "_train_preview.html", context, status)
    context["models"] = await run_in_threadpool(_models, get_services(request))
    return render(request, "train.html", context, status)


def _models(services: Services) -> list[str]:
    return services.registry.models()[:MAX_SUGGESTED_MODELS]
