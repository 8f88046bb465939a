"""Continuous predictions from separate processes; each answer is compared with the version that it names.

Started by `Traffic` as `python -m chaos.traffic PORT MODELS LINES PAUSE`; runs until its standard input is closed.
"""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec
from service import ROOT, Service

from chaos.line import Ended, Line, Truth, Wrong
from chaos.violation import demand

PROCESSES = 2
LINES = 4  # Connections of each process.
REFUSED_PAUSE = 0.02  # Seconds to wait after a refused connection.
MAX_FAILURES = 20  # Failures that are listed; all are counted.


class Tally(msgspec.Struct):
    """Counts of the outcomes of requests. `answered` counts the answers with the right prediction."""

    answered: int = 0
    failed: int = 0
    refused: int = 0  # connections to a service that is down
    unanswered: int = 0  # new connections that ended before their first answer
    cut: int = 0  # used connections that ended instead of an answer
    seconds: float = 0.0
    failures: list[str] = []
    versions: set[int] = set()

    def add(self, other: "Tally") -> None:
        for name in ("answered", "failed", "refused", "unanswered", "cut"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.seconds = max(self.seconds, other.seconds)
        self.failures = [*self.failures, *other.failures][:MAX_FAILURES]
        self.versions |= other.versions


class Traffic:
    """Requests predictions until its block ends."""

    def __init__(self, service: Service, *, pause: float = 0.0, processes: int = PROCESSES) -> None:
        """Set up processes that wait `pause` seconds before they use all their lines again."""
        self._count = processes
        port = service.url.rpartition(":")[2]
        self._command = [sys.executable, "-m", "chaos.traffic", port, str(service.models), str(LINES), str(pause)]
        self._processes: list[subprocess.Popen[bytes]] = []
        self.tally = Tally()

    def __enter__(self) -> Self:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        for _ in range(self._count):
            process = subprocess.Popen(
                self._command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self._processes.append(process)
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.readline()  # it has started
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            assert process.stdout is not None
            with process, contextlib.closing(process.stdout):
                self.tally.add(msgspec.json.decode(process.stdout.read(), type=Tally))

    def judge(self, *, killed: int = 0, stopped: int = 0, down: bool = False) -> Tally:
        """Raise Violation unless all requests were answered, except on connections of `killed` workers.

        `stopped` is the number of stops of the service, each of which may leave new connections unanswered.
        """
        tally = self.tally
        demand(tally.failed == 0, f"{tally.failed} predictions failed, for example: {tally.failures}")
        most = self._count * LINES
        demand(tally.cut <= killed * most, f"{tally.cut} connections cut, with {killed} workers killed")
        demand(
            tally.unanswered <= (killed + stopped) * most,
            f"{tally.unanswered} new connections without an answer, with {killed} workers killed and {stopped} stops",
        )
        demand(down or tally.refused == 0, f"{tally.refused} connections refused")
        return tally


def ask(lines: list[Line], pause: float) -> Tally:
    """Send requests on all lines until standard input ends."""
    tally = Tally()
    started = time.monotonic()
    while not select.select([sys.stdin], [], [], pause)[0]:
        sent = [line for line in lines if _counted(tally, line.ask)]
        for line in sent:
            if _counted(tally, lambda line=line: tally.versions.add(line.hear())):  # type: ignore[misc]
                tally.answered += 1
    tally.seconds = time.monotonic() - started
    return tally


def _counted(tally: Tally, act: Callable[[], None]) -> bool:
    """Return True if `act` succeeds; otherwise count the failure by its kind."""
    try:
        act()
    except Wrong as wrong:
        tally.failed += 1
        tally.failures = [*tally.failures, str(wrong)][:MAX_FAILURES]
    except Ended as ended:
        setattr(tally, ended.how, getattr(tally, ended.how) + 1)
        if ended.how == "refused":
            time.sleep(REFUSED_PAUSE)
    else:
        return True
    return False


def main(port: str, models: str, lines: str, pause: str) -> None:
    truth = Truth.of_folder(Path(models))
    connections = [Line(int(port), truth) for _ in range(int(lines))]
    sys.stdout.write("\n")
    sys.stdout.flush()
    tally = ask(connections, float(pause))
    sys.stdout.buffer.write(msgspec.json.encode(tally))


if __name__ == "__main__":
    main(*sys.argv[1:])
