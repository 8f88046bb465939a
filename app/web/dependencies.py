"""What a route needs of its caller, for FastAPI and for the OpenAPI document."""

from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from app.web.auth import AccessScope
from app.web.state import get_services

_DESCRIPTION = "An API key, where the service has keys; this machine needs none where it has not."
_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description=_DESCRIPTION)
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header", description=_DESCRIPTION)


def require_scope(right: AccessScope) -> Any:
    """A dependency of a route or a router: whoever calls it has this right."""

    async def check(
        request: Request,
        _bearer: Annotated[Any, Security(_BEARER)],
        _header: Annotated[Any, Security(_HEADER)],
    ) -> None:
        # These two are for the document alone; the lane has no FastAPI that could read them.
        request.state.caller = get_services(request).access.check(request.scope, right)

    return Depends(check)
