"""Run work that a training can abandon at once, although a call into LAPACK or BLAS cannot be interrupted.

The work runs in its own thread. A training that is cancelled or exceeds its time limit ends at once. Its thread ends
when the work next reports progress, which raises. The work of the next training waits for that thread.
"""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from app.training.progress import ProgressReporter

CHECK_SECONDS = 0.1  # between two checks for cancellation

T = TypeVar("T")

_busy = threading.Lock()  # held by the working thread: a process has one training at a time


def run_interruptibly(work: Callable[[], T], progress: ProgressReporter) -> T:
    """Return the result of `work`, which runs in a thread of its own.

    Raises what `work` raises; and at once what `progress.check_cancelled` raises.
    """
    while not _busy.acquire(timeout=CHECK_SECONDS):
        progress.check_cancelled()
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
            progress.check_cancelled()
    except BaseException:
        progress.abandon()
        raise
    return future.result()
