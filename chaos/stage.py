"""A service for one phase, with failpoints and a ledger of its jobs."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from service import Service, arm

from app.failpoints import Step
from chaos.ledger import Ledger
from chaos.violation import Violation, demand

WORKERS, FEW_WORKERS = 4, 2  # Web workers of a service, and those of a small one.
SMALL = "CHAOS_SMALL"  # Variable that makes phases small: fewer processes, and fewer predictions.
HAPPEN_SECONDS = 300.0
POLL_SECONDS = 0.01

Environment = Mapping[str, str]  # Variables of the service in addition to those of the harness.


class Stage:
    """A service with failpoints and a ledger. It is killed at the end of the block."""

    def __init__(self, folder: Path, environment: Environment, workers: int | None = None) -> None:
        self.is_small = SMALL in environment
        self.workers = workers or (FEW_WORKERS if self.is_small else WORKERS)
        self.failpoints = folder / "failpoints"
        self.failpoints.mkdir(parents=True)
        environment = {**environment, "CHAOS_FAILPOINTS": str(self.failpoints)}
        self.service = Service(folder, workers=self.workers, environment=environment)
        self.ledger = Ledger(self.service)
        self.ready_seconds: list[float] = []  # seconds between each start and its first answer

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.service.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.service.pid, signal.SIGCONT)
        self.service.kill()

    def start(self) -> None:
        started = time.monotonic()
        self.service.start()
        self.ready_seconds.append(time.monotonic() - started)

    @property
    def port(self) -> int:
        return int(self.service.url.rpartition(":")[2])

    def arm(self, step: Step, action: signal.Signals = signal.SIGKILL) -> None:
        arm(self.failpoints, step, action)

    def reached(self, step: Step) -> None:
        """Wait for a process to reach an armed step."""
        self.wait_for((self.failpoints / f"{step}.reached").exists, f"the step {step} was not reached")

    def wait_for(self, happened: Callable[[], bool], otherwise: str) -> None:
        until = time.monotonic() + HAPPEN_SECONDS
        while not happened():
            demand(time.monotonic() < until, otherwise)
            time.sleep(POLL_SECONDS)

    def count_log(self, words: str) -> int:
        """Return how often the log contains the text."""
        return self.service.log.read_text().count(words)

    def read_log(self) -> None:
        """Raise Violation if a line of the log is not one JSON object."""
        for line in self.service.log.read_text().splitlines():
            try:
                is_object = isinstance(json.loads(line), dict)
            except ValueError:
                is_object = False
            demand(is_object, f"a line of the log is not a JSON object: {line[:200]}")

    def all_workers(self) -> None:
        """Wait until all workers are running."""
        self.wait_for(lambda: len(self.service.web_workers()) == self.workers, "a killed worker was not replaced")

    def trainer(self) -> int:
        """Wait for a trainer and return its process id. Raises Violation if there are two."""
        self.wait_for(lambda: bool(self.service.trainers()), "there is no trainer")
        return self.the_trainer() or self.trainer()

    def the_trainer(self) -> int | None:
        trainers = self.service.trainers()
        if len(trainers) > 1:
            raise Violation(f"{len(trainers)} trainers at once")
        return trainers[0] if trainers else None


def sharing(folder: Path, other: Stage) -> Path:
    """Make a folder for a service that shares the models of another, and return it."""
    folder.mkdir()
    (folder / "models").symlink_to(other.service.models)
    return folder
