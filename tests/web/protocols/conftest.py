"""A running service for the tests of foreign wire formats."""

import hashlib
from collections.abc import Iterator

import pytest
from mixed import publish, version_of_table
from service import Service

KEY = "key-of-all"


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Yield a service with API keys, on Vertex AI's usual routes, with a second model of words, booleans and dates.

    Its client sends a key that may do everything.
    """
    folder = tmp_path_factory.mktemp("doors")
    keys = folder / "keys"
    keys.write_text(f"all admin {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    routes = {"AIP_PREDICT_ROUTE": "/predict", "AIP_HEALTH_ROUTE": "/health"}
    service = Service(
        folder,
        environment=routes,
        trainer_mode="external",
        api_keys_file=str(keys),
        max_json_bytes="1000000",
        max_instances="1000",
    ).start()
    publish(service.models, version_of_table(), "birds")
    service.client.headers["authorization"] = f"Bearer {KEY}"
    yield service
    service.stop()
