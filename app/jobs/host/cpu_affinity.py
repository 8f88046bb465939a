"""Half of the cores for predictions, while any are asked for; else the trainer has them all.

The scheduler alone does not see to it: a thread of the idle class gives way to a request only at the next tick of the
clock on current kernels (Linux 6.12 and later, with lazy preemption), 1 to 4 ms late.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

CHECK_SECONDS = 0.02
QUIET_SECONDS = 1.0  # without a prediction, and the trainer takes all cores again


class PredictionActivity:
    """When predictions were made last, kept as the time of a file that web workers and trainer share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self) -> None:
        """Predictions were made just now."""
        with contextlib.suppress(OSError):
            try:
                os.utime(self._path)
            except FileNotFoundError:
                self._path.touch()

    def is_recent(self) -> bool:
        try:
            return abs(time.time() - self._path.stat().st_mtime) < QUIET_SECONDS
        except OSError:
            return False


@contextlib.contextmanager
def yield_cores_to_predictions(traffic: PredictionActivity) -> Iterator[None]:
    """Keep all threads of this process off half of the cores whenever there is traffic, where the system can."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:  # noqa: PLR2004 - there is none to spare
        yield
        return
    done = threading.Event()
    spared = threading.Thread(target=_watch, args=(traffic, cores, done), name="spare-cores", daemon=True)
    spared.start()
    try:
        yield
    finally:
        done.set()
        spared.join()


def _watch(traffic: PredictionActivity, cores: list[int], done: threading.Event) -> None:
    allowed = cores
    while True:
        wanted = cores[len(cores) // 2 :] if traffic.is_recent() else cores
        if wanted != allowed:
            _keep_to(wanted)
            allowed = wanted
        if done.wait(CHECK_SECONDS):
            break
    _keep_to(cores)


def _keep_to(cores: list[int]) -> None:
    # A thread that starts later takes after the one that starts it.
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - names are all that is wanted
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(thread), cores)
