"""Problems (RFC 9457) in responses."""

from typing import Any

from pydantic import BaseModel, Field

from app.web.schemas.openapi_schema import Schema

MAX_DETAILS = 20

_DESCRIPTIONS = {
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
_BEFORE_ROUTES = {400, 408, 414, 431, 500, 503}
PROBLEM_CONTENT = {"schema": {"$ref": "#/components/schemas/Problem"}}


class ProblemDetail(Schema):
    """One fault, and its place in the body (a JSON pointer), the parameters, or the file (row and column)."""

    detail: str
    pointer: str | None = Field(None, examples=["/instances/0/temp"])
    """JSON pointer into the body."""
    parameter: str | None = None
    """Name of the query, path or header parameter."""
    file: str | None = None
    """Name of the file, if the rows are in several."""
    row: int | None = None
    """Row of the file; the header is row 1. The first in which it occurs."""
    column: str | None = None
    """Column of the file."""


class Problem(Schema):
    """RFC 9457."""

    type: str = Field(examples=["urn:linserve:problem:invalid-input"])
    title: str = Field(examples=["Invalid input"])
    status: int = Field(examples=[422])
    detail: str
    """What was received, what was expected, and what to do."""
    errors: list[ProblemDetail] = Field(
        [], description=f"One for each column or option at fault, at most {MAX_DETAILS}."
    )
    request_id: str | None = None
    """Also in the X-Request-ID header and in the log."""


def problem_responses(*statuses: int, open_to_all: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route: its own problems, and those that the server sends for any request."""
    content = {"application/problem+json": PROBLEM_CONTENT}
    always = (*(() if open_to_all else (401, 403)), 400, 408, 414, 431, 500, 503)
    return {
        status: {"description": _DESCRIPTIONS[status], "content": content} for status in sorted({*always, *statuses})
    }


def error_responses(
    schema: type[BaseModel], *statuses: int, open_to_all: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route of a foreign wire format, whose errors have this schema.

    The server rejects some requests with a problem before it knows their path.
    """
    own = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}}}
    return {
        status: {**response, "content": own | (response["content"] if status in _BEFORE_ROUTES else {})}
        for status, response in problem_responses(*statuses, open_to_all=open_to_all).items()
    }
