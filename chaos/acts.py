"""The acts of the phases: kills, stops, promotions, damage, and the checks after them."""

import contextlib
import os
import random
import signal
import socket
from collections import Counter
from pathlib import Path

import httpx
from service import Service

from app.failpoints import Step
from chaos.ledger import audit
from chaos.line import ANSWER_SECONDS, Ended, Line, Truth, Wrong, http_request, receive
from chaos.stage import Stage
from chaos.violation import Violation, demand

MODEL = "crop-yield"
LONG = 10_000_000  # Epochs of a descent that never ends within a phase.
GIVEN_UP = "aborting the restart"  # uvicorn's log message when it abandons a rolling restart
WEB_STEPS: tuple[Step, ...] = ("spooled", "recorded")

Counts = Counter[str]


def two_versions(stage: Stage) -> tuple[int, int]:
    stage.ledger.fit("always")
    stage.ledger.settle()
    return 1, max(audit(stage.service.models))


def submit_some(stage: Stage) -> None:
    stage.ledger.fit(random.choice(["always", "never"]))
    if random.random() < 0.2:
        stage.ledger.diverge()
    if random.random() < 0.2:
        job = stage.ledger.descend(LONG)
        stage.ledger.cancel(job)


def cut_off(counts: Counts) -> int:
    """Return the number of kills that cut the connections of at least one worker."""
    return counts["kills of a worker"] + counts["kills of everything"]


def kill_any(stage: Stage, counts: Counts) -> None:
    random.choice([_kill_worker, _kill_trainer, kill_everything])(stage, counts)


def _kill_worker(stage: Stage, counts: Counts) -> None:
    stage.all_workers()
    os.kill(random.choice(stage.service.web_workers()), signal.SIGKILL)
    _note_kill(counts, "a worker")


def _kill_trainer(stage: Stage, counts: Counts) -> None:
    os.kill(stage.trainer(), signal.SIGKILL)
    _note_kill(counts, "the trainer")


def kill_everything(stage: Stage, counts: Counts) -> None:
    stage.service.kill()
    stage.start()
    _note_kill(counts, "everything")


def _note_kill(counts: Counts, victim: str) -> None:
    counts["kills"] += 1
    counts[f"kills of {victim}"] += 1


def kill_at(step: Step, stage: Stage, counts: Counts, *, everything: bool) -> None:
    """Kill the process that reaches the step, and then all processes if `everything` is set."""
    descent = step == "checkpoint_opened"
    if descent:
        # Kill at the second checkpoint, so that the first one is there to resume from.
        job = stage.ledger.descend(150_000)
        checkpoint = stage.service.state / "checkpoints" / f"{job}.json"
        stage.wait_for(checkpoint.exists, "a descent that takes seconds saved no checkpoint")
        resumed = stage.count_log("descent resumed")
    stage.arm(step)
    if not descent:
        stage.ledger.fit("always")  # repeated with its key if its worker is killed
    stage.reached(step)
    stage.ledger.orphans += step == "spooled"
    _note_kill(counts, "a worker" if step in WEB_STEPS else "the trainer")
    counts[f"kills at {step}"] += 1
    if everything:
        kill_everything(stage, counts)
    stage.ledger.settle()
    if descent:
        demand(stage.count_log("descent resumed") > resumed, "a descent began again, though it had a checkpoint")
    stage.the_trainer()


def hang_up(stage: Stage) -> bool:
    """Send SIGHUP. Return True if all workers were replaced, False if uvicorn abandoned the restart after 5 s."""
    before = set(stage.service.web_workers())
    given_up = stage.count_log(GIVEN_UP)
    os.kill(stage.service.pid, signal.SIGHUP)

    def replaced() -> bool:
        return not before & set(stage.service.web_workers())

    def gave_up() -> bool:
        return stage.count_log(GIVEN_UP) > given_up

    stage.wait_for(lambda: replaced() or gave_up(), "the workers were not replaced")
    return not gave_up()


def put_current(service: Service, version: int) -> httpx.Response:
    return service.client.put(f"/models/{MODEL}/current", json={"version": version})


def promote(service: Service, version: int) -> None:
    answer = put_current(service, version)
    demand(answer.status_code == httpx.codes.OK, f"version {version} is not promoted: {answer.text}")


def demand_current(stage: Stage, version: int) -> None:
    with contextlib.closing(Line(stage.port, Truth.of_folder(stage.service.models))) as line:
        demand_version(line, version)


def demand_version(line: Line, version: int) -> None:
    answered = _version_of(line)
    demand(answered == version, f"version {version} was promoted, and {answered} answers")


def demand_good(stage: Stage, truth: Truth) -> None:
    """Raise Violation unless each of eight connections gets the predictions of an intact version."""
    for _ in range(8):
        with contextlib.closing(Line(stage.port, truth)) as line:
            _version_of(line)


def _version_of(line: Line) -> int:
    try:
        return line.predict()
    except (Wrong, Ended) as fault:
        raise Violation(str(fault)) from None


def train_by_hand(service: Service) -> httpx.Response:
    rows = {"instances": [[1, 2, 3]] * 2000, "targets": [[1, 2]] * 2000}
    return service.client.post("/train", json=rows)


def damaged(content: bytes) -> bytes:
    if random.random() < 0.3:  # flipped bits are harder to notice
        return content[: random.randrange(len(content))]
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]


def replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(".damaged")
    temporary.write_bytes(content)
    temporary.rename(path)


def point_to(path: Path) -> None:
    temporary = path.with_name(".pointer")
    temporary.symlink_to(path.name)
    temporary.rename(path.with_name("current"))


def half_a_request(port: int) -> tuple[socket.socket, bytes]:
    whole = http_request({"instances": [[75, 63, 44]]})
    line = socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS)
    line.sendall(whole[:-10])
    return line, whole[-10:]


def finish_request(half: tuple[socket.socket, bytes]) -> None:
    line, rest = half
    try:
        with line:
            line.sendall(rest)
            head, _ = receive(line)
    except OSError as error:
        raise Violation(f"a request in progress was dropped at a stop: {error}") from None
    demand(head.startswith(b"HTTP/1.1 200 "), f"a request in progress was answered {head!r} at a stop")
