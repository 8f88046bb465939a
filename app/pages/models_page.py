"""The page of all models."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.pages.page_route import PageRoute
from app.pages.rendering import render
from app.web.auth import AccessScope, require_scope

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[require_scope(AccessScope.READ)])


@router.get("/")
def models(request: Request) -> Response:
    return render(request, "models.html", {"title": "Models"})
