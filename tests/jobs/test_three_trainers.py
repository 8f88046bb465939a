"""Three trainers, killed at random, work on the updates of one model. `UPDATES=1000` makes it longer."""

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Self

import pytest
from service import INPUTS, POLL_SECONDS, TARGETS, Service
from trainers import trainer

UPDATES = int(os.environ.get("UPDATES", "15"))
MIN_KILLS = 2  # Updates continue until this many kills, so that a fast machine kills trainers too.
SECONDS_BETWEEN_KILLS = (2.0, 8.0)
MAX_SECONDS = 300.0  # Longest time from the end of one job to the end of the next.
NAMES = ("one", "two", "three")


class Trainers:
    """A trainer of each name, restarted after each kill."""

    def __init__(self, service: Service) -> None:
        self.kills = 0
        self._service = service
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._threads = [threading.Thread(target=self._keep, args=(name,)) for name in NAMES]
        self._threads.append(threading.Thread(target=self._kill))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with self._lock:
            for process in self._processes.values():
                process.kill()
        for thread in self._threads:
            thread.join()

    def _keep(self, name: str) -> None:
        while not self._stop.is_set():
            with trainer(self._service, name) as process:
                with self._lock:
                    self._processes[name] = process
                    if self._stop.is_set():
                        return
                process.wait()

    def _kill(self) -> None:
        while not self._stop.wait(random.uniform(*SECONDS_BETWEEN_KILLS)):  # noqa: S311 - not for security
            with self._lock:
                victim = random.choice([*self._processes.values()])  # noqa: S311
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGKILL)
                self.kills += 1


def end_of(service: Service, job_id: str) -> dict[str, Any]:
    """Return the job once it has ended. This takes a while, because trainers are killed and restarted meanwhile."""
    deadline = time.monotonic() + MAX_SECONDS
    while (job := service.job(job_id))["status"] in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(POLL_SECONDS)
    return job


def update_at_once(service: Service, count: int) -> list[dict[str, Any]]:
    """Queue `count` updates of three rows, wait for them all, and return the jobs."""
    jobs = [
        service.submit(instances=INPUTS[:3], targets=TARGETS[:3], mode="update", promote="always") for _ in range(count)
    ]
    return [end_of(service, job) for job in jobs]


@pytest.mark.slow
def test_no_update_is_lost_while_three_trainers_are_killed_at_random(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external", max_queued_jobs="2000").start()
    try:
        with Trainers(service) as trainers:
            before = service.client.get("/models/crop-yield").json()["rows"]
            ended: list[dict[str, Any]] = []
            deadline = time.monotonic() + MAX_SECONDS
            while len(ended) < UPDATES or trainers.kills < MIN_KILLS:
                assert ended == [] or time.monotonic() < deadline, trainers.kills
                ended += update_at_once(service, UPDATES)
        updates = len(ended)
        assert [job["status"] for job in ended] == ["succeeded"] * updates
        model = service.client.get("/models/crop-yield").json()
        assert model["rows"] == before + 3 * updates
        assert model["version"] == updates + 1
        assert model["versions"] == list(range(1, updates + 2))
        assert sorted(job["version"] for job in ended) == list(range(2, updates + 2))
    finally:
        service.stop()
