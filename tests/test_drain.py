"""A stopping service is not ready first, and accepts no more requests only after the drain."""

import os
import signal
from pathlib import Path

import httpx
import pytest
from service import Service, wait_for


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_stopping_service_is_not_ready_and_predicts_until_the_drain_ends(tmp_path: Path, workers: int) -> None:
    service = Service(tmp_path, workers=workers, drain_seconds="4", trainer_mode="external").start()
    try:
        assert httpx.get(f"{service.url}/health/ready").status_code == httpx.codes.OK
        os.kill(service.pid, signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{service.url}/health/ready").status_code == httpx.codes.SERVICE_UNAVAILABLE)
        for _ in range(5):  # on new connections, as from clients that do not know it yet
            response = httpx.post(f"{service.url}/predict", json={"instances": [[75, 63, 44]]})
            assert response.status_code == httpx.codes.OK
        assert httpx.get(f"{service.url}/health/live").status_code == httpx.codes.OK
    finally:
        assert service.ended() == (-signal.SIGTERM if workers == 1 else 0)  # uvicorn's exit statuses
