"""What the phases have in common: predictions asked for all the time, rounds, and counts."""

import contextlib
import time
from collections.abc import Iterator

from chaos.acts import Counts, cut_off
from chaos.ledger import audit
from chaos.stage import Stage
from chaos.traffic import Traffic

FLOOR = 25.0  # predictions a second, where processes are stopped or down most of the time
PAUSE = 0.01  # seconds, that leave the trainer time to work: it takes only what predictions leave


@contextlib.contextmanager
def watched(stage: Stage, *, floor: float = FLOOR, pause: float = PAUSE) -> Iterator[Counts]:
    """Predictions are asked for as long as the block, which counts what it does to the service.

    After it all jobs have ended as they should. Raises Violation otherwise, and where a prediction was not answered
    that no kill and no stop has cut off.
    """
    counts = Counts()
    with Traffic(stage.service, pause=pause) as traffic:
        yield counts
        stage.ledger.settle()
        stage.the_trainer()
    tally = traffic.judge(
        floor=floor,
        killed=cut_off(counts),
        stopped=counts["stops"],
        down=bool(counts["stops"] or counts["kills of everything"]),
    )
    counts["predictions"] += tally.answered
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
    """Rounds until so much time is over, and one at least."""
    end = time.monotonic() + seconds
    round_ = 0
    while round_ == 0 or time.monotonic() < end:
        yield round_
        round_ += 1
