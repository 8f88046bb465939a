"""What the routes work with: built once at the start, found through the request."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.types import Scope

from app.errors import Unavailable
from app.jobs.queue import JobQueue
from app.registry.registry import Registry
from app.web.access import Access
from app.web.following import Following
from app.web.metrics import Metrics


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for, and how long it may take to come."""

    json_bytes: int
    upload_bytes: int
    instances: int
    wait_seconds: float
    connections: int  # at a time, with one worker
    header_seconds: float
    body_seconds: float  # and longer for a body that comes fast enough


class Held:
    """How many bytes of bodies one worker holds in memory, and may."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0

    def add(self, request: Request, count: int) -> None:
        """Count so many bytes more until the request has its answer. Raises Unavailable where they are too many."""
        if self._bytes + count > self._most:
            raise Unavailable("Too many long bodies are being received. A later try may work.")
        self._bytes += count
        request.scope["state"]["held"] = request.scope["state"].get("held", 0) + count

    def let_go(self, scope: Scope) -> None:
        """The request is answered."""
        self._bytes -= scope["state"].pop("held", 0)


@dataclass(frozen=True)
class Services:
    registry: Registry
    jobs: JobQueue
    following: Following
    metrics: Metrics
    limits: Limits
    held: Held
    access: Access
    default_model: str
    capabilities: Path  # the trainer's, see app.jobs.capabilities
    logs_predictions: bool  # a line for each that went well, which costs more than the prediction
    stopping: asyncio.Event  # set when the service is to stop: whoever waits or follows lets go


def services(request: Request) -> Services:
    found: Services = request.state.services
    return found
