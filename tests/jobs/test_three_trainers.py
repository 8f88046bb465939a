"""Three trainers, killed at random, work on the updates of one model. `UPDATES=1000` makes it longer."""

import os
import random
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

import pytest
from service import INPUTS, TARGETS, Service, arm, wait_for
from trainers import log_of, trainer

from app.failpoints import Step

UPDATES = int(os.environ.get("UPDATES", "15"))
AT_ONCE = 3  # Updates that are queued together, and during which one trainer is killed.
NAMES = ("one", "two", "three")
STEPS: tuple[Step, ...] = ("fitted", "temp_written", "fsynced", "prepared", "linked", "promoted")


class Trainers:
    """A trainer of each name, restarted after each kill. Files in the folder `steps` arm failpoints."""

    def __init__(self, service: Service, steps: Path) -> None:
        self.kills = 0
        self._service = service
        self._steps = steps
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = dict.fromkeys(NAMES, 0)
        self._threads = [threading.Thread(target=self._keep, args=(name,)) for name in NAMES]

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

    def kill_one(self) -> None:
        """Wait until a trainer is ready to take jobs, and kill it."""
        wait_for(self._ready)
        with self._lock:
            random.choice(self._ready()).kill()  # noqa: S311 - not for security

    def _ready(self) -> list[subprocess.Popen[bytes]]:
        return [
            process
            for name, process in list(self._processes.items())
            if process.poll() is None
            and log_of(self._service, name).read_text().count("trainer ready") == self._starts[name]
        ]

    def _keep(self, name: str) -> None:
        while not self._stop.is_set():
            with trainer(self._service, name, CHAOS_FAILPOINTS=str(self._steps)) as process:
                with self._lock:
                    self._processes[name] = process
                    self._starts[name] += 1
                    if self._stop.is_set():
                        return
                status = process.wait()
                with self._lock:
                    self.kills += status == -signal.SIGKILL


def update_at_once(service: Service) -> list[str]:
    """Queue updates of three rows. Return the ids of the jobs."""
    update: dict[str, Any] = {"instances": INPUTS[:3], "targets": TARGETS[:3], "mode": "update", "promote": "always"}
    return [service.submit(**update) for _ in range(AT_ONCE)]


@pytest.mark.slow
def test_no_update_is_lost_while_three_trainers_are_killed_at_random(tmp_path: Path) -> None:
    service = Service(tmp_path, trainer_mode="external", max_queued_jobs="2000").start()
    steps = tmp_path / "steps"
    steps.mkdir()
    try:
        before = service.client.get("/models/crop-yield").json()["rows"]
        ended: list[dict[str, Any]] = []
        rounds = UPDATES // AT_ONCE
        with Trainers(service, steps) as trainers:
            for number in range(rounds):
                if number % 2:
                    jobs = update_at_once(service)
                    trainers.kill_one()
                else:
                    arm(steps, random.choice(STEPS))  # noqa: S311 - kills the trainer that reaches the step next
                    jobs = update_at_once(service)
                ended += [service.end_of(job) for job in jobs]
            wait_for(lambda: trainers.kills == rounds)
        updates = len(ended)
        assert [job["status"] for job in ended] == ["succeeded"] * updates
        model = service.client.get("/models/crop-yield").json()
        assert model["rows"] == before + 3 * updates
        assert model["version"] == updates + 1
        assert model["versions"] == list(range(1, updates + 2))
        assert sorted(job["version"] for job in ended) == list(range(2, updates + 2))
    finally:
        service.stop()
