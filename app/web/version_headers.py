"""The headers about versions: the one that predicted, and the lowest one that a client accepts."""

import re
from typing import Any

from fastapi import Request

from app.errors import InvalidInput

VERSION = "linserve-version"  # Response header with the number of the version that predicted.
MIN_VERSION = "linserve-min-version"  # Request header with the lowest number that the client accepts.

STICKY = "linserve-sticky"  # Request header: while the traffic is split, equal values get the same version.

# Descriptions for the OpenAPI document.
VERSION_HEADER: dict[str, Any] = {
    "description": "Number of the version that predicted.",
    "schema": {"type": "integer", "minimum": 1},
    "example": 1,
}
MIN_VERSION_PARAMETER: dict[str, Any] = {
    "name": "Linserve-Min-Version",
    "in": "header",
    "required": False,
    "description": "The lowest number of a version that may predict. If the replica serves another one, it first looks "
    "for a promotion elsewhere. The response is 503 with `Retry-After` if the current version is still lower.",
    "schema": {"type": "integer", "minimum": 1},
}

STICKY_PARAMETER: dict[str, Any] = {
    "name": "Linserve-Sticky",
    "in": "header",
    "required": False,
    "description": "While the model's traffic is split, requests with the same value get the same version. The default "
    "is the client's address.",
    "schema": {"type": "string"},
}

_NUMBER = re.compile("0*[1-9][0-9]{0,11}")


def min_version(request: Request, version: int | None) -> int | None:
    """Return the lowest number that the client accepts, or None.

    Raises InvalidInput if it is not a number, or is above the `version` that the request names.
    """
    given = request.headers.getlist(MIN_VERSION)
    if not given:
        return None
    if len(given) > 1 or not _NUMBER.fullmatch(given[0]):
        raise _invalid("Linserve-Min-Version is not valid. Expected the number of a version, such as 2.")
    least = int(given[0])
    if version is not None and version < least:
        raise _invalid(f"Linserve-Min-Version is {least}, but the request names version {version}. Omit one of them.")
    return least


def _invalid(message: str) -> InvalidInput:
    return InvalidInput.of_parameter("Linserve-Min-Version", message)
