"""All pages, and the files that they load."""

from fastapi import APIRouter, FastAPI

from app.pages import models_page
from app.web.routes.docs import WholeFiles

PAGES: tuple[APIRouter, ...] = (models_page.router,)

STATIC = "/static"


def install(app: FastAPI) -> None:
    """Serve the pages. Call it before the routes of the API are added, which have the same paths."""
    app.mount(STATIC, WholeFiles(packages=[("app.pages", "static")]), name="static")
    for router in PAGES:
        app.include_router(router)
