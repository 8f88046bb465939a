"""Every error as application/problem+json (RFC 9457), and the one table from errors to statuses."""

import functools
import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app import errors
from app.data.names import MAX_NAME_LENGTH
from app.errors import FieldError, InvalidInput, LinserveError
from app.logs import request_id
from app.web.hints import not_json
from app.web.methods import allowed_methods, similar_path
from app.web.path_prefix import prefix
from app.web.validation_messages import pointer_of, sentence

NO_CONTENT = 204
METHOD_NOT_ALLOWED = 405
MAX_DETAILS = 20
UNAUTHENTICATED = 401
RETRY_SECONDS = {429: 5, 503: 1, 507: 30}
BUSY_SECONDS = 5  # After a WorkerBusy: about as long as a table of a million rows takes.

# A subclass that is not listed has its parent's status.
STATUS: dict[type[LinserveError], int] = {
    errors.MalformedBody: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.NotAcceptable: 406,
    errors.PreconditionFailed: 412,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.InvalidInput: 422,
    errors.PreconditionRequired: 428,
    errors.TrainingFailed: 422,
    errors.QueueFull: 429,
    errors.TrainerCrashed: 500,
    errors.Unavailable: 503,
    errors.SpoolFull: 507,
    LinserveError: 500,
}


class ProblemDetail(BaseModel):
    """One fault: what, and where in the body (a JSON pointer), the parameters, or the file (row and column)."""

    detail: str
    pointer: str | None = Field(None, description="JSON pointer into the body.", examples=["/instances/0/temp"])
    parameter: str | None = Field(None, description="Name of the query, path or header parameter.")
    row: int | None = Field(None, description="Row of the file; the header is row 1. The first in which it occurs.")
    column: str | None = Field(None, description="Column of the file.")


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["urn:linserve:problem:invalid-input"])
    title: str = Field(examples=["Invalid input"])
    status: int = Field(examples=[422])
    detail: str = Field(description="What was received, what was expected, and what to do.")
    errors: list[ProblemDetail] = Field(
        [], description=f"One for each column or option at fault, at most {MAX_DETAILS}."
    )
    request_id: str | None = Field(None, description="Also in the X-Request-ID header and in the log.")


def problem_responses(*statuses: int, open_to_all: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route: its own problems, and those that the server can answer with before it."""
    titles = {
        400: "The request is not HTTP, or its body not what its content type says.",
        401: "No valid API key.",
        403: "The API key lacks the scope; or, without keys, the request does not come from this machine.",
        404: "The path, model, version or job does not exist.",
        406: "None of the accepted content types is supported.",
        408: "The request came too slowly.",
        409: "Not possible in the current state.",
        412: "The model has changed since the ETag was read.",
        413: "The body is too large.",
        414: "The path and its query are too long.",
        415: "This content type or encoding is not supported.",
        422: "A value is invalid; `errors` has the places.",
        428: "The If-Match header is missing.",
        429: "Too many jobs are waiting.",
        431: "The headers are too many or too large.",
        500: "A bug in the service.",
        503: "Temporarily unavailable; `Retry-After` has the seconds to wait.",
        507: "There is no disk space to store the request.",
    }
    always = (*(() if open_to_all else (401, 403)), 400, 408, 414, 431, 500, 503)
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": titles[status], "content": content} for status in sorted({*always, *statuses})}


def problem_from_error(name: str, message: str, details: Iterable[FieldError]) -> dict[str, Any]:
    """A problem object for an error of `app.errors`, given by its name as a job's record has it."""
    kind = getattr(errors, name, LinserveError)
    status = next(STATUS[base] for base in kind.__mro__ if base in STATUS)
    places = [
        {key: value for key, value in _place(detail).items() if value is not None}
        for detail in itertools.islice(details, MAX_DETAILS)
    ]
    return _problem(status, name, message, places)


def problem_response(status: int, name: str, detail: str) -> Response:
    """Return the response to a request that did not reach a route."""
    later = {"retry-after": str(BUSY_SECONDS)} if name == errors.WorkerBusy.__name__ else None
    return _response(_problem(status, name, detail, []), later)


def server_error() -> Response:
    """Return the response for a bug in the service: only the request id, under which the log has the rest."""
    return _response(_problem(500, "InternalError", "The service has a bug. Its log has the details.", []))


def invalid(error: ValidationError, body: bytes, schema: type[BaseModel]) -> LinserveError:
    """Return the error for a JSON body in which pydantic found faults against this schema."""
    found = error.errors(include_url=False)
    if found[0]["type"] == "json_invalid":
        return not_json(body, found[0]["msg"])
    details = [
        FieldError(sentence(fault, found, schema), pointer=pointer_of(fault["loc"])) for fault in found[:MAX_DETAILS]
    ]
    return InvalidInput(f"{len(found)} fault(s) in the body. {_first(details[0])}", details)


def _first(detail: FieldError) -> str:
    place = detail.pointer or detail.parameter
    return f"{place}: {detail.message}" if place else detail.message


def invalid_query(error: ValidationError, known: Collection[str]) -> InvalidInput:
    """Return the error for a query in which pydantic found faults; `known` are the names of its options."""
    found = error.errors(include_url=False)
    details = []
    for fault in found[:MAX_DETAILS]:
        parameter = next((str(step) for step in reversed(fault["loc"]) if step in known), None)
        details.append(FieldError(sentence(fault), parameter=parameter))
    return InvalidInput(f"{len(found)} fault(s) in the query. {_first(details[0])}", details)


def add_exception_handlers(app: FastAPI) -> None:
    """Answer with problems wherever FastAPI or Starlette would answer with something else."""

    @app.exception_handler(LinserveError)
    async def _linserve(request: Request, error: LinserveError) -> Response:
        later = {"retry-after": str(BUSY_SECONDS)} if isinstance(error, errors.WorkerBusy) else None
        return _answer(request, problem_from_error(type(error).__name__, error.message, error.details), later)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        details = []
        for fault in found[:MAX_DETAILS]:
            where, *rest = fault["loc"]
            if where == "body":
                details.append(FieldError(sentence(fault), pointer=pointer_of(rest)))
            else:
                details.append(FieldError(sentence(fault), parameter=str(rest[0])))
        place = "query" if all(fault["loc"][0] == "query" for fault in found) else "request"
        message = f"{len(found)} fault(s) in the {place}. {_first(details[0])}"
        return _answer(request, problem_from_error(InvalidInput.__name__, message, details))

    @app.exception_handler(Exception)
    async def _fault(_: Request, __: Exception) -> Response:
        return server_error()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        return _answer_to(request, error, app)


def _answer_to(request: Request, error: HTTPException, app: FastAPI) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == NO_CONTENT:
        return Response(status_code=NO_CONTENT, headers=headers)
    if error.status_code == METHOD_NOT_ALLOWED:
        # Of one route only; others of the same path have methods of their own.
        headers = {"allow": allowed_methods(app.routes, request.scope)}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    if request.method == "OPTIONS" and request.scope["path"] == "*":  # of the service as a whole
        return Response(status_code=204, headers={"allow": "GET, HEAD, POST, PUT, DELETE, OPTIONS"})
    names = {404: "NotFound", 405: "MethodNotAllowed", 413: "BodyTooLarge", 400: "MalformedBody"}
    index = f"{prefix(request.scope)}/"
    similar = similar_path(_paths(app), request.scope)
    details = {
        404: f"There is nothing at this path.{similar} GET {index} lists all calls.",
        405: (
            "This path does not support this method. Supported methods, as in the Allow header: "
            f"{headers.get('allow', '')}. GET {index} lists all calls, each with a line to paste."
        ),
    }
    name = names.get(error.status_code, "HttpError")
    detail = details.get(error.status_code, str(error.detail))
    return _answer(request, _problem(error.status_code, name, detail, []), headers)


@functools.cache
def _paths(app: FastAPI) -> list[str]:
    return [found.path for found in iter_route_contexts(app.routes) if found.path]


def _problem(status: int, name: str, detail: str, places: list[dict[str, Any]]) -> dict[str, Any]:
    words = re.findall("[A-Z][a-z]*", name)
    problem: dict[str, Any] = {
        "type": f"urn:linserve:problem:{'-'.join(words).lower()}",
        "title": " ".join(words).capitalize(),
        "status": status,
        "detail": detail,
    }
    if places:
        problem["errors"] = places
    if (current := request_id.get()) is not None:
        problem["request_id"] = current
    return problem


def _answer(request: Request, problem: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    request.state.problem = problem  # for the log
    return _response(problem, headers)


def _response(problem: dict[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    status = problem["status"]
    added = {"retry-after": str(RETRY_SECONDS[status])} if status in RETRY_SECONDS else {}
    if status == UNAUTHENTICATED:
        added["www-authenticate"] = "Bearer"
    return Response(
        orjson.dumps(problem), status, headers={**added, **(headers or {})}, media_type="application/problem+json"
    )


def _place(detail: FieldError) -> dict[str, Any]:
    # A column that no name could have is not named; its row is.
    column = detail.column if detail.column and len(detail.column) <= MAX_NAME_LENGTH else None
    places = {"pointer": detail.pointer, "parameter": detail.parameter, "row": detail.row, "column": column}
    return {"detail": detail.message, **places}


# Pydantic puts the name of the chosen alternative into the place; it is not in the body.
