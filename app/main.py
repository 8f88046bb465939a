"""The web service: `uvicorn app.main:app`."""

import asyncio
import contextlib
import gc
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__, logs
from app.errors import NotFound, StoreMisconfigured, Unavailable
from app.jobs.dbos_store import DBOSStore
from app.jobs.host.cpu_affinity import PredictionActivity
from app.jobs.queue import JobQueue
from app.jobs.supervisor import Supervisor
from app.monitoring.evaluations import EvaluationStore
from app.monitoring.monitor import Monitor
from app.monitoring.outcomes.outcomes import Outcomes
from app.pages import routes as pages
from app.pages.errors_page import render_error
from app.pages.rendering import load_templates
from app.private_names import check_private_names
from app.registry.aliases import Aliases
from app.registry.opening import open_registry
from app.registry.splits import Splits
from app.server.admission import ConnectionAdmission
from app.server.hooks import ConnectionState
from app.server.shutdown import drain_on_signal
from app.settings import Settings
from app.startup import load_config, warn_of_unwritable_folders
from app.storage.folder_store import FolderStore
from app.storage.memory_budget import VERSIONS_SHARE, LargeBodyLimiter, MemoryBudget, share_of
from app.storage.opening import open_store
from app.storage.temp import TempStorage
from app.training.uploads import UploadStore
from app.web import problems
from app.web.auth import Authorizer
from app.web.connection_hooks import PROBES, ServiceHooks
from app.web.cross_origin import CrossOriginMiddleware
from app.web.fast_path import fast_paths
from app.web.job_watcher import JobWatcher
from app.web.metrics import Metrics
from app.web.middleware import VARY, HeadMiddleware, PathPrefix, RequestContextMiddleware
from app.web.model_gauges import ModelGauges
from app.web.model_watcher import ModelWatcher
from app.web.openapi import build_document
from app.web.path_aliases import PathAliases, PathMap, probes_of, vertex_aliases
from app.web.paths import first_segments
from app.web.protocols import PROTOCOL_OF_ROUTE, PROTOCOLS
from app.web.routes import (
    actuals,
    aliases,
    docs,
    drift,
    evaluate,
    events,
    export,
    health,
    imports,
    inspect,
    jobs,
    merge,
    model_changes,
    models,
    traffic,
    train,
)
from app.web.shadows import Shadows
from app.web.spool_sweeper import SpoolSweeper
from app.web.state import Services

DESCRIPTION = """
Post rows, get predictions; post rows with their targets, get a new version of the model, without a restart.

The model that comes with the service predicts the yield of apples and oranges from temperature, rainfall and
humidity. Try `POST /predict` below: *Try it out*, *Execute*.
"""

# Seconds for which a worker uses the aliases that it read from a bucket.
ALIAS_SECONDS = 1.0
# Seconds after which a computing thread yields to the event loop.
SWITCH_SECONDS = 0.001

_log = logging.getLogger(__name__)


class State(ConnectionState):
    """The lifespan state: requests have it as `request.state`, and connections as `app_state`."""

    services: Services
    aliases: PathMap


class LinserveAPI(FastAPI):
    """FastAPI inside the service's own middleware, which also handles faults of FastAPI's error handling."""

    @cached_property
    def _outermost(self) -> ASGIApp:
        inner = CrossOriginMiddleware(HeadMiddleware(super().__call__), VARY)
        return PathPrefix(PathAliases(RequestContextMiddleware(inner, render_error)), first_segments(self.routes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._outermost(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = build_document(self)
        return self.openapi_schema


def create_app() -> FastAPI:
    """Return the service. It reads its settings from the environment when it starts."""
    app = LinserveAPI(
        title="Linserve",
        summary="A linear model behind HTTP: predict, train, roll back.",
        description=DESCRIPTION,
        version=__version__,
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        openapi_url=None,  # FastAPI's own document would name each path without a prefix as well.
        lifespan=_lifespan,
        docs_url=None,
        redirect_slashes=False,  # The redirect would go to any host that the client names.
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # Generated clients name their methods after it.
        # FastAPI would look for OpenTelemetry in every request. The service has its own metrics.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    problems.add_exception_handlers(app, render_error)
    pages.install(app)  # First, because pages have the paths of the API.
    for wire_format in PROTOCOLS:
        app.include_router(wire_format.router)
    for resource in (
        train,
        merge,
        inspect,
        evaluate,
        actuals,
        jobs,
        drift,
        events,
        models,
        export,
        imports,
        aliases,
        traffic,
        model_changes,
        health,
    ):
        app.include_router(resource.router)
    docs.install(app)
    return app


@contextlib.asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[State]:
    logs.configure()
    sys.setswitchinterval(SWITCH_SECONDS)
    stopping = asyncio.Event()
    try:
        settings, access = load_config()
        aliases = vertex_aliases(os.environ)
        services = _services(settings, access, stopping)
        check_private_names("prometheus_client")  # which `Metrics` has to import first
    except (ValueError, OSError, ImportError, StoreMisconfigured) as error:
        _log.critical("not started", extra={"reason": str(error)})
        # An exception would become a traceback, and an exit status at which uvicorn stops the other workers too.
        os._exit(1)
    warn_of_unwritable_folders(settings)
    try:
        # Read the model now, not in the first request. Without one, the service is live and not ready.
        services.registry.current(settings.default_model)
    except (NotFound, Unavailable) as error:
        _log.warning("no model to serve", extra={"model": settings.default_model, "reason": error.message})
    supervisor = Supervisor(settings.trainer_lock) if settings.trainer_mode == "embedded" else None
    if supervisor:
        supervisor.start()
    services.monitor.start()
    services.splits.start()
    sweeper = None
    if settings.storage and not supervisor:  # An embedded trainer sweeps the spool itself.
        sweeper = SpoolSweeper(services.jobs.uploads, settings.state_dir)
        sweeper.start()
    # In a thread: the import of DBOS would delay the start, and the first training need not wait for it.
    threading.Thread(target=_connect, args=(services.jobs,), name="connect-jobs", daemon=True).start()
    try:
        with drain_on_signal(stopping, settings.drain_seconds):
            yield {
                "services": services,
                "aliases": aliases,
                "hooks": ServiceHooks(services, settings.header_timeout, settings.transfer_grace, aliases),
                "admission": ConnectionAdmission(settings.max_connections, PROBES | probes_of(aliases)),
                "fast_paths": fast_paths(services, {path for method, path in aliases if method == "POST"}),
            }
    finally:
        if sweeper:
            sweeper.stop()
        if supervisor:
            supervisor.stop()
        services.splits.stop()
        services.shadows.stop()
        services.monitor.stop()
        services.jobs.store.close()
        services.outcomes.close()
        services.metrics.write()


def _services(settings: Settings, access: Authorizer, stopping: asyncio.Event) -> Services:
    store = open_store(settings.storage) if settings.storage else None
    queue = JobQueue(
        DBOSStore(settings.job_database_url),
        UploadStore(settings.spool, settings.max_spool_bytes, store),
        max_queued=settings.max_queued_jobs,
        lock=settings.state_dir / "queue.lock",
    )
    memory = MemoryBudget(settings.worker_memory)
    registry = open_registry(
        settings.storage,
        settings.models_dir,
        cached_bytes=share_of(settings.worker_memory, VERSIONS_SHARE),
        pinned=settings.default_model,
        budget=memory,
        cache_dir=settings.cache_dir,
        watch=True,
    )
    outcomes = Outcomes(settings.outcomes_url, days=settings.actuals_days, max_bytes=settings.max_actuals_bytes)
    metrics = Metrics(
        settings.state_dir, PredictionActivity(settings.traffic), settings.trainer_seen, PROTOCOL_OF_ROUTE
    )
    monitor = Monitor(registry, settings.monitoring, store, metrics.model_requests)
    return Services(
        registry=registry,
        jobs=queue,
        job_watcher=JobWatcher(queue, stopping, registry.refresh),
        # By default, half of the spool's limit is enough for one body of the greatest length and its response.
        scratch=TempStorage(settings.state_dir / "scratch", settings.max_spool_bytes // 2),
        metrics=metrics,
        monitor=monitor,
        outcomes=outcomes,
        model_watcher=ModelWatcher(registry, monitor, outcomes, stopping),
        model_gauges=ModelGauges(registry, monitor, outcomes, settings.default_model),
        max_json_bytes=settings.max_json_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        max_instances=settings.max_instances,
        max_wait_seconds=settings.max_wait_seconds,
        min_merge_rows=settings.min_merge_rows,
        sources=settings.allowed_sources,
        memory=memory,
        large_body_limiter=LargeBodyLimiter(),
        access=access,
        default_model=settings.default_model,
        capabilities=settings.capabilities,
        cors_origins=settings.allowed_origins,
        logs_predictions=settings.log_predictions,
        stopping=stopping,
        aliases=Aliases(store or FolderStore(settings.state_dir), ALIAS_SECONDS if store else 0.0),
        evaluations=EvaluationStore(store or FolderStore(settings.state_dir)),
        splits=Splits(store or FolderStore(settings.state_dir)),
        shadows=Shadows(registry, monitor),
    )


def _connect(queue: JobQueue) -> None:
    load_templates()  # so that the first page is as quick as the others
    with contextlib.suppress(Unavailable):  # It is logged, and the first training tries again.
        queue.store.connect()
    # Imported modules are never collected, and a batch of rows creates thousands of objects without cycles, so the
    # garbage collector skips the former and runs less often for the latter.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


app = create_app()
