"""The page of a model: its current version, or its versions if none is current."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors import NoCurrentVersion
from app.pages.access import AccessScope, page_access
from app.pages.charts.svg import number
from app.pages.lineage import lineage
from app.pages.page_route import PageRoute
from app.pages.promotion import NONE
from app.pages.rendering import render
from app.pages.version_page import Links, Options, respond
from app.web.paths import prefix
from app.web.query import ModelName
from app.web.schemas.models import NO_CURRENT
from app.web.state import get_services

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[page_access(AccessScope.READ)])


@router.get("/models/{model}")
def model_page(request: Request, model: ModelName, options: Options) -> Response:
    registry = get_services(request).registry
    try:
        version = registry.current(model)
    except NoCurrentVersion:
        rows = lineage(registry, model, None, options.older)
        path = f"/models/{model}"
        context = {
            "title": model,
            "model": model,
            "page_path": path,
            "current": None,
            "is_current": False,
            "version": None,
            "number": number,
            "note": NO_CURRENT,
            "lineage": rows,
            "newest": registry.versions(model)[-1],
            "expected": NONE,
            "same_page": Links(prefix(request.scope) + path, options),
        }
        return render(request, "_lineage.html" if options.part == "versions" else "unpromoted.html", context)
    return respond(request, version, version.card.version, options, in_path=None)
