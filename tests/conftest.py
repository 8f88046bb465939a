import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Service, copy_models

# Under nohup SIGHUP is ignored, and so it would be in the services that the tests start. A handler is not inherited.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with the shipped model in it."""
    return copy_models(tmp_path)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One running service for all tests that do it no harm."""
    running = Service(tmp_path_factory.mktemp("service"), max_json_bytes="1000000", max_upload_bytes="2000000").start()
    yield running
    running.stop()
