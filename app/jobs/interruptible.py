"""Run work that a job can abandon at once, although a call into LAPACK or BLAS cannot be interrupted.

The work runs in its own thread. If the job is cancelled or exceeds its time limit, the job ends. The thread runs until
its call returns and it reports progress, which raises. The next job's work waits for it.
"""

import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

from app.jobs.tracker import Tracker

CHECK_SECONDS = 0.1

T = TypeVar("T")

_busy = threading.Lock()  # Held by the working thread; a process trains one job at a time.


def run_interruptibly(work: Callable[[], T], tracker: Tracker) -> T:
    """Return the result of `work`. Raises what `work` raises, and without waiting what `tracker.step` raises."""
    while not _busy.acquire(timeout=CHECK_SECONDS):
        tracker.step()
    ended = threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            _busy.release()
            ended.set()

    # DBOS and the log find the job in the context.
    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="fit", daemon=True).start()
    try:
        while not ended.wait(CHECK_SECONDS):
            tracker.step()
    except BaseException:
        tracker.abandon()
        raise
    if errors:
        with contextlib.ExitStack() as leaving:
            leaving.callback(errors.clear)  # the error's frames would keep the rows in a reference cycle
            raise errors[0]
    return results[0]
