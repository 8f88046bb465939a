import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from postgres import Postgres
from service import Service, copy_models

# nohup ignores SIGHUP, and the services that the tests start would inherit that. They do not inherit a handler.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
# jsonschema loads this package for the format "iri", which no schema here has. It builds a grammar, which takes 3 s.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
# Each service that the tests start takes a second less if modules are compiled only once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Trainers run on idle processor time only, and there is none while other tests run.
os.environ["CHAOS_FAIR"] = "1"
# Hypothesis fails examples that take long, and a busy machine makes any of them take long.
settings.register_profile(
    "patient",
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files first that take longest, because they would otherwise run alone at the end: the chaos harness, and
    then those that start services.
    """

    def turn(item: pytest.Item) -> int:
        module = item.getparent(pytest.Module)
        assert module is not None
        return 0 if module.path.name == "test_chaos.py" else 1 if hasattr(module.obj, "Service") else 2

    items.sort(key=turn)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with the shipped model."""
    return copy_models(tmp_path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres server. Each test takes a new database of it, and leaves the server running."""
    with Postgres() as running:
        yield running


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One running service for all tests that leave it intact."""
    running = Service(tmp_path_factory.mktemp("service"), max_json_bytes="1000000", max_upload_bytes="2000000").start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def publishing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One running service for all tests that publish versions, and that need not know which there are."""
    running = Service(tmp_path_factory.mktemp("publishing")).start()
    yield running
    running.stop()
