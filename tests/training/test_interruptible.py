import threading
from collections.abc import Callable

import pytest

from app.errors import InvalidInput, TimeExceeded
from app.jobs.progress import JobCancelled, ProgressReporter
from app.training.interruptible import run_interruptibly

LONG = 60.0


def tracker(*, cancelled: Callable[[], bool] = lambda: False, seconds: float = 0) -> ProgressReporter:
    return ProgressReporter(lambda *_: None, cancelled, seconds)


def test_what_the_work_returns_or_raises_is_returned_or_raised() -> None:
    def fail() -> None:
        raise InvalidInput("There are no rows.")

    assert run_interruptibly(lambda: 7, tracker()) == 7
    with pytest.raises(InvalidInput):
        run_interruptibly(fail, tracker())


def test_a_job_ends_while_its_work_is_in_a_call_that_cannot_be_stopped_and_the_next_one_waits_for_it() -> None:
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


def test_a_thread_that_cannot_be_started_keeps_no_later_job_from_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_room)
        with pytest.raises(RuntimeError):
            run_interruptibly(lambda: 7, tracker())

    assert run_interruptibly(lambda: 7, tracker(seconds=LONG)) == 7
