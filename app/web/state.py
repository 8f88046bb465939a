"""The services that routes use: built once at the start, and reached through the request."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from app.jobs.queue import JobQueue
from app.monitoring.evaluations import EvaluationStore
from app.monitoring.monitor import Monitor
from app.monitoring.outcomes.outcomes import Outcomes
from app.registry.aliases import Aliases
from app.registry.base import ModelPublisher
from app.registry.splits import Splits
from app.storage.memory_budget import LargeBodyLimiter, MemoryBudget, Reservation
from app.storage.temp import TempStorage
from app.training.source_url import AllowedSources
from app.web.auth import Authorizer
from app.web.job_watcher import JobWatcher
from app.web.metrics import Metrics
from app.web.model_gauges import ModelGauges
from app.web.model_watcher import ModelWatcher
from app.web.shadows import Shadows


@dataclass(frozen=True)
class Services:
    registry: ModelPublisher
    aliases: Aliases
    jobs: JobQueue
    job_watcher: JobWatcher
    scratch: TempStorage
    outcomes: Outcomes
    metrics: Metrics
    monitor: Monitor
    model_watcher: ModelWatcher
    model_gauges: ModelGauges
    max_json_bytes: int
    max_upload_bytes: int
    max_instances: int  # Rows of a JSON body.
    max_wait_seconds: float  # Longest `Prefer: wait`.
    memory: MemoryBudget
    large_body_limiter: LargeBodyLimiter
    access: Authorizer
    default_model: str
    capabilities: Path  # the trainer's, see app.jobs.host.devices
    cors_origins: frozenset[str]  # Pages of these origins may read responses.
    logs_predictions: bool  # Logging a prediction takes longer than computing it.
    stopping: asyncio.Event  # Set when the service stops. Requests that wait or stream then end.
    evaluations: EvaluationStore
    splits: Splits
    shadows: Shadows
    min_merge_rows: int = 20  # Rows of a version that is exported for a merge, or merged.
    sources: AllowedSources = AllowedSources()  # noqa: RUF009 - frozen


def get_services(request: Request) -> Services:
    services: Services = request.state.services
    return services


def get_memory(request: Request) -> Reservation:
    """Return the request's reservation of memory."""
    if not hasattr(request.state, "memory"):
        request.state.memory = Reservation(get_services(request).memory)
    memory: Reservation = request.state.memory
    return memory
