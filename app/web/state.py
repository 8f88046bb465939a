"""What the routes work with: built once at the start, found through the request."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request

from app.jobs.queue import JobQueue
from app.registry.publisher import ModelPublisher
from app.storage.memory_budget import LargeBodyLimiter, MemoryBudget, Reservation
from app.storage.temp import TempStorage
from app.web.auth import Authorizer
from app.web.job_watcher import JobWatcher
from app.web.metrics import Metrics


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for, and how long it may take to come."""

    json_bytes: int
    upload_bytes: int
    instances: int
    wait_seconds: float


@dataclass(frozen=True)
class Services:
    registry: ModelPublisher
    jobs: JobQueue
    job_watcher: JobWatcher
    scratch: TempStorage
    metrics: Metrics
    limits: Limits
    memory: MemoryBudget
    large_body_limiter: LargeBodyLimiter
    access: Authorizer
    default_model: str
    capabilities: Path  # the trainer's, see app.jobs.host.devices
    logs_predictions: bool  # a line for each that went well, which costs more than the prediction
    stopping: asyncio.Event  # set when the service is to stop: whoever waits or follows lets go


def get_services(request: Request) -> Services:
    found: Services = request.state.services
    return found


def get_memory(request: Request) -> Reservation:
    """Return the request's reservation of memory."""
    state: dict[str, Any] = request.scope["state"]
    if "memory" not in state:
        state["memory"] = Reservation(get_services(request).memory)
    reservation: Reservation = state["memory"]
    return reservation
