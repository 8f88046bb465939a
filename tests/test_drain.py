"""A stopping service is not ready first, and accepts no more requests only after the drain."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest
from raw_http import GOOD, PROBE, exchange
from service import Service, wait_for

from app.server.shutdown import drain_on_signal

READY = PROBE.replace(b"live", b"ready")


def status(service: Service, request: bytes) -> int:
    """Return the status of the answer on a new connection, as clients that do not know of the stop use one."""
    response = exchange(service, request)
    assert response is not None
    return response.status


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stopping_service_is_not_ready_and_predicts_until_the_drain_ends(tmp_path: Path, workers: int) -> None:
    service = Service(tmp_path, workers=workers, drain_seconds="600", trainer_mode="external").start()
    try:
        assert status(service, READY) == httpx.codes.OK
        os.kill(service.pid, signal.SIGTERM)
        wait_for(lambda: status(service, READY) == httpx.codes.SERVICE_UNAVAILABLE)
        for _ in range(5):
            assert status(service, GOOD) == httpx.codes.OK
        assert status(service, PROBE) == httpx.codes.OK
        for worker in service.web_workers():
            os.kill(worker, signal.SIGTERM)  # The second signal ends the drain.
        assert service.ended() == (-signal.SIGTERM if workers == 1 else 0)  # uvicorn's exit statuses
    finally:
        service.kill()


def test_the_drain_ends_by_itself() -> None:
    async def drained() -> None:
        stopping, ended = asyncio.Event(), asyncio.Event()
        before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
        try:
            with drain_on_signal(stopping, 0.01):
                os.kill(os.getpid(), signal.SIGTERM)
                await stopping.wait()
                await ended.wait()
        finally:
            signal.signal(signal.SIGTERM, before)

    asyncio.run(drained())
