"""/models/{model}/actuals: receive outcomes, and read the errors of the recorded predictions."""

from dataclasses import asdict

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.data.formats import LABELS
from app.monitoring.outcomes.records import LEVEL
from app.web import bodies
from app.web.actuals import match_request
from app.web.auth import AccessScope, require_scope
from app.web.query import ModelName, query_parameters, reject_unknown_parameters
from app.web.schemas.actuals import (
    CSV_EXAMPLE,
    EXAMPLES,
    ActualsParameters,
    ActualsRequest,
    ActualsResult,
    ActualsView,
)
from app.web.schemas.openapi_schema import made_later
from app.web.schemas.problems import problem_responses
from app.web.state import get_services
from app.web.windows import DAY, WindowText, parse_window

router = APIRouter(tags=["Evaluate"])

LONGEST = 3650 * DAY  # Longest window, in seconds: as LINSERVE_ACTUALS_DAYS.


@router.post(
    "/models/{model}/actuals",
    name="sendActuals",
    summary="Send outcomes of recorded predictions",
    description=(
        "Outcomes are matched to predictions that were sent with a `prediction_id`. The errors are those of the "
        f"predictions that were returned at the time. Rows come as JSON, or as a table: {LABELS}, with a column "
        "`prediction_id` and columns of targets; features are ignored. A request may be repeated, because the same "
        "outcome is counted once. If a row is invalid, nothing is stored."
    ),
    response_model=ActualsResult,
    openapi_extra=made_later(
        lambda: {
            **bodies.openapi_request_body(ActualsRequest, EXAMPLES, csv_example=CSV_EXAMPLE),
            "parameters": query_parameters(ActualsParameters),
        }
    ),
    responses=problem_responses(400, 404, 413, 415, 422, 503, 507),
    dependencies=[require_scope(AccessScope.TRAIN)],
)
async def send_actuals(request: Request, model: ModelName) -> Response:
    return bodies.json_response(await match_request(request, model))


@router.get(
    "/models/{model}/actuals",
    name="getActuals",
    summary="Read the errors of predictions whose outcomes are known",
    description=(
        "By version, for predictions made in the window. The window ends now and begins at a full hour. It is at most "
        "LINSERVE_ACTUALS_DAYS long."
    ),
    response_model=ActualsView,
    responses=problem_responses(404, 422, 503),
    dependencies=[require_scope(AccessScope.READ), reject_unknown_parameters()],
)
def get_actuals(
    request: Request,
    model: ModelName,
    window: WindowText = "7d",
) -> Response:
    services = get_services(request)
    services.registry.versions(model)
    outcomes = services.outcomes
    seconds = min(parse_window(window, LONGEST), outcomes.seconds)
    versions = outcomes.rolling(model, seconds)
    view = {
        "model": model,
        "window_seconds": seconds,
        "level": LEVEL,
        "versions": [
            {
                "version": number,
                "recorded": error.recorded,
                "matched": error.matched,
                "waiting": error.waiting,
                "targets": error.targets,
            }
            for number, error in versions.items()
        ],
        "usage": {"days": outcomes.seconds / DAY, **asdict(outcomes.usage())},
    }
    return bodies.json_response(view)
