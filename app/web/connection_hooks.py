"""The hooks of the service for its connections: settings, memory, and responses to rejected requests."""

import logging

from starlette.requests import Request

from app.logs import request_id
from app.server.hooks import Headers, ProtocolError
from app.web import protocols
from app.web.middleware import REQUEST_ID, SECURITY_HEADERS, new_id
from app.web.path_aliases import NO_ALIASES, PathMap
from app.web.problems import problem_response
from app.web.state import Services

# Paths that are answered on connections above the limit.
PROBES = protocols.PROBES | {b"/health/live", b"/health/ready", b"/metrics"}

_log = logging.getLogger("app.requests")


class ServiceHooks:
    """Implements `app.server.hooks.ConnectionHooks`."""

    def __init__(
        self, services: Services, header_timeout: float, transfer_grace: float, aliases: PathMap = NO_ALIASES
    ) -> None:
        self.header_timeout = header_timeout
        self.transfer_grace = transfer_grace
        self.stopping = services.stopping
        self.reserve = services.memory.resize
        self._metrics = services.metrics
        self._aliases = {path: target for (_, path), target in aliases.items()}

    def reject(self, error: ProtocolError, client: str | None, target: bytes) -> tuple[Headers, bytes]:
        path = target.partition(b"?")[0].decode("latin-1")
        scope = {"type": "http", "method": "", "path": self._aliases.get(path, path), "headers": []}
        identity = new_id()
        token = request_id.set(identity.decode())
        response = problem_response(Request(scope), protocols.render_error, error.status, error.name, error.detail)
        request_id.reset(token)
        self._metrics.answered("other", "none", error.status, 0.0)
        fields = {"request_id": identity.decode(), "status": error.status, "reason": error.detail, "client": client}
        _log.info("refused", extra=fields)
        return [*response.raw_headers, (REQUEST_ID, identity), *SECURITY_HEADERS], bytes(response.body)
