"""POST /inspect: what a training would find in a file."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.data.formats import BY_MEDIA_TYPE, LABELS
from app.web import bodies
from app.web.auth import AccessScope, require_scope
from app.web.inspections import inspect_body
from app.web.schemas.inspection import InspectView
from app.web.schemas.openapi_schema import made_later
from app.web.schemas.problems import problem_responses
from app.web.schemas.train import CSV_EXAMPLE, EXAMPLES
from app.web.schemas.train_query import query_parameters
from app.web.state import get_services

# Without the models that the trainings name, and so without the rows of arrays, whose columns only a model names.
_EXAMPLES = {
    name: {option: value for option, value in example.items() if option != "model"}
    for name, example in EXAMPLES.items()
    if isinstance(next(iter(example.get("instances", [None]))), dict)
}

router = APIRouter(tags=["Train"], dependencies=[require_scope(AccessScope.TRAIN)])


@router.post(
    "/inspect",
    name="inspect",
    summary="Read a file as a training would, without training",
    description=(
        "Returns the kind of each column, its gaps, levels and range, the columns that would be left out, and the "
        "warnings. Nothing is stored. Takes the same bodies and options as `POST /train`; `targets` are optional. With "
        f"`model`, the file is compared with the model's current version. Rows come as JSON, or as a file: {LABELS}. "
        "Of a `source`, the first files are read, with as many bytes as an upload may have."
    ),
    response_model=InspectView,
    openapi_extra=made_later(
        lambda: {
            **bodies.openapi_request_body(
                "InspectBody", _EXAMPLES, csv_example=CSV_EXAMPLE, options=query_parameters()
            ),
            "parameters": query_parameters(),
        }
    ),
    responses=problem_responses(404, 413, 415, 422, 507),
)
async def inspect(request: Request) -> Response:
    media_type = await bodies.content_type(request, bodies.JSON, *BY_MEDIA_TYPE)
    return bodies.json_response(await inspect_body(get_services(request), request, BY_MEDIA_TYPE.get(media_type)))
