"""The page of all jobs: newest first, filtered and in pages."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

from app.errors import InvalidInput
from app.jobs.job import Status
from app.pages.access import AccessScope, page_access
from app.pages.job_views import error_of, run_time
from app.pages.page_route import PageRoute
from app.pages.rendering import render
from app.web.paths import prefix
from app.web.problems import invalid_query, problem_from_error
from app.web.query import check_query
from app.web.routes.jobs import job_filter
from app.web.state import Services, get_services

PAGE = 25  # Jobs on a page.
_MAX_MODELS = 500  # Names that the filter suggests.

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[page_access(AccessScope.READ)])


class _Query(BaseModel):
    """The parameters of the API's list. The page's own form sends an empty text for a condition that is not set."""

    status: Status | None = None
    model: str | None = None
    since: str | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = PAGE
    next: str | None = None


@router.get("/jobs")
def jobs(request: Request) -> Response:
    services = get_services(request)
    given = {name: value for name, value in request.query_params.items() if value}
    shown = {"status": given.get("status", ""), "model": given.get("model", ""), "since": given.get("since", "")}
    context: dict[str, Any] = {
        "title": "Jobs",
        "filter": shown,
        "is_filtered": any(shown.values()),
        "statuses": [status.value for status in Status],
        "models": services.registry.models()[:_MAX_MODELS],
    }
    try:
        context |= _list(services, request, given)
    except InvalidInput as error:
        problem = problem_from_error(type(error).__name__, error.message, error.details)
        fields = {detail.parameter for detail in error.details}
        context |= {"jobs": None, "next": None, "first": None, "problem": problem, "invalid": fields}
        return render(request, "jobs.html", context, problem["status"])
    return render(request, "jobs.html", context)


def _list(services: Services, request: Request, given: dict[str, str]) -> dict[str, Any]:
    """Return what the template shows of a page of the list. Raises InvalidInput."""
    check_query(request.query_params, _Query.model_fields)
    try:
        query = _Query.model_validate(given)
    except ValidationError as error:
        raise invalid_query(error, _Query.model_fields) from None
    conditions = job_filter(query.status, query.model, query.since)
    page = services.jobs.list(conditions, limit=query.limit, token=query.next)
    progress = services.jobs.store.progress([job.id for job in page.jobs])
    rows = [
        {
            "job": job,
            "time": run_time(job),
            "rows": progress[job.id].rows if job.id in progress else None,
            "error": error_of(job),
        }
        for job in page.jobs
    ]
    url = f"{prefix(request.scope)}/jobs"
    kept = {name: value for name, value in given.items() if name != "next"}
    return {
        "jobs": rows,
        "next": f"{url}?{urlencode({**kept, 'next': page.next})}" if page.next else None,
        "first": f"{url}?{urlencode(kept)}" if query.next else None,
        "problem": None,
        "invalid": set(),
    }
