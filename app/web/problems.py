"""Every error as application/problem+json (RFC 9457), and the one table from errors to statuses."""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any, TypeAlias

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
from app.web.paths import allowed_methods, prefix, similar_path
from app.web.validation_messages import pointer_of, sentence

NO_CONTENT = 204
UNAUTHENTICATED = 401
METHOD_NOT_ALLOWED = 405
MAX_DETAILS = 20
RETRY_SECONDS = {429: 5, 503: 1, 507: 30}
BUSY_SECONDS = 5  # Retry-After of a WorkerBusy, in seconds: the time that a table of a million rows takes.

# Makes the response to a request from a problem and the headers that its status needs.
Render: TypeAlias = Callable[[Request, Mapping[str, Any], Mapping[str, str]], Response]

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
    """One fault, and its place in the body (a JSON pointer), the parameters, or the file (row and column)."""

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
    """Return the `responses` of a route: its own problems, and those that the server sends for any request."""
    titles = {
        400: "The request is not HTTP, or its body does not match its content type.",
        401: "No valid API key.",
        403: "The API key lacks the scope; or, without keys, the request does not come from this machine.",
        404: "The path, model, version or job does not exist.",
        406: "None of the accepted content types is supported.",
        408: "The request was sent too slowly.",
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
    """Return the problem for an error of `app.errors`, given by its name, as the record of a job has it."""
    error_type = getattr(errors, name, LinserveError)
    status = next(STATUS[base] for base in error_type.__mro__ if base in STATUS)
    return _problem(status, name, message, map(_detail, itertools.islice(details, MAX_DETAILS)))


def problem_response(status: int, name: str, detail: str) -> Response:
    """Return the response to a request that did not reach a route."""
    return problem_document(_problem(status, name, detail), _headers(status, name))


def server_error() -> Response:
    """Return the response for a bug in the service: only the request id, under which the log has the rest."""
    return problem_document(_server_problem(), {})


def problem_document(problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """Return the problem as a response."""
    return Response(orjson.dumps(problem), problem["status"], headers=headers, media_type="application/problem+json")


def invalid(error: ValidationError, body: bytes, schema: type[BaseModel]) -> LinserveError:
    """Return the error for a JSON body in which pydantic found faults against this schema."""
    faults = error.errors(include_url=False)
    if faults[0]["type"] == "json_invalid":
        return not_json(body, faults[0]["msg"])
    details = [
        FieldError(sentence(fault, faults, schema), pointer=pointer_of(fault["loc"])) for fault in faults[:MAX_DETAILS]
    ]
    return _invalid_input("body", len(faults), details)


def invalid_query(error: ValidationError, known: Collection[str]) -> InvalidInput:
    """Return the error for a query in which pydantic found faults; `known` are the names of its parameters."""
    faults = error.errors(include_url=False)
    details = []
    for fault in faults[:MAX_DETAILS]:
        parameter = next((str(step) for step in reversed(fault["loc"]) if step in known), None)
        details.append(FieldError(sentence(fault), parameter=parameter))
    return _invalid_input("query", len(faults), details)


def _invalid_request(error: RequestValidationError) -> InvalidInput:
    """Return the error for a path, a query or headers in which FastAPI found faults."""
    faults = error.errors()
    details = []
    for fault in faults[:MAX_DETAILS]:
        where, *steps = fault["loc"]
        if where == "body":
            details.append(FieldError(sentence(fault), pointer=pointer_of(steps)))
        else:
            details.append(FieldError(sentence(fault), parameter=str(steps[0])))
    part = "query" if all(fault["loc"][0] == "query" for fault in faults) else "request"
    return _invalid_input(part, len(faults), details)


def _invalid_input(part: str, count: int, details: list[FieldError]) -> InvalidInput:
    first = details[0]
    at = first.pointer or first.parameter
    message = f"{at}: {first.message}" if at else first.message
    return InvalidInput(f"{count} fault(s) in the {part}. {message}", details)


def add_exception_handlers(app: FastAPI, render: Render) -> None:
    """Respond with a problem, rendered by `render`, where FastAPI or Starlette would respond with something else."""

    def respond(request: Request, problem: dict[str, Any], headers: Mapping[str, str]) -> Response:
        request.state.problem = problem  # For the log.
        return render(request, problem, headers)

    @app.exception_handler(LinserveError)
    async def _linserve(request: Request, error: LinserveError) -> Response:
        name = type(error).__name__
        problem = problem_from_error(name, error.message, error.details)
        return respond(request, problem, _headers(problem["status"], name))

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        return await _linserve(request, _invalid_request(error))

    @app.exception_handler(Exception)
    async def _fault(request: Request, _: Exception) -> Response:
        return render(request, _server_problem(), {})

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == METHOD_NOT_ALLOWED:
            # FastAPI names the methods of one route; other routes of the same path have methods of their own.
            headers = {"allow": allowed_methods(app.routes, request.scope)}
        if request.method == "OPTIONS" and request.scope["path"] == "*":  # The service as a whole.
            headers = {"allow": "GET, HEAD, POST, PUT, DELETE, OPTIONS"}
        if error.status_code == NO_CONTENT or (request.method == "OPTIONS" and "allow" in headers):
            return Response(status_code=NO_CONTENT, headers=headers)
        problem = _problem_from_http(request, error, headers.get("allow", ""))
        return respond(request, problem, {**_headers(error.status_code), **headers})


def _problem_from_http(request: Request, error: HTTPException, allow: str) -> dict[str, Any]:
    names = {404: "NotFound", 405: "MethodNotAllowed", 413: "BodyTooLarge", 400: "MalformedBody"}
    index = f"{prefix(request.scope)}/"
    details = {
        404: f"There is nothing at this path.{similar_path(_paths(request.app), request.scope)} "
        f"GET {index} lists all calls.",
        405: f"This path does not support this method. Supported methods, as in the Allow header: {allow}. "
        f"GET {index} lists all calls, each with a line to paste.",
    }
    status = error.status_code
    return _problem(status, names.get(status, "HttpError"), details.get(status, str(error.detail)))


@cache
def _paths(app: FastAPI) -> list[str]:
    return [context.path for context in iter_route_contexts(app.routes) if context.path]


def _server_problem() -> dict[str, Any]:
    return _problem(500, "InternalError", "The service has a bug. Its log has the details.")


def _problem(status: int, name: str, detail: str, details: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    words = re.findall("[A-Z][a-z]*", name)
    problem: dict[str, Any] = {
        "type": f"urn:linserve:problem:{'-'.join(words).lower()}",
        "title": " ".join(words).capitalize(),
        "status": status,
        "detail": detail,
    }
    if found := list(details):
        problem["errors"] = found
    if (current := request_id.get()) is not None:
        problem["request_id"] = current
    return problem


def _headers(status: int, name: str = "") -> dict[str, str]:
    """Return the headers that a problem of this status and name has."""
    if status == UNAUTHENTICATED:
        return {"www-authenticate": "Bearer"}
    seconds = BUSY_SECONDS if name == errors.WorkerBusy.__name__ else RETRY_SECONDS.get(status)
    return {} if seconds is None else {"retry-after": str(seconds)}


def _detail(detail: FieldError) -> dict[str, Any]:
    # A column that no name could have is not named; its row is.
    column = detail.column if detail.column and len(detail.column) <= MAX_NAME_LENGTH else None
    places = {"pointer": detail.pointer, "parameter": detail.parameter, "row": detail.row, "column": column}
    return {"detail": detail.message, **{place: value for place, value in places.items() if value is not None}}
