"""A service that is told to stop says first that it is not ready, and only then takes no more requests."""

import os
import signal
from pathlib import Path

import httpx
import pytest
from service import Service, wait_for


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_readiness_fails_first_and_predictions_are_answered_until_the_drain_is_over(
    tmp_path: Path, workers: int
) -> None:
    service = Service(tmp_path, workers=workers, drain_seconds="4", trainer_mode="external").start()
    try:
        assert httpx.get(f"{service.url}/health/ready").status_code == httpx.codes.OK
        os.kill(service.pid, signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{service.url}/health/ready").status_code == httpx.codes.SERVICE_UNAVAILABLE)
        for _ in range(5):  # over new connections, as callers do that have not heard of it yet
            answer = httpx.post(f"{service.url}/predict", json={"instances": [[75, 63, 44]]})
            assert answer.status_code == httpx.codes.OK
        assert httpx.get(f"{service.url}/health/live").status_code == httpx.codes.OK
    finally:
        assert service.ended() == (-signal.SIGTERM if workers == 1 else 0)  # as uvicorn has it
