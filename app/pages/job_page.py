"""The page of a job: how far it has come, its loss curve, and how it ended. A script keeps it up to date."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.errors import Conflict
from app.jobs.job import Job
from app.jobs.queue import LATEST
from app.pages.access import AccessScope, form_access, page_access
from app.pages.charts import svg
from app.pages.charts.loss import Curve, loss_chart, rate_gauge
from app.pages.job_views import METRICS, error_of, metrics_of, phase_of, run_seconds, run_time, share_done, thinned
from app.pages.page_route import PageRoute
from app.pages.rendering import render
from app.web.paths import prefix
from app.web.problems import problem_from_error
from app.web.query import JobId
from app.web.state import get_services

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/jobs/{job}", dependencies=[page_access(AccessScope.READ)])
def job_page(request: Request, job: JobId) -> Response:
    found = get_services(request).jobs.get(job)
    if job == LATEST:
        return RedirectResponse(_url(request, found), 303)
    return render(request, "job.html", _context(request, found))


@router.post("/jobs/{job}/cancel", dependencies=[form_access(AccessScope.TRAIN)])
def cancel(request: Request, job: JobId) -> Response:
    queue = get_services(request).jobs
    request.state.job = job  # for the log
    try:
        cancelled = queue.cancel(job)
    except Conflict as error:
        problem = problem_from_error(type(error).__name__, error.message, error.details)
        context = _context(request, queue.get(job)) | {"refused": problem}
        return render(request, "job.html", context, problem["status"])
    return RedirectResponse(_url(request, cancelled), 303)


def _url(request: Request, job: Job) -> str:
    return f"{prefix(request.scope)}/jobs/{job.id}"


def _context(request: Request, job: Job) -> dict[str, Any]:
    progress, curve = job.progress, job.loss_curve
    is_log = request.query_params.get("scale") != "linear"
    gauge = None
    if progress is not None and progress.learning_rate and progress.largest_learning_rate:
        gauge = rate_gauge(progress.learning_rate, progress.largest_learning_rate)
    return {
        "title": f"Training of {job.model}",
        "job": job,
        "phase": phase_of(job),
        "time": run_time(job),
        "seconds": run_seconds(job),
        "share": share_done(progress),
        "error": error_of(job),
        "metrics": metrics_of(job),
        "labels": METRICS,
        "chart": loss_chart([Curve("", curve)], "Loss curve", log=is_log) if curve else None,
        "is_log": is_log,
        "points": thinned(curve) if curve else [],
        "gauge": gauge,
        "rate": svg.number(progress.learning_rate if progress else None),
        "bound": svg.number(progress.largest_learning_rate if progress else None),
        "refused": None,
    }
