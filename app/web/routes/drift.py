"""GET /models/{model}/drift: served rows compared with training rows."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.query import ModelName, reject_unknown_parameters
from app.web.schemas.drift import DriftView
from app.web.schemas.problems import problem_responses
from app.web.state import get_services
from app.web.windows import DAY, WindowText, parse_window

router = APIRouter(tags=["Models"], dependencies=[require_scope(AccessScope.READ), reject_unknown_parameters()])

LONGEST = 7 * DAY


@router.get(
    "/models/{model}/drift",
    name="getDrift",
    summary="Compare served rows with training rows",
    description=(
        "Differences of means, a distance of covariances, and the stability of the levels of categories, with the "
        "number of rows behind each. Rows of all workers are counted. Those of other workers are at most 10 s late, or "
        "80 s if replicas share a bucket. A window of up to 2 hours begins at a full 5 minutes, one of up to a day at "
        "a full hour, and a longer one at 0, 6, 12 or 18 o'clock (UTC)."
    ),
    response_model=DriftView,
    responses=problem_responses(404, 422),
)
def get_drift(
    request: Request,
    model: ModelName,
    window: WindowText = "24h",
    version: Annotated[int | None, Query(description="Number of the version, by default the current one.")] = None,
) -> Response:
    services = get_services(request)
    seconds = parse_window(window, LONGEST)
    loaded = services.registry.current(model) if version is None else services.registry.version(model, version)
    return bodies.json_response(services.monitor.drift(loaded, seconds))
