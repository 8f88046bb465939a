"""All pages, and the files that they load."""

from fastapi import APIRouter, FastAPI
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app.errors import NotAcceptable
from app.pages import (
    compare_page,
    import_page,
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
from app.pages.page_route import PAGES_ONLY, is_page_only, wants_page

PAGES: tuple[APIRouter, ...] = (
    models_page.router,
    compare_page.router,
    train_page.router,
    import_page.router,
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


class PagesRouter(APIRouter):
    """The routes of all pages. Requests to the API skip them, because comparing a path with every route is slow."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and not wants_page(scope) and not is_page_only(scope["path"]):
            return Match.NONE, {}
        return super().matches(scope)


def install(app: FastAPI) -> None:
    """Serve the pages. Call it before the routes of the API are added, which have the same paths."""
    app.mount(STATIC, Assets(), name="static")
    app.add_exception_handler(SignInRequired, sign_in_first)
    pages = PagesRouter()
    for router in PAGES:
        pages.include_router(router)
    for path in PAGES_ONLY:
        pages.add_api_route(path, _only_a_page, include_in_schema=False)
    app.include_router(pages)


async def _only_a_page() -> Response:
    raise NotAcceptable("This path is a page for people. Send `Accept: text/html`, as browsers do.")
