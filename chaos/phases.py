"""What is done to the service. Each phase starts one of its own, hurts it for a while and checks what it kept.

A phase raises Violation where a promise was broken, and Unable where this machine does not let it be tried.
"""

import contextlib
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import httpx
from service import Service, copy_models

from app.failpoints import Step
from chaos.clock import JUMPS, Clock
from chaos.disk import filled, read_only, tmpfs
from chaos.durability import check_order
from chaos.ledger import audit
from chaos.line import Ended, Line, Truth, Wrong, receive, request_of
from chaos.stage import Stage
from chaos.traffic import Traffic
from chaos.violation import Violation, demand

FULL_FLOOR = 500.0  # predictions a second, below which a run does not count
FLOOR = 25.0  # where processes are stopped or down most of the time
PAUSE = 0.01  # that leaves the trainer time to work: it takes only what predictions leave
MODEL = "crop-yield"
LONG = 10_000_000  # epochs that nobody waits for
GIVEN_UP = "aborting the restart"  # in the log

Counts = Counter[str]
Phase = Callable[[Path, Path, float], Counts]

_WEB_STEPS: tuple[Step, ...] = ("spooled", "recorded")


def promotions(folder: Path, root: Path, seconds: float) -> Counts:
    """Promotions and rollbacks without pause; the next answer of any worker is of the version just promoted."""
    counts = Counts()
    with Stage(folder, root) as stage:
        for _ in range(5):
            stage.ledger.fit()
        stage.ledger.settle()
        versions = sorted(audit(stage.service.models))
        truth = Truth(stage.service.models)
        with Traffic(stage.service) as traffic, contextlib.ExitStack() as stack:
            watched = [stack.enter_context(contextlib.closing(Line(stage.port, truth))) for _ in range(8)]
            for _ in _until(seconds):
                version = random.choice(versions)
                _promote(stage.service, version)
                counts["swaps"] += 1
                for line in random.sample(watched, 2):
                    _demand_version(line, version)
                    counts["predictions"] += 1
        _count(counts, stage, traffic.judge(floor=FULL_FLOOR).answered)
    return counts


def kills(folder: Path, root: Path, seconds: float) -> Counts:
    """Kill -9 of a web worker, the trainer, or everything, at any time, with jobs at every stage."""
    counts = Counts()
    with Stage(folder, root) as stage:
        with Traffic(stage.service, pause=PAUSE) as traffic:
            for round_ in _until(seconds):
                _submit_some(stage)
                if round_ == 0:  # at the moment when the last job was acknowledged
                    _kill(_kill_everything, stage, counts)
                    continue
                time.sleep(random.choice([0.0, random.uniform(0.0, 1.0)]))
                _kill(random.choice([_kill_worker, _kill_trainer, _kill_everything]), stage, counts)
                stage.the_trainer()
                if random.random() < 0.2:  # the others stay open through the next kills
                    stage.ledger.settle()
            stage.ledger.settle()
        _count(counts, stage, traffic.judge(floor=FLOOR, killed=_cutting(counts), down=True).answered)
    return counts


def failpoints(folder: Path, root: Path, seconds: float, steps: tuple[Step, ...] = get_args(Step)) -> Counts:
    """Kill -9 of whoever reaches a step, or of everything at that moment, for one step after the other."""
    counts = Counts()
    with Stage(folder, root) as stage:
        stage.trainer()
        with Traffic(stage.service, pause=PAUSE) as traffic:
            for round_ in _until(seconds):
                for step in steps:
                    _kill_at(step, stage, counts, everything=bool(round_ % 2))
        _count(counts, stage, traffic.judge(floor=FLOOR, killed=_cutting(counts), down=True).answered)
    return counts


def pauses(folder: Path, root: Path, seconds: float) -> Counts:
    """SIGSTOP of a web worker or the trainer, and SIGCONT within the time that uvicorn gives a worker to answer."""
    counts = Counts()
    with Stage(folder, root) as stage:
        with Traffic(stage.service, pause=PAUSE) as traffic:
            for _ in _until(seconds):
                _submit_some(stage)
                victim = random.choice([random.choice(stage.service.web_workers()), stage.trainer()])
                os.kill(victim, signal.SIGSTOP)
                time.sleep(random.uniform(0.1, 2.0))
                os.kill(victim, signal.SIGCONT)
                counts["pauses"] += 1
                time.sleep(0.2)
                stage.the_trainer()
            stage.ledger.settle()
        _count(counts, stage, traffic.judge(floor=FLOOR).answered)
    return counts


def hangups(folder: Path, root: Path, seconds: float) -> Counts:
    """SIGHUP under load: every worker is replaced, and no request notices."""
    counts = Counts()
    with Stage(folder, root) as stage:
        with Traffic(stage.service, pause=PAUSE) as traffic:
            for _ in _until(seconds):
                stage.ledger.fit()
                stage.all_workers()
                while not _hang_up(stage):
                    counts["hangups that uvicorn gave up"] += 1
                counts["hangups"] += 1
            stage.ledger.settle()
        _count(counts, stage, traffic.judge(floor=FLOOR).answered)
    return counts


def stops(folder: Path, root: Path, seconds: float) -> Counts:
    """SIGTERM under load: requests under way are answered, and jobs go on with the next start."""
    counts = Counts()
    with Stage(folder, root) as stage:
        with Traffic(stage.service, pause=PAUSE) as traffic:
            for _ in _until(seconds):
                stage.ledger.fit()
                slow = _half_a_request(stage.port)
                os.kill(stage.service.pid, signal.SIGTERM)
                time.sleep(1.0)  # in which every worker has begun to stop
                _finish_request(slow)
                stage.service.stop()
                counts["stops"] += 1
                stage.start()
            stage.ledger.settle()
        _count(counts, stage, traffic.judge(floor=FLOOR, stopped=counts["stops"], down=True).answered)
    return counts


def full_disk(folder: Path, root: Path, seconds: float) -> Counts:
    """No room for jobs, then none for versions: every prediction is answered, and training says why it cannot."""
    counts = Counts()
    with contextlib.ExitStack() as stack:
        stack.enter_context(tmpfs(folder / "state", 8 << 20))
        stack.enter_context(tmpfs(folder / "models", 1 << 20))
        copy_models(folder)
        stage = stack.enter_context(Stage(folder, root))
        first, second = _two_versions(stage)
        with Traffic(stage.service, pause=PAUSE) as traffic:
            for _ in _until(seconds):
                with filled(stage.service.state):
                    answer = _train_by_hand(stage.service)
                    demand(answer.status_code in (503, 507), f"on a full disk /train answers {answer.status_code}")
                    _promote(stage.service, random.choice([first, second]))
                with filled(stage.service.models):
                    stage.ledger.excuse(stage.ledger.fit())
                    stage.ledger.settle()
                    audit(stage.service.models)
                stage.ledger.fit()
                stage.ledger.settle()
                counts["full disks"] += 2
        _count(counts, stage, traffic.judge(floor=FLOOR).answered)
    return counts


def read_only_models(folder: Path, root: Path, seconds: float) -> Counts:
    """The models folder cannot be written: every prediction is answered, promotions and jobs say why they cannot."""
    counts = Counts()
    with Stage(folder, root) as stage:
        first, second = _two_versions(stage)
        with Traffic(stage.service, pause=PAUSE) as traffic:
            for _ in _until(seconds):
                _promote(stage.service, first)
                with read_only(stage.service.models):
                    answer = _put_current(stage.service, second)
                    demand(answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, f"promoted: {answer.text}")
                    _demand_current(stage, first)
                    job = stage.ledger.fit("always")
                    stage.ledger.expect_failure(job)
                    stage.ledger.settle()
                stage.ledger.fit("always")
                stage.ledger.settle()
                counts["read-only folders"] += 1
        _count(counts, stage, traffic.judge(floor=FLOOR).answered)
    return counts


def damage(folder: Path, root: Path, seconds: float) -> Counts:
    """Truncated files and flipped bits: no damaged version is promoted or served, by any worker."""
    counts = Counts()
    with Stage(folder, root) as stage:
        good, bad = _two_versions(stage)
        path = stage.service.models / MODEL / f"{bad:06d}.safetensors"
        intact = path.read_bytes()
        truth = Truth(stage.service.models)
        with Traffic(stage.service, pause=PAUSE) as traffic:
            for round_ in _until(seconds):
                _promote(stage.service, good)
                _replace(path, _damaged(intact))
                answer = _put_current(stage.service, bad)
                demand(answer.status_code != httpx.codes.OK, "a damaged version was promoted")
                _point_to(path)  # as a hand that knows no better does
                _demand_good(stage, truth)
                if round_ % 10 == 9:  # a start takes longest
                    _kill(_kill_everything, stage, counts)
                    _demand_good(stage, truth)
                _replace(path, intact)
                _promote(stage.service, bad)
                counts["damaged files"] += 1
        judged = traffic.judge(floor=FLOOR, killed=_cutting(counts), down=bool(counts["kills"]))
        _count(counts, stage, judged.answered)
    return counts


def two_services(folder: Path, root: Path, seconds: float) -> Counts:
    """Two services with one models folder: no number is used twice, and each serves what the other promotes."""
    counts = Counts()
    with Stage(folder / "one", root) as one:
        (folder / "two").mkdir()
        (folder / "two" / "models").symlink_to(one.service.models)
        with Stage(folder / "two", root) as two, Traffic(one.service, pause=PAUSE) as traffic:
            for _ in _until(seconds):
                # One has taken the next number in mind, and is stopped before it takes it; the other passes by.
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
                _promote(two.service, version)
                _demand_current(one, version)
                counts["shared versions"] += 4
            counts["jobs"] += two.ledger.closed
        _count(counts, one, traffic.judge(floor=FLOOR).answered)
    return counts


def clock_jumps(folder: Path, root: Path, seconds: float) -> Counts:
    """The time of day jumps by hours, days and years, to and fro."""
    counts = Counts()
    clock = Clock(folder)
    with Stage(folder, root, **clock.environment) as stage:
        first, second = _two_versions(stage)
        with Traffic(stage.service, pause=PAUSE) as traffic:
            for round_ in _until(seconds):
                long = stage.ledger.descend(LONG)
                stage.ledger.fit("never")
                clock.jump(JUMPS[round_ % len(JUMPS)])
                demand(clock.is_seen_by(stage.service), "the clock of the service did not jump")
                for version in (first, second):
                    _promote(stage.service, version)
                    _demand_current(stage, version)
                stage.ledger.cancel(long)
                stage.ledger.settle()
                counts["clock jumps"] += 1
        _count(counts, stage, traffic.judge(floor=FLOOR).answered)
    return counts


def durability(folder: Path, root: Path, seconds: float) -> Counts:
    """What a power cut may not take was synchronised before it was given its name, and the name after."""
    counts = Counts()
    record = folder / "record"
    recorder = os.pathsep.join([str(Path(__file__).parent / "recorder"), str(root)])
    with Stage(folder, root, CHAOS_RECORD=str(record), PYTHONPATH=recorder) as stage:
        for _ in _until(seconds):
            stage.ledger.fit("always")
            stage.ledger.descend(60_000)
            stage.ledger.settle()
        counts["ordered writes"] = check_order(record, stage.service.models / MODEL, stage.service.state)
        _count(counts, stage, 0)
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
    clock_jumps: 1,
    durability: 1,
}
"""Each with its share of the time."""


def _until(seconds: float) -> Iterator[int]:
    """Rounds until so much time is over, and one at least."""
    until = time.monotonic() + seconds
    round_ = 0
    while round_ == 0 or time.monotonic() < until:
        yield round_
        round_ += 1


def _count(counts: Counts, stage: Stage, predictions: int) -> None:
    stage.read_log()
    counts["predictions"] += predictions
    counts["jobs"] += stage.ledger.closed
    counts["versions"] += len(audit(stage.service.models))
    counts["starts"] += len(stage.ready_seconds)
    slowest = round(1000 * max(stage.ready_seconds))
    counts["slowest start, ms"] = max(counts["slowest start, ms"], slowest)


def _two_versions(stage: Stage) -> tuple[int, int]:
    stage.ledger.fit("always")
    stage.ledger.settle()
    return 1, max(audit(stage.service.models))


def _submit_some(stage: Stage) -> None:
    stage.ledger.fit(random.choice(["always", "never"]))
    if random.random() < 0.2:
        stage.ledger.diverge()
    if random.random() < 0.2:
        job = stage.ledger.descend(LONG)
        stage.ledger.cancel(job)


def _kill(kill: Callable[[Stage], str], stage: Stage, counts: Counts) -> None:
    counts["kills"] += 1
    counts[f"kills of {kill(stage)}"] += 1


def _cutting(counts: Counts) -> int:
    """How many workers' connections the kills have cut."""
    return counts["kills of a worker"] + counts["kills of everything"]


def _kill_worker(stage: Stage) -> str:
    stage.all_workers()
    os.kill(random.choice(stage.service.web_workers()), signal.SIGKILL)
    return "a worker"


def _kill_trainer(stage: Stage) -> str:
    os.kill(stage.trainer(), signal.SIGKILL)
    return "the trainer"


def _kill_everything(stage: Stage) -> str:
    stage.service.kill()
    stage.start()
    return "everything"


def _kill_at(step: Step, stage: Stage, counts: Counts, *, everything: bool) -> None:
    """Kill whoever reaches the step, and everything at that moment if so wanted."""
    descent = step == "checkpoint_opened"
    if descent:
        # The second checkpoint is the one that hurts: there is a first one to fall back on.
        job = stage.ledger.descend(150_000)
        checkpoint = stage.service.state / "checkpoints" / f"{job}.json"
        stage.wait_for(checkpoint.exists, "a descent of seconds keeps no checkpoint")
        resumed = stage.service.log.read_text().count('"descent resumed"')
    stage.arm(step)
    if not descent:
        stage.ledger.fit("always")  # asked again under its key, where the worker that heard it was killed
    stage.reached(step)
    stage.ledger.orphans += step == "spooled"
    counts["kills"] += 1
    counts[f"kills of {'a worker' if step in _WEB_STEPS else 'the trainer'}"] += 1
    counts[f"kills at {step}"] += 1
    if everything:
        _kill(_kill_everything, stage, counts)
    stage.ledger.settle()
    if descent:
        again = stage.service.log.read_text().count('"descent resumed"')
        demand(again > resumed, "a descent began again, though it had a checkpoint")
    stage.the_trainer()


def _hang_up(stage: Stage) -> bool:
    """Whether all workers were replaced. On a busy machine a new one may not come within uvicorn's 5 s; it says so."""
    before = set(stage.service.web_workers())
    given_up = stage.service.log.read_text().count(GIVEN_UP)
    os.kill(stage.service.pid, signal.SIGHUP)

    def replaced() -> bool:
        return not before & set(stage.service.web_workers())

    def gave_up() -> bool:
        return stage.service.log.read_text().count(GIVEN_UP) > given_up

    stage.wait_for(lambda: replaced() or gave_up(), "the workers were not replaced")
    return not gave_up()


def _put_current(service: Service, version: int) -> httpx.Response:
    return service.client.put(f"/models/{MODEL}/current", json={"version": version})


def _promote(service: Service, version: int) -> None:
    answer = _put_current(service, version)
    demand(answer.status_code == httpx.codes.OK, f"version {version} is not promoted: {answer.text}")


def _demand_current(stage: Stage, version: int) -> None:
    with contextlib.closing(Line(stage.port, Truth(stage.service.models))) as line:
        _demand_version(line, version)


def _demand_version(line: Line, version: int) -> None:
    found = _version_of(line)
    demand(found == version, f"version {version} was promoted, and {found} answers")


def _demand_good(stage: Stage, truth: Truth) -> None:
    """Whatever version answers does so as it did when it was intact, in all workers that eight connections come to."""
    for _ in range(8):
        with contextlib.closing(Line(stage.port, truth)) as line:
            _version_of(line)


def _version_of(line: Line) -> int:
    try:
        return line.predict()
    except (Wrong, Ended) as fault:
        raise Violation(str(fault)) from None


def _train_by_hand(service: Service) -> httpx.Response:
    rows = {"instances": [[1, 2, 3]] * 2000, "targets": [[1, 2]] * 2000}
    return service.client.post("/train", json=rows)


def _damaged(content: bytes) -> bytes:
    if random.random() < 0.3:  # flipped bits are harder to see
        return content[: random.randrange(len(content))]
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(".damaged")
    temporary.write_bytes(content)
    temporary.rename(path)


def _point_to(path: Path) -> None:
    temporary = path.with_name(".pointer")
    temporary.symlink_to(path.name)
    temporary.rename(path.with_name("current"))


def _half_a_request(port: int) -> tuple[socket.socket, bytes]:
    whole = request_of({"instances": [[75, 63, 44]]})
    line = socket.create_connection(("127.0.0.1", port), 30)
    line.sendall(whole[:-10])
    return line, whole[-10:]


def _finish_request(half: tuple[socket.socket, bytes]) -> None:
    line, rest = half
    try:
        with line:
            line.sendall(rest)
            head, _ = receive(line)
    except OSError as error:
        raise Violation(f"a request under way was dropped at a stop: {error}") from None
    demand(head.startswith(b"HTTP/1.1 200 "), f"a request under way was answered {head!r} at a stop")
