"""What the routes work with: built once at the start, found through the request."""

import asyncio
import threading
from dataclasses import dataclass
from pathlib import Path

from anyio import CapacityLimiter
from starlette.requests import Request
from starlette.types import Scope

from app.errors import Unavailable
from app.jobs.queue import JobQueue
from app.jobs.scratch import Scratch
from app.registry.registry import Registry
from app.web.access import Access
from app.web.following import Following
from app.web.metrics import Metrics

# Bytes of a body from which decoding it would hold up other requests for milliseconds.
LARGE_BODY = 1 << 16


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for, and how long it may take to come."""

    json_bytes: int
    upload_bytes: int
    instances: int
    wait_seconds: float
    connections: int  # at a time, with one worker
    header_seconds: float
    body_seconds: float  # that a body may fall behind its least rate


class Held:
    """How many bytes of bodies and answers one worker holds in memory, and may. Its threads share it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, request: Request, count: int) -> None:
        """Count so many bytes more until the request has its answer. Raises Unavailable where they are too many.

        Short bodies have as much room again, so that long ones cannot keep them out.
        """
        is_short = request.scope["state"].get("held", 0) + count <= LARGE_BODY
        if not self._counted(request, count, 2 * self._most if is_short else self._most):
            raise Unavailable("Too many long bodies are being received or answered. A later try may work.")

    def may_add(self, request: Request, count: int) -> bool:
        """Count them likewise unless that leaves less than half of the room; for what may as well be in a file."""
        return self._counted(request, count, self._most // 2)

    def release(self, request: Request, count: int) -> None:
        """So many of those of the request are held no more."""
        with self._lock:
            self._bytes -= count
            request.scope["state"]["held"] = request.scope["state"].get("held", 0) - count

    def let_go(self, scope: Scope) -> None:
        """The request is answered."""
        with self._lock:
            self._bytes -= scope["state"].pop("held", 0)

    def _counted(self, request: Request, count: int, most: int) -> bool:
        with self._lock:
            if self._bytes + count > most:
                return False
            self._bytes += count
            request.scope["state"]["held"] = request.scope["state"].get("held", 0) + count
        return True


@dataclass(frozen=True)
class Services:
    registry: Registry
    jobs: JobQueue
    following: Following
    scratch: Scratch
    metrics: Metrics
    limits: Limits
    held: Held
    long_bodies: CapacityLimiter  # how many are decoded at a time: what comes of one takes many times its length
    access: Access
    default_model: str
    capabilities: Path  # the trainer's, see app.jobs.capabilities
    logs_predictions: bool  # a line for each that went well, which costs more than the prediction
    stopping: asyncio.Event  # set when the service is to stop: whoever waits or follows lets go


def services(request: Request) -> Services:
    found: Services = request.state.services
    return found
