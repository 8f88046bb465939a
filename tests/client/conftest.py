from collections.abc import Iterator

import pytest
from service import Service


@pytest.fixture(scope="session")
def publishing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One running service for all files here. Each test has models of its own, and none publishes for `crop-yield`."""
    running = Service(tmp_path_factory.mktemp("publishing")).start()
    yield running
    running.stop()
