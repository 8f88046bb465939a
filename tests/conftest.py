import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from postgres import Postgres
from service import Service, copy_models

# nohup ignores SIGHUP, and a shell ignores SIGINT for jobs in the background. Child processes inherit ignored signals,
# but not handlers.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# jsonschema loads this package for the format "iri", which no schema here has. It builds a grammar, which takes 3 s.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
# Each service that the tests start takes a second less if modules are compiled only once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Trainers run on idle processor time only, and there is none while other tests run.
os.environ["CHAOS_FAIR"] = "1"
# Hypothesis fails examples that take long, and a busy machine makes any of them take long. The examples are the same in
# each run, so that a change is judged by itself. `--hypothesis-profile=search` looks for new ones.
settings.register_profile(
    "search",
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")
# Folders whose files share services, and a browser. One process runs all tests of such a folder, so that only one of
# them starts these.
SHARING = ("tests/client", "tests/pages", "tests/web/protocols")


def pytest_configure() -> None:
    """Disable garbage collection while test files are imported. It would take seconds and find nothing."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again, but exclude the imported modules and the collected tests, which are never garbage.

    It is collected as seldom as in a service. By default, it takes 3 % of the processor time, and finds little.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files first that take longest, because they would otherwise run alone at the end: the pages, the chaos
    harness, and then those that start services.
    """
    names = {"Service", "Reader"}  # classes that start services

    def turn(item: pytest.Item) -> int:
        module = item.getparent(pytest.Module)
        assert module is not None
        if module.path.name == "test_chaos.py" or module.path.parent.name == "pages":
            return 0
        return 1 if names & vars(module.obj).keys() or scope_of(item.nodeid) in SHARING else 2

    items.sort(key=turn)


def scope_of(nodeid: str) -> str:
    """Return the file of a test, or its folder if that is in SHARING."""
    file = nodeid.partition("::")[0]
    folder = file.rpartition("/")[0]
    return folder if folder in SHARING else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute files, except that the files of each folder in SHARING run in one process."""
    # Without pytest-xdist, this hook is not called.
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    if config.getoption("dist") != "loadfile":
        return None
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = scope_of
    return scheduler


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
    folder = tmp_path_factory.mktemp("service")
    running = Service(folder, max_json_bytes="1000000", max_upload_bytes="2000000", max_queued_jobs="1000").start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def publishing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One running service for the files whose tests publish versions. None relies on versions that it did not publish.

    They may also train and promote versions of `crop-yield`, and find any of them current when they begin.
    """
    from threaded_service import ThreadedService  # It loads the service, which most files do without.

    running = ThreadedService(tmp_path_factory.mktemp("publishing"), trainer=True, transfer_grace="600").start()
    yield running
    running.stop()
