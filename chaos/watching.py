"""Shared parts of the phases: continuous predictions, rounds and counts."""

import contextlib
import time
from collections.abc import Iterator

from chaos.acts import Counts, cut_off
from chaos.ledger import audit
from chaos.stage import Stage
from chaos.traffic import PROCESSES, Traffic

RATE = "predictions a second"
PAUSE, SMALL_PAUSE = 0.01, 0.05  # Seconds between predictions, so that the trainer gets CPU time.


@contextlib.contextmanager
def watched(stage: Stage, *, pause: float | None = None) -> Iterator[Counts]:
    """Request predictions during the block, which counts its acts, and then wait for all jobs.

    Raises Violation if a job did not end as expected, or if a prediction was not answered although no kill or stop cut
    it off.
    """
    counts = Counts()
    if pause is None:
        pause = SMALL_PAUSE if stage.is_small else PAUSE
    with Traffic(stage.service, pause=pause, processes=1 if stage.is_small else PROCESSES) as traffic:
        yield counts
        stage.ledger.settle()
        stage.the_trainer()
    tally = traffic.judge(
        killed=cut_off(counts),
        stopped=counts["stops"],
        down=bool(counts["stops"] or counts["kills of everything"]),
    )
    counts["predictions"] += tally.answered
    counts[RATE] = round(tally.answered / tally.seconds)
    counts["cut by kills and stops"] += tally.cut + tally.unanswered
    count(counts, stage)


def count(counts: Counts, stage: Stage) -> None:
    stage.read_log()
    counts["jobs"] += stage.ledger.closed
    counts["versions"] += len(audit(stage.service.models))
    counts["starts"] += len(stage.ready_seconds)
    slowest = round(1000 * max(stage.ready_seconds))
    counts["slowest start, ms"] = max(counts["slowest start, ms"], slowest)


def until(seconds: float) -> Iterator[int]:
    """Yield the numbers of rounds until `seconds` have passed, and at least one."""
    end = time.monotonic() + seconds
    round_ = 0
    while round_ == 0 or time.monotonic() < end:
        yield round_
        round_ += 1
