"""The web service: `uvicorn app.main:app`."""

import contextlib
import threading
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import TypedDict

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app import logs
from app.jobs.queue import JobQueue
from app.jobs.spool import Spool
from app.jobs.supervisor import Supervisor
from app.registry.registry import Registry
from app.settings import Settings
from app.web import docs, errors, health, jobs, models, predict, train
from app.web.metrics import Metrics
from app.web.middleware import RequestContext
from app.web.services import Limits, Services

DESCRIPTION = """
Post rows, get predictions; post rows with their targets, get a new version of the model, without a restart.

The model that comes with the service predicts the yield of apples and oranges from temperature, rainfall and
humidity. Try `POST /predict` below: *Try it out*, *Execute*.
"""


class State(TypedDict):
    """What the lifespan gives every request, as `request.state`."""

    services: Services


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service. Settings are read from the environment at its start, unless they are given."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        chosen = settings or Settings()
        logs.configure()
        found = _services(chosen)
        supervisor = Supervisor(chosen.trainer_lock) if chosen.trainer == "embedded" else None
        if supervisor:
            supervisor.start()
        # Behind the start: a first training need not wait for the import of DBOS.
        threading.Thread(target=found.jobs.connect, name="connect-jobs", daemon=True).start()
        try:
            yield {"services": found}
        finally:
            if supervisor:
                supervisor.stop()
            found.jobs.close()

    app = FastAPI(
        title="Linserve",
        summary="A linear model behind HTTP: predict, train, roll back.",
        description=DESCRIPTION,
        version=version("linserve"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    app.add_middleware(RequestContext)
    errors.install(app)
    for resource in (predict, train, jobs, models, health):
        app.include_router(resource.router)
    docs.install(app)
    return app


def _services(settings: Settings) -> Services:
    return Services(
        registry=Registry(settings.models),
        jobs=JobQueue(settings.job_database_url, Spool(settings.spool), max_queued=settings.max_queued_jobs),
        metrics=Metrics(settings.state / "metrics"),
        limits=Limits(
            json_bytes=settings.max_json_bytes,
            upload_bytes=settings.max_upload_bytes,
            instances=settings.max_instances,
            wait_seconds=settings.max_wait_seconds,
        ),
        default_model=settings.default_model,
        capabilities=settings.capabilities,
    )


def _operation_id(route: APIRoute) -> str:
    # The routes' names make good names of methods in generated clients.
    return route.name


app = create_app()
