"""`python -m chaos`: run all phases in turn, or one of them, for some minutes. `--prove` plants bugs instead."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial, update_wrapper
from pathlib import Path
from typing import Literal

from chaos.acts import Counts
from chaos.cluster import cluster
from chaos.phases import PHASES, Phase, promotions
from chaos.proof import prove
from chaos.trainers import three_trainers
from chaos.violation import Unable, Violation
from chaos.watching import RATE

ONCE = 0.001  # Time limit that allows exactly one round of a phase, in seconds.
ROUND_SECONDS = 300.0  # Longest time in which all phases run once, in seconds.
# Lowest valid rates, in predictions per second. Processes are down most of the time in all phases except promotions.
FLOOR, FULL_FLOOR = 10, 500
READY_MS = 2000  # Longest time of a start on an idle machine, in milliseconds.

End = Literal["kept", "broken", "untried"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--hours", type=float, default=0.0, help="instead of --minutes")
    parser.add_argument("--phase", choices=[phase.__name__ for phase in PHASES], help="only this one")
    parser.add_argument(
        "--updates",
        type=int,
        default=0,
        help="with --phase three_trainers: the number of updates to make; with --phase cluster, that of jobs, half of "
        "them updates. There is no time limit then",
    )
    parser.add_argument("--prove", action="store_true", help="plant bugs, each of which must be noticed")
    options = parser.parse_args()
    if options.prove:
        return prove(_print_line)
    if options.updates:
        counted: dict[str | None, Callable[..., Counts]] = {
            phase.__name__: phase for phase in (three_trainers, cluster)
        }
        if options.phase not in counted:
            parser.error(f"--updates is for one of the phases {' and '.join(map(str, counted))}.")
        phase: Phase = partial(counted[options.phase], updates=options.updates)
        update_wrapper(phase, counted[options.phase])
        return _run(ONCE, {phase: 1})
    phases = {phase: share for phase, share in PHASES.items() if options.phase in (None, phase.__name__)}
    return _run(options.hours * 3600 or options.minutes * 60, phases)


def _run(seconds: float, phases: dict[Phase, float]) -> int:
    totals: dict[str, Counter[str]] = {phase.__name__: Counter() for phase in phases}
    ends: Counter[End] = Counter()
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for phase, share in phases.items():
            ends[_play(phase, min(left, ROUND_SECONDS) * share / sum(phases.values()), totals)] += 1
    for name, counts in totals.items():
        _print_line(f"{name:18}" + ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())))
    slowest = max(counts["slowest start, ms"] for counts in totals.values())
    if slowest > READY_MS:
        _print_line(f"A start took {slowest} ms. On an idle machine, it should take at most {READY_MS} ms.")
    if ends["untried"]:
        _print_line(f"Phases that could not run here: {ends['untried']}.")
    if ends["broken"]:
        _print_line(f"Phases that found a broken guarantee: {ends['broken']}.")
        return 1
    _print_line("No guarantee was broken." if ends["kept"] else "No phase could run.")
    return 0


def _play(phase: Phase, seconds: float, totals: dict[str, Counter[str]]) -> End:
    total = totals[phase.__name__]
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        place = Path(folder) / phase.__name__
        try:
            counts = phase(place, {}, seconds)
        except Unable as reason:
            _print_line(f"{phase.__name__}: could not run here: {reason}")
            return "untried"
        except Violation as violation:
            kept = Path(tempfile.mkdtemp(prefix="chaos-broken-"))
            for log in place.rglob("*.log"):
                (kept / f"{log.parent.name}-{log.name}").write_bytes(log.read_bytes())
            _print_line(f"{phase.__name__}: BROKEN: {violation} (logs: {kept})")
            return "broken"
    floor = FULL_FLOOR if phase is promotions else FLOOR
    if (rate := counts.pop(RATE, floor)) < floor:
        _print_line(f"{phase.__name__}: the run is not valid: {rate} {RATE}, expected at least {floor}")
        return "broken"
    slowest = max(total["slowest start, ms"], counts.pop("slowest start, ms"))
    total.update(counts)
    total["slowest start, ms"] = slowest
    _print_line(f"{phase.__name__}: " + ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())))
    return "kept"


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
