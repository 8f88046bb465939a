"""Every error as application/problem+json (RFC 9457), and the one table from errors to statuses."""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any, TypeAlias

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app import errors
from app.data.names import MAX_NAME_LENGTH
from app.errors import FieldError, InvalidInput, LinserveError
from app.logs import request_id
from app.web.hints import not_json
from app.web.paths import allowed_methods, prefix, similar_path
from app.web.schemas.problems import MAX_DETAILS
from app.web.validation_messages import Fault, pointer_of, sentence

RETRY_SECONDS = {429: 5, 503: 1, 507: 30}
BUSY_SECONDS = 5  # Retry-After of a WorkerBusy, in seconds: the time that a table of a million rows takes.

# Status, name and detail of the problem for a bug in the service. The log has the rest under the request id.
INTERNAL_ERROR = (500, "InternalError", "The service has a bug. Its log has the details.")

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


def problem_from_error(name: str, message: str, details: Iterable[FieldError]) -> dict[str, Any]:
    """Return the problem for an error of `app.errors`, given by its name, as the record of a job has it."""
    error_type = getattr(errors, name, LinserveError)
    status = next(STATUS[base] for base in error_type.__mro__ if base in STATUS)
    return _problem(status, name, message, map(_detail, itertools.islice(details, MAX_DETAILS)))


def problem_response(request: Request, render: Render, status: int, name: str, detail: str) -> Response:
    """Return the response to a request that no route answered, rendered by `render`."""
    return render(request, _problem(status, name, detail), _headers(status, name))


def problem_document(problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """Return the problem as a response."""
    return Response(orjson.dumps(problem), problem["status"], headers=headers, media_type="application/problem+json")


def invalid(error: ValidationError, body: bytes, schema: type[BaseModel]) -> LinserveError:
    """Return the error for a JSON body in which pydantic found faults against this schema."""
    faults = error.errors(include_url=False)
    if faults[0]["type"] == "json_invalid":
        return not_json(body, faults[0]["msg"])

    def in_body(fault: Fault) -> FieldError:
        return FieldError(sentence(fault, faults, schema), pointer=pointer_of(fault["loc"]))

    return _invalid_input("body", faults, in_body)


def invalid_query(error: ValidationError, known: Collection[str], part: str = "query") -> InvalidInput:
    """Return the error for a query or form in which pydantic found faults; `known` are the names of its options."""

    def in_query(fault: Fault) -> FieldError:
        parameter = next((str(step) for step in reversed(fault["loc"]) if step in known), None)
        return FieldError(sentence(fault), parameter=parameter)

    return _invalid_input(part, error.errors(include_url=False), in_query)


def _invalid_request(error: RequestValidationError) -> InvalidInput:
    """Return the error for a path, a query or headers in which FastAPI found faults."""
    faults = error.errors()
    is_query = all(fault["loc"][0] == "query" for fault in faults)
    return _invalid_input(
        "query" if is_query else "request",
        faults,
        lambda fault: FieldError(sentence(fault), parameter=str(fault["loc"][1])),
    )


def _invalid_input(part: str, faults: Sequence[Fault], to_detail: Callable[[Fault], FieldError]) -> InvalidInput:
    details = [to_detail(fault) for fault in faults[:MAX_DETAILS]]
    first = details[0]
    at = first.pointer or first.parameter
    message = f"{at}: {first.message}" if at else first.message
    return InvalidInput(f"{len(faults)} fault(s) in the {part}. {message}", details)


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
        return render(request, _problem(*INTERNAL_ERROR), {})

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # FastAPI names the methods of one route; other routes of the same path have methods of their own.
            headers = {"allow": allowed_methods(app.routes, request.scope)}
        if request.method == "OPTIONS" and request.scope["path"] == "*":  # The service as a whole.
            headers = {"allow": "GET, HEAD, POST, PUT, DELETE, OPTIONS"}
        if error.status_code == HTTPStatus.NO_CONTENT or (request.method == "OPTIONS" and "allow" in headers):
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
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
    return [context.path_format for context in iter_route_contexts(app.routes) if context.path_format]


def _problem(status: int, name: str, detail: str, details: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    words = re.findall("[A-Z][a-z]*", name)
    problem: dict[str, Any] = {
        "type": f"urn:linserve:problem:{'-'.join(words).lower()}",
        "title": " ".join(words).capitalize(),
        "status": status,
        "detail": detail,
    }
    if errors_at_places := list(details):
        problem["errors"] = errors_at_places
    if (current := request_id.get()) is not None:
        problem["request_id"] = current
    return problem


def _headers(status: int, name: str = "") -> dict[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"www-authenticate": "Bearer"}
    seconds = BUSY_SECONDS if name == errors.WorkerBusy.__name__ else RETRY_SECONDS.get(status)
    return {} if seconds is None else {"retry-after": str(seconds)}


def _detail(detail: FieldError) -> dict[str, Any]:
    # A column that no name could have is not named; its row is.
    column = detail.column if detail.column and len(detail.column) <= MAX_NAME_LENGTH else None
    places = {
        "pointer": detail.pointer,
        "parameter": detail.parameter,
        "file": detail.file,
        "row": detail.row,
        "column": column,
    }
    return {"detail": detail.message, **{place: value for place, value in places.items() if value is not None}}
