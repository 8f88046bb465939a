"""The page of all models."""

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.pages.access import AccessScope, page_access
from app.pages.page_route import PageRoute
from app.pages.rendering import render
from app.web.paths import prefix

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[page_access(AccessScope.READ)])


@router.get("/")
def models(request: Request) -> Response:
    return render(request, "models.html", {"title": "Models"})


@router.get("/models")
def other_path(request: Request) -> Response:
    return RedirectResponse(f"{prefix(request.scope)}/", 303)
