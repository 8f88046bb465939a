from collections.abc import Iterator

import pytest
from service import Service
from threaded_service import ThreadedService


@pytest.fixture(scope="session")
def publishing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One running service for all files here. Each test has models of its own, and none publishes for `crop-yield`."""
    running = ThreadedService(tmp_path_factory.mktemp("publishing"), trainer=True).start()
    yield running
    running.stop()
