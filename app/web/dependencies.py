"""Dependencies of routes, for FastAPI and for the OpenAPI document."""

from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from app.web.auth import AccessScope
from app.web.state import get_services

_DESCRIPTION = "An API key. If the service has no keys, clients on the same machine need none."
_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description=_DESCRIPTION)
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header", description=_DESCRIPTION)


def require_scope(access_scope: AccessScope) -> Any:
    """Return a dependency of a route or a router that admits only clients with this scope."""

    async def check(
        request: Request,
        _bearer: Annotated[Any, Security(_BEARER)],
        _header: Annotated[Any, Security(_HEADER)],
    ) -> None:
        # These two are only for the document. The fast path runs without FastAPI and reads the headers itself.
        request.state.caller = get_services(request).access.check(request.scope, access_scope)

    return Depends(check)
