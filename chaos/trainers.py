"""Trainers of one state folder that are killed at random while they update one model."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from service import ROOT

from app.failpoints import Step
from chaos.acts import Counts
from chaos.stage import Environment, Stage, sharing
from chaos.updates import Updates
from chaos.watching import count

TRAINERS = 3
UNDER_WAY = 20  # Updates under way at a time.
MAX_BETWEEN = 5  # Most updates that end between two kills.
EXTERNAL = {"LINSERVE_TRAINER_MODE": "external"}
STEPS: tuple[Step, ...] = ("fitted", "temp_written", "fsynced", "prepared", "linked", "promoted")


class Trainers:
    """Three trainers of a stage, each with its own name. They are killed at the end of the block."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._begun: dict[str, int] = {}  # offset in each trainer's log at its newest start
        self.deaths = 0

    def __enter__(self) -> Self:
        for number in range(1, TRAINERS + 1):
            self._start(f"trainer-{number}")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def kill_any(self) -> None:
        """Kill one of the trainers that are ready to take jobs, if there is any."""
        ready = [name for name in self._processes if self._is_ready(name)]
        if ready:
            process = self._processes[random.choice(ready)]
            process.kill()
            process.wait()

    def revive(self) -> None:
        """Restart each trainer that was killed, under its name."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                self.deaths += 1
                self._start(name)

    def go_on(self) -> None:
        """Continue the trainers that were stopped."""
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)

    def _start(self, name: str) -> None:
        with self._log(name).open("ab") as log:
            self._begun[name] = log.tell()
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "app.trainer"],
                cwd=ROOT,
                env=self._stage.service.environment | {"LINSERVE_TRAINER_NAME": name},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    def _is_ready(self, name: str) -> bool:
        return b"trainer ready" in self._log(name).read_bytes()[self._begun[name] :]

    def _log(self, name: str) -> Path:
        return self._stage.service.log.with_name(f"{name}.log")


def three_trainers(folder: Path, environment: Environment, seconds: float, updates: int = 0) -> Counts:
    """Update one model while its trainers are killed at random: no update is lost or counted twice.

    Three trainers share a state folder. A second service, with its own trainer, shares the models folder. If `updates`
    is given, it replaces the time limit.
    """
    counts = Counts()
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(Stage(folder / "one", {**environment, **EXTERNAL}, workers=1))
        two = stack.enter_context(Stage(sharing(folder / "two", one), environment, workers=1))
        trainers = stack.enter_context(Trainers(one))
        updates_sent = Updates(one.service, two.service)
        _overtake(one, two, updates_sent)
        trainers.go_on()
        end = time.monotonic() + seconds
        kill_at = 0  # number of ended updates at which the next trainer is killed

        def is_enough() -> bool:
            return updates_sent.submitted >= updates if updates else time.monotonic() > end

        while not is_enough() or updates_sent.under_way:
            if not is_enough() and updates_sent.under_way < UNDER_WAY:
                updates_sent.submit()
            if not is_enough() and updates_sent.ended >= kill_at:
                kill_at = updates_sent.ended + random.randint(1, MAX_BETWEEN)
                if random.random() < 0.5:
                    trainers.kill_any()
                else:
                    one.arm(random.choice(STEPS))  # kills the trainer that reaches the step next
            trainers.revive()
            updates_sent.follow()
        updates_sent.check()
        counts["updates"] += updates_sent.submitted
        counts["kills"] += trainers.deaths
        for stage in (one, two):
            count(counts, stage)
    counts["versions"] //= 2  # both services count the versions of one folder
    return +counts


def _overtake(one: Stage, two: Stage, updates_sent: Updates) -> None:
    """Stop a trainer between its fit and its publication, while the second service publishes another update."""
    one.arm("fitted", signal.SIGSTOP)
    updates_sent.submit(one.service)
    one.reached("fitted")
    updates_sent.submit(two.service)
    while updates_sent.under_way > 1:
        updates_sent.follow()
