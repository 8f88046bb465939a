"""Leave half of the cores to predictions while there are any. Otherwise the trainer has all cores.

The scheduler alone is too slow. On Linux 6.12 and later, with lazy preemption, a thread of the idle class yields to a
request only at the next clock tick, 1 to 4 ms late.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

CHECK_SECONDS = 0.02
QUIET_SECONDS = 1.0  # Time without a prediction after which the trainer uses all cores.


class PredictionActivity:
    """The time of the last prediction, stored as the modification time of a file that all processes share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self) -> None:
        """Store the present time."""
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
def yield_cores_to_predictions(activity: PredictionActivity) -> Iterator[None]:
    """Keep all threads of this process off half of the cores during predictions, if the system supports it."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:  # noqa: PLR2004 - one core cannot be divided
        yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(activity, cores, done), name="spare-cores", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(activity: PredictionActivity, cores: list[int], done: threading.Event) -> None:
    allowed = cores
    while True:
        chosen = cores[len(cores) // 2 :] if activity.is_recent() else cores
        if chosen != allowed:
            _restrict_threads(chosen)
            allowed = chosen
        if done.wait(CHECK_SECONDS):
            break
    _restrict_threads(cores)


def _restrict_threads(cores: list[int]) -> None:
    # A new thread inherits the cores of the thread that starts it.
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - only names are needed
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(thread), cores)
