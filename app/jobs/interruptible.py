"""Work that a job can leave at once, although a call into LAPACK or BLAS cannot be stopped.

The work runs in a thread of its own. If the job is cancelled or takes too long, the job ends and the thread goes on
until its call returns and it reports progress, which raises. The next job's work waits for that.
"""

import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

from app.jobs.tracker import Tracker

CHECK_SECONDS = 0.1

T = TypeVar("T")

_busy = threading.Lock()  # held by the thread that works; the process trains one job at a time


def run_interruptibly(work: Callable[[], T], tracker: Tracker) -> T:
    """Return what `work` returns or raise what it raises; raise what `tracker.step` raises as soon as it does."""
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
            leaving.callback(errors.clear)  # the error's frames would hold the rows in a circle
            raise errors[0]
    return results[0]
