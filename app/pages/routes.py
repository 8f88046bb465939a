"""All pages, and the files that they load."""

from fastapi import APIRouter, FastAPI
from starlette.responses import Response

from app.errors import NotAcceptable
from app.pages import (
    compare_page,
    job_page,
    jobs_page,
    learn_page,
    login_page,
    model_page,
    models_page,
    promotion,
    train_page,
    try_it,
    version_page,
)
from app.pages.access import SignInRequired, sign_in_first
from app.pages.assets import STATIC, Assets

PAGES: tuple[APIRouter, ...] = (
    models_page.router,
    compare_page.router,
    train_page.router,
    job_page.router,
    learn_page.router,
    jobs_page.router,
    model_page.router,
    version_page.router,
    try_it.router,
    try_it.links,
    promotion.router,
    login_page.router,
)

# Paths of pages that are no resources of the API.
PAGES_ONLY = ("/learn", "/login", "/models/{model}/compare")


def install(app: FastAPI) -> None:
    """Serve the pages. Call it before the routes of the API are added, which have the same paths."""
    app.mount(STATIC, Assets(), name="static")
    app.add_exception_handler(SignInRequired, sign_in_first)
    for router in PAGES:
        app.include_router(router)
    for path in PAGES_ONLY:
        app.add_api_route(path, _only_a_page, include_in_schema=False)


async def _only_a_page() -> Response:
    raise NotAcceptable("This path is a page for people. Send `Accept: text/html`, as browsers do.")
