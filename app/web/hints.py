"""Advice on bodies with wrong headers and on bodies that are not JSON, made only after an error."""

import codecs
import re
import shlex
from collections.abc import Sequence

from starlette.requests import Request

from app.data.content import HEAD_BYTES, better, content_of
from app.data.formats.base import SAVE_AS_UTF8, BodyFormat, Content
from app.data.formats.csv import CSV
from app.data.formats.json import JSON
from app.errors import FieldError, LinserveError, MalformedBody, UnsupportedMediaType

MAX_URL_LENGTH = 300  # Characters of an address in a message.

_FORMS = {
    "application/x-www-form-urlencoded": (
        "a form (application/x-www-form-urlencoded), as `curl -d` sends it, without the line breaks of the file"
    ),
    "multipart/form-data": "a form (multipart/form-data), as `curl -F` sends it",
}
_REASONS = (
    (r"trailing comma", "a comma before a closing bracket", "Remove it."),
    (r"key must be a string", "a name without double quotes", 'Write names and strings in double quotes: "name".'),
    (r"EOF while parsing", "the end of the body before all brackets and quotes are closed", "Send all of it."),
    (r"trailing characters", "something after the end of the JSON value", "Remove it, or send it as NDJSON."),
    (r"surrogate|escape", "a wrong escape sequence in a string", "Correct it."),
    (r"control character", "a line break or another control character in a string", "Escape it, as in \\n."),
    (r"recursion", "too many brackets inside one another", "Send a list of rows."),
    (r"invalid number", "a number that JSON does not have", "Write decimals with a point, and no leading zeros."),
    (r"expected (value|ident)", "something that is not a JSON value", "JSON has numbers, strings, true, false, null."),
)


def unsupported(request: Request, given: Sequence[str], accepted: Sequence[str], head: bytes) -> UnsupportedMediaType:
    """Return the error for a body whose content types (`given`) are not among the `accepted` ones.

    `head` is the beginning of the body. The message never repeats an unknown content type.
    """
    declared = given[0] if len(given) == 1 else ""
    if declared == "multipart/form-data":
        head = head.partition(b"\r\n\r\n")[2] or head
    content = content_of(head)
    if declared in _FORMS:
        received = f"The body was sent as {_FORMS[declared]}."
    elif len(given) > 1:
        received = f"There are {len(given)} Content-Type headers."
    elif not declared:
        received = "There is no Content-Type header."
    else:
        received = "The Content-Type of the body is not supported."
    expected = f"Content-Type has to be {' or '.join(accepted)}."
    message = f"{received} {expected} {_remedy(request, content, accepted)}"
    return UnsupportedMediaType(message, [FieldError(message, parameter="Content-Type")])


def unsupported_part(accepted: Sequence[str]) -> UnsupportedMediaType:
    """Return the error for a form whose part `file` is in no accepted format."""
    message = (
        "Neither the Content-Type nor the file name of the part `file` is that of a table. Expected "
        f"the type {' or '.join(accepted)}. Give it: `curl -F 'file=@FILE;type=text/csv'`."
    )
    return UnsupportedMediaType(message, [FieldError(message, parameter="Content-Type")])


def _remedy(request: Request, content: Content | None, accepted: Sequence[str]) -> str:
    if content is not None and (content.body_format is None or content.body_format.media_type not in accepted):
        return f"The body is {content.label}. {content.advice}"
    if content is not None and content.body_format is not None:
        return f"The body looks like {content.label}. Send it with: {line(request, content.body_format)}"
    simplest = CSV if CSV.media_type in accepted else JSON
    return f"For {simplest.label}, send it with: {line(request, simplest)}"


def line(request: Request, body_format: BodyFormat) -> str:
    """Return a line to paste that sends a file of this format to the same address."""
    url = str(request.url)
    if len(url) > MAX_URL_LENGTH:
        url = str(request.url.replace(query=""))
    url = shlex.quote(url) if len(url) <= MAX_URL_LENGTH else "URL"
    return f"curl --data-binary @FILE -H 'Content-Type: {body_format.media_type}' {url}"


def not_json(body: bytes, reason: str) -> LinserveError:
    """Return the error for a body that is not JSON; `reason` is the message of the parser."""
    position = re.search(r"line \d+ column \d+", reason)
    at = f" ({position[0]})" if position else ""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        number, column = body.count(b"\n", 0, error.start) + 1, error.start - body.rfind(b"\n", 0, error.start)
        at = f" (line {number} column {column})"
        message = f"The body is not JSON, because it has a byte that is not UTF-8{at}. {SAVE_AS_UTF8}"
    else:
        mistake, remedy = next(
            ((mistake, remedy) for pattern, mistake, remedy in _REASONS if re.search(pattern, reason, re.IGNORECASE)),
            ("something else", "Correct it."),
        )
        message = f"The body is not JSON: found {mistake}{at}. {remedy}"
    return better(MalformedBody(message), body[:HEAD_BYTES].removeprefix(codecs.BOM_UTF8), JSON)
