"""Every error as application/problem+json (RFC 9457), and the one table from errors to statuses."""

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app import errors
from app.data.json_rows import escaped
from app.data.names import MAX_NAME_LENGTH
from app.errors import Detail, InvalidInput, LinserveError, MalformedBody
from app.logs import request_id
from app.web.methods import allowed
from app.web.path_prefix import prefix

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


class Place(BaseModel):
    """One fault: what, and where in the body (a JSON pointer), the parameters, or the file (row and column)."""

    detail: str
    pointer: str | None = Field(None, description="JSON pointer into the body.", examples=["/instances/0/temp"])
    parameter: str | None = Field(None, description="Name of the query, path or header parameter.")
    row: int | None = Field(None, description="Row of the file; the header is row 1.")
    column: str | None = Field(None, description="Column of the file.")


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["urn:linserve:problem:invalid-input"])
    title: str = Field(examples=["Invalid input"])
    status: int = Field(examples=[422])
    detail: str
    errors: list[Place] = Field([], description=f"At most {MAX_DETAILS}.")
    request_id: str | None = Field(None, description="Also in the X-Request-ID header and in the log.")


def problems(*statuses: int, open_to_all: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: the problems it can answer with, and those that a connection can before it."""
    titles = {
        400: "The request is not HTTP, or its body not what its content type says.",
        401: "No valid API key.",
        403: "The API key has no such scope; or there are no keys, and this request is not of this machine's own.",
        404: "There is no such thing.",
        406: "Nothing here writes a content type that is accepted.",
        408: "The request came too slowly.",
        409: "Not in the present state.",
        412: "The model changed since.",
        413: "The body is too large.",
        414: "The path and its query are too long.",
        415: "Nothing here reads this content type.",
        422: "Understood, but wrong: the errors say where.",
        428: "An If-Match header is needed.",
        429: "Too many jobs are waiting.",
        431: "The headers are too many or too large.",
        500: "A fault of the service.",
        503: "Not now; `Retry-After` says when to try again.",
        507: "There is no room to store it.",
    }
    always = (*(() if open_to_all else (401, 403)), 400, 408, 414, 431, 500, 503)
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": titles[status], "content": content} for status in sorted({*always, *statuses})}


def problem_of(name: str, message: str, details: Iterable[Detail]) -> dict[str, Any]:
    """A problem object for an error of `app.errors`, given by its name as a job's record has it."""
    kind = getattr(errors, name, LinserveError)
    status = next(STATUS[base] for base in kind.__mro__ if base in STATUS)
    places = [
        {key: value for key, value in _place(detail).items() if value is not None}
        for detail in itertools.islice(details, MAX_DETAILS)
    ]
    return _problem(status, name, message, places)


def refusal(status: int, name: str, detail: str) -> Response:
    """For a request that never came to a route."""
    later = {"retry-after": str(BUSY_SECONDS)} if name == errors.WorkerBusy.__name__ else None
    return _response(_problem(status, name, detail, []), later)


def server_error() -> Response:
    """What a caller sees of a fault of ours: nothing but the id under which the log has the rest."""
    return _response(_problem(500, "InternalError", "Something went wrong here. The log has the details.", []))


def invalid(error: ValidationError) -> LinserveError:
    """What pydantic found wrong with a JSON body."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        place = re.search(r"line \d+ column \d+", found[0]["msg"])
        return MalformedBody(f"The body is not JSON{f' ({place[0]})' if place else ''}.")
    details = [Detail(_sentence(fault), pointer=_pointer(fault["loc"])) for fault in found[:MAX_DETAILS]]
    return InvalidInput(f"{len(found)} fault(s) in the body.", details)


def invalid_query(error: ValidationError, known: Collection[str]) -> InvalidInput:
    """What pydantic found wrong with options of those names, which stand in the query."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    details = []
    for fault in found[:MAX_DETAILS]:
        parameter = next((str(step) for step in reversed(fault["loc"]) if step in known), None)
        details.append(Detail(_sentence(fault), parameter=parameter))
    return InvalidInput(f"{len(found)} fault(s) in the query.", details)


def install(app: FastAPI) -> None:
    """Answer with problems wherever FastAPI or Starlette would answer with something else."""

    @app.exception_handler(LinserveError)
    async def _linserve(request: Request, error: LinserveError) -> Response:
        later = {"retry-after": str(BUSY_SECONDS)} if isinstance(error, errors.WorkerBusy) else None
        return _answer(request, problem_of(type(error).__name__, error.message, error.details), later)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        places = []
        for fault in error.errors()[:MAX_DETAILS]:
            where, *rest = fault["loc"]
            place = {"pointer": _pointer(rest)} if where == "body" else {"parameter": str(rest[0])}
            places.append({"detail": _sentence(fault), **place})
        if error.errors()[0]["type"] == "json_invalid":
            return _answer(request, problem_of(MalformedBody.__name__, "The body is not JSON.", ()))
        message = f"{len(error.errors())} fault(s) in the request."
        return _answer(request, _problem(422, "InvalidInput", message, places))

    @app.exception_handler(Exception)
    async def _fault(_: Request, __: Exception) -> Response:
        return server_error()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        return _answer_to(request, error, app.routes)


def _answer_to(request: Request, error: HTTPException, routes: Sequence[BaseRoute]) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == NO_CONTENT:
        return Response(status_code=NO_CONTENT, headers=headers)
    if error.status_code == METHOD_NOT_ALLOWED:
        # Of one route only; others of the same path have methods of their own.
        headers = {"allow": allowed(routes, request.scope)}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    if request.method == "OPTIONS" and request.scope["path"] == "*":  # of the service as a whole
        return Response(status_code=204, headers={"allow": "GET, HEAD, POST, PUT, DELETE, OPTIONS"})
    names = {404: "NotFound", 405: "MethodNotAllowed", 413: "BodyTooLarge", 400: "MalformedBody"}
    details = {
        404: f"There is nothing at this path; GET {prefix(request.scope)}/ lists what there is.",
        405: "This path does not answer to this method; the Allow header has those it does.",
    }
    name = names.get(error.status_code, "HttpError")
    detail = details.get(error.status_code, str(error.detail))
    return _answer(request, _problem(error.status_code, name, detail, []), headers)


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


def _place(detail: Detail) -> dict[str, Any]:
    # A column that no name could have is not named; its row is.
    column = detail.column if detail.column and len(detail.column) <= MAX_NAME_LENGTH else None
    places = {"pointer": detail.pointer, "parameter": detail.parameter, "row": detail.row, "column": column}
    return {"detail": detail.message, **places}


# Pydantic puts the name of the chosen alternative into the place; it is not in the body.
_ALTERNATIVES = ("exact", "gradient_descent", "word", "object", "number")


def _pointer(location: Iterable[object]) -> str:
    steps = (str(step) for step in location if step not in _ALTERNATIVES)
    # An unknown name may be anything; where it is longer than a name can be, the place is what holds it.
    short = itertools.takewhile(lambda step: len(step) <= MAX_NAME_LENGTH, steps)
    return "".join(f"/{escaped(step)}" for step in short)


def _sentence(fault: Mapping[str, Any]) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "There is no such option"
    elif fault["type"] == "union_tag_invalid":
        message = f"Expected one of{message.rpartition(':')[2]}"  # pydantic repeats what was given instead
    return f"{message}." if message[-1] not in ".!?" else message
