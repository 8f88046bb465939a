import threading
from collections.abc import Callable

import pytest

from app.errors import InvalidInput, TimeExceeded
from app.training.interruptible import run_interruptibly
from app.training.progress import JobCancelled, ProgressReporter

LONG = 60.0


def tracker(*, cancelled: Callable[[], bool] = lambda: False, seconds: float = 0) -> ProgressReporter:
    return ProgressReporter(lambda *_: None, cancelled, seconds)


def test_the_result_or_the_error_of_the_work_is_passed_on() -> None:
    def fail() -> None:
        raise InvalidInput("There are no rows.")

    assert run_interruptibly(lambda: 7, tracker()) == 7
    with pytest.raises(InvalidInput):
        run_interruptibly(fail, tracker())


def test_a_job_ends_during_an_uninterruptible_call_and_the_next_job_waits_for_that_call() -> None:
    in_call, returns = threading.Event(), threading.Event()
    after_call: list[str] = []
    cancelled = tracker(cancelled=in_call.is_set)

    def work() -> None:
        in_call.set()
        assert returns.wait(LONG)
        try:
            cancelled.advance("fitting")
        except JobCancelled:
            after_call.append("stopped")
            raise

    with pytest.raises(JobCancelled):
        run_interruptibly(work, cancelled)
    assert not after_call
    with pytest.raises(TimeExceeded):  # while it waits, the next job keeps its own limit
        run_interruptibly(lambda: 7, tracker(seconds=0.01))

    returns.set()

    assert run_interruptibly(lambda: list(after_call), tracker()) == ["stopped"]


def test_a_thread_that_cannot_be_started_does_not_block_later_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_room)
        with pytest.raises(RuntimeError):
            run_interruptibly(lambda: 7, tracker())

    assert run_interruptibly(lambda: 7, tracker(seconds=LONG)) == 7
