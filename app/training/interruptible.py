"""Run work that a job can abandon at once, although a call into LAPACK or BLAS cannot be interrupted.

The work runs in its own thread. If the job is cancelled or exceeds its time limit, the job ends. The thread runs until
its call returns and it reports progress, which raises. The next job's work waits for it.
"""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from app.jobs.progress import ProgressReporter

CHECK_SECONDS = 0.1

T = TypeVar("T")

_busy = threading.Lock()  # Held by the working thread; a process trains one job at a time.


def run_interruptibly(work: Callable[[], T], tracker: ProgressReporter) -> T:
    """Return the result of `work`. Raises what `work` raises, and without waiting what `tracker.step` raises."""
    while not _busy.acquire(timeout=CHECK_SECONDS):
        tracker.check_cancelled()
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
        finally:
            _busy.release()

    # DBOS and the log find the job in the context.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="fit", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there is no memory for its stack
        _busy.release()
        raise
    try:
        while not wait([future], CHECK_SECONDS).done:
            tracker.check_cancelled()
    except BaseException:
        tracker.abandon()
        raise
    return future.result()
