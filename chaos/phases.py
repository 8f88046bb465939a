"""The phases. Each starts its own service, kills or damages it for a while, and checks the guarantees.

A phase raises Violation if a guarantee was broken, and Unable if it cannot run on this machine.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import httpx
from service import copy_models

from app.failpoints import Step, TrainingStep
from chaos.acts import (
    LONG,
    MODEL,
    Counts,
    damaged,
    demand_current,
    demand_good,
    demand_version,
    finish_request,
    half_a_request,
    hang_up,
    kill_any,
    kill_at,
    kill_everything,
    point_to,
    promote,
    put_current,
    replace,
    submit_some,
    train_by_hand,
    two_versions,
)
from chaos.clock import JUMPS, Clock
from chaos.cluster import cluster
from chaos.disk import filled, read_only, tmpfs
from chaos.durability import check_order
from chaos.flood import flood
from chaos.ledger import audit
from chaos.line import Line, Truth
from chaos.stage import Environment, Stage, sharing
from chaos.trainers import three_trainers
from chaos.violation import demand
from chaos.watching import count, until, watched

Phase = Callable[[Path, Environment, float], Counts]


def promotions(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Promote and roll back without pause: the next prediction of every worker comes from the promoted version."""
    with Stage(folder, environment) as stage:
        for _ in range(5):
            stage.ledger.fit()
        stage.ledger.settle()
        versions = sorted(audit(stage.service.models))
        truth = Truth.of_folder(stage.service.models)
        with watched(stage, pause=0.0) as counts, contextlib.ExitStack() as stack:
            lines = [stack.enter_context(contextlib.closing(Line(stage.port, truth))) for _ in range(2 * stage.workers)]
            for _ in until(seconds):
                version = random.choice(versions)
                promote(stage.service, version)
                counts["swaps"] += 1
                for line in random.sample(lines, 2):
                    demand_version(line, version)
                    counts["predictions"] += 1
    return counts


def kills(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Kill -9 a web worker, the trainer, or everything, at any time, with jobs at every stage."""
    with Stage(folder, environment) as stage, watched(stage) as counts:
        for round_ in until(seconds):
            submit_some(stage)
            if round_ == 0:  # at the moment when the last job was acknowledged
                kill_everything(stage, counts)
                continue
            time.sleep(random.choice([0.0, random.uniform(0.0, 1.0)]))
            kill_any(stage, counts)
            stage.the_trainer()
            if random.random() < 0.2:  # the other jobs continue through the next kills
                stage.ledger.settle()
    return counts


def failpoints(
    folder: Path, environment: Environment, seconds: float, steps: tuple[Step, ...] = get_args(TrainingStep)
) -> Counts:
    """Kill -9 the process that reaches a step, or all processes at that moment, for each step in turn."""
    with Stage(folder, environment) as stage:
        stage.trainer()
        with watched(stage) as counts:
            for round_ in until(seconds):
                for step in steps:
                    kill_at(step, stage, counts, everything=bool(round_ % 2))
    return counts


def pauses(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Stop a web worker or the trainer, and continue it within the time that uvicorn gives a worker to answer."""
    with Stage(folder, environment) as stage, watched(stage) as counts:
        stage.ledger.diverge()
        for _ in until(seconds):
            submit_some(stage)
            victim = random.choice([random.choice(stage.service.web_workers()), stage.trainer()])
            os.kill(victim, signal.SIGSTOP)
            time.sleep(random.uniform(0.1, 2.0))
            os.kill(victim, signal.SIGCONT)
            counts["pauses"] += 1
            time.sleep(0.2)
            stage.the_trainer()
    return counts


def hangups(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Send SIGHUP under load: every worker is replaced, and no request fails."""
    with Stage(folder, environment) as stage, watched(stage) as counts:
        for _ in until(seconds):
            stage.ledger.fit()
            stage.all_workers()
            while not hang_up(stage):
                counts["hangups that uvicorn gave up"] += 1
            counts["hangups"] += 1
    return counts


def stops(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Send SIGTERM under load: requests in progress are answered, and jobs continue at the next start."""
    with Stage(folder, environment) as stage, watched(stage) as counts:
        for _ in until(seconds):
            stage.ledger.fit()
            stage.all_workers()
            slow = half_a_request(stage.port)
            begun = stage.count_log("Shutting down")
            os.kill(stage.service.pid, signal.SIGTERM)
            stage.wait_for(lambda: stage.count_log("Shutting down") >= begun + stage.workers, "a worker does not stop")  # noqa: B023
            finish_request(slow)
            stage.service.stop()
            counts["stops"] += 1
            stage.start()
    return counts


def full_disk(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Fill the disk of jobs, then that of versions: predictions are answered, and trainings state the reason."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(tmpfs(folder / "state", 8 << 20))
        stack.enter_context(tmpfs(folder / "models", 1 << 20))
        copy_models(folder)
        stage = stack.enter_context(Stage(folder, environment))
        first, second = two_versions(stage)
        with watched(stage) as counts:
            for _ in until(seconds):
                with filled(stage.service.state):
                    answer = train_by_hand(stage.service)
                    demand(answer.status_code in (503, 507), f"on a full disk /train answers {answer.status_code}")
                    promote(stage.service, random.choice([first, second]))
                with filled(stage.service.models):
                    stage.ledger.excuse(stage.ledger.fit())
                    stage.ledger.settle()
                    audit(stage.service.models)
                stage.ledger.fit()
                stage.ledger.settle()
                counts["full disks"] += 2
    return counts


def read_only_models(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Make the models folder read-only: predictions are answered, and promotions and jobs state the reason."""
    with Stage(folder, environment) as stage:
        first, second = two_versions(stage)
        with watched(stage) as counts:
            for _ in until(seconds):
                promote(stage.service, first)
                with read_only(stage.service.models):
                    answer = put_current(stage.service, second)
                    demand(answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, f"promoted: {answer.text}")
                    demand_current(stage, first)
                    job = stage.ledger.fit("always")
                    stage.ledger.expect_failure(job)
                    stage.ledger.settle()
                stage.ledger.fit("always")
                stage.ledger.settle()
                counts["read-only folders"] += 1
    return counts


def damage(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Truncate files and flip bits: no damaged version is promoted or served, by any worker."""
    with Stage(folder, environment) as stage:
        good, bad = two_versions(stage)
        path = stage.service.models / MODEL / f"{bad:06d}.safetensors"
        intact = path.read_bytes()
        truth = Truth.of_folder(stage.service.models)
        with watched(stage) as counts:
            for round_ in until(seconds):
                promote(stage.service, good)
                replace(path, damaged(intact))
                answer = put_current(stage.service, bad)
                demand(answer.status_code != httpx.codes.OK, "a damaged version was promoted")
                point_to(path)  # as an operator might by mistake
                demand_good(stage, truth)
                if round_ % 10 == 9:  # rarely, because a start takes most of the time
                    kill_everything(stage, counts)
                    demand_good(stage, truth)
                replace(path, intact)
                promote(stage.service, bad)
                counts["damaged files"] += 1
    return counts


def two_services(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Run two services with one models folder: no number is used twice, and each serves what the other promotes."""
    with (
        Stage(folder / "one", environment) as one,
        Stage(sharing(folder / "two", one), environment) as two,
        watched(one) as counts,
    ):
        for _ in until(seconds):
            # Stop one service after it chose the next number and before it takes it, and let the other publish first.
            one.arm("fsynced", signal.SIGSTOP)
            one.ledger.fit()
            one.reached("fsynced")
            two.ledger.fit("always")
            two.ledger.settle()
            os.kill(one.trainer(), signal.SIGCONT)
            for stage in (one, two):
                stage.ledger.fit()
            for stage in (one, two):
                stage.ledger.settle()
            version = max(audit(one.service.models))
            promote(two.service, version)
            demand_current(one, version)
            counts["shared versions"] += 4
        counts["jobs"] += two.ledger.closed
        two.read_log()
    return counts


def clock_jumps(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Move the clock forward and back by hours, days and years: promotions and jobs work as before."""
    clock = Clock(folder)
    with Stage(folder, {**environment, **clock.environment}) as stage:
        first, second = two_versions(stage)
        with watched(stage) as counts:
            for round_ in until(seconds):
                long = stage.ledger.descend(LONG)
                stage.ledger.fit("never")
                clock.jump(JUMPS[round_ % len(JUMPS)])
                demand(clock.is_seen_by(stage.service), "the clock of the service did not jump")
                for version in (first, second):
                    promote(stage.service, version)
                    demand_current(stage, version)
                stage.ledger.cancel(long)
                stage.ledger.settle()
                counts["clock jumps"] += 1
    return counts


def durability(folder: Path, environment: Environment, seconds: float) -> Counts:
    """Check that files which must survive a power failure are fsynced before they are named, and their names after."""
    counts = Counts()
    record = folder / "record"
    with Stage(folder, {**environment, "CHAOS_RECORD": str(record)}) as stage:
        for _ in until(seconds):
            stage.ledger.fit("always")
            stage.ledger.descend(60_000)
            stage.ledger.settle()
            promote(stage.service, 1)
        counts["ordered writes"] = check_order(record, stage.service.models / MODEL, stage.service.state)
        count(counts, stage)
    return counts


PHASES: dict[Phase, float] = {
    promotions: 4,
    kills: 6,
    failpoints: 6,
    hangups: 4,
    stops: 1,
    pauses: 1,
    damage: 1,
    full_disk: 1,
    read_only_models: 1,
    two_services: 1,
    three_trainers: 2,
    cluster: 4,
    clock_jumps: 1,
    flood: 1,
    durability: 1,
}
"""The phases, each with its share of the time."""
