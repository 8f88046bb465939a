from collections.abc import Callable
from itertools import pairwise

import pytest
from fake_clock import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import TimeExceeded
from app.training.progress import (
    CANCEL_SECONDS,
    MAX_CURVE_POINTS,
    REPORT_SECONDS,
    JobCancelled,
    LossCurve,
    Progress,
    ProgressReporter,
)

Curve = list[tuple[int, float]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("app.training.progress.time", clock)
    return clock


class Reports:
    """The reports of a ProgressReporter, and whether its job is cancelled."""

    def __init__(self) -> None:
        self.reports: list[tuple[Progress, Curve]] = []
        self.cancelled = False
        self.asked = 0

    def reporter(self) -> ProgressReporter:
        return ProgressReporter(
            lambda progress, curve: self.reports.append((progress, list(curve))), self._is_cancelled
        )

    def _is_cancelled(self) -> bool:
        self.asked += 1
        return self.cancelled


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 6000), st.integers(0, 40))
def test_a_loss_curve_is_evenly_spaced_from_the_first_epoch_to_the_last_and_short(epochs: int, more: int) -> None:
    curve = LossCurve()
    for epoch in range(epochs + 1):
        curve.add(epoch, 1 / (epoch + 1))
        assert len(curve.with_last()) <= MAX_CURVE_POINTS == 500
    points = curve.with_last()
    assert points[0] == (0, 1.0)
    assert points[-1] == (epochs, 1 / (epochs + 1))
    assert all(loss == 1 / (epoch + 1) for epoch, loss in points)
    steps = [after - before for (before, _), (after, _) in pairwise(points)]
    assert set(steps[:-1]) <= {curve.stride}
    assert not steps or 0 < steps[-1] <= curve.stride
    # Not thinned more than necessary: at least half of the points are left.
    assert len(points) >= min(epochs + 1, MAX_CURVE_POINTS // 2)


def test_a_short_loss_curve_holds_every_epoch() -> None:
    curve = LossCurve()
    for epoch in range(MAX_CURVE_POINTS - 1):
        curve.add(epoch, float(epoch))
    assert curve.with_last() == [(epoch, float(epoch)) for epoch in range(MAX_CURVE_POINTS - 1)]


def test_a_loss_curve_without_epochs_is_empty() -> None:
    assert LossCurve().with_last() == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 5))
def test_a_loss_curve_resumed_from_a_checkpoint_equals_the_uninterrupted_one(
    interrupted: int, epochs: int, before: int
) -> None:
    whole = LossCurve()
    for epoch in range(interrupted + epochs + 1):
        whole.add(epoch, -float(epoch))
    part = LossCurve()
    for epoch in range(interrupted + 1):
        part.add(epoch, -float(epoch))
    resumed = LossCurve(list(part.points), part.stride)
    # The descent continues from the epoch of the checkpoint or, after another crash, from an earlier one.
    for epoch in range(max(0, interrupted - before), interrupted + epochs + 1):
        resumed.add(epoch, -float(epoch))
    assert resumed.with_last() == whole.with_last()
    assert resumed.stride == whole.stride


def test_progress_is_reported_at_most_twice_a_second(clock: Clock) -> None:
    reports = Reports()
    reporter = reports.reporter()
    times = []
    for index in range(401):
        clock.now = 1000.0 + index / 64
        before = len(reports.reports)
        reporter.epoch(index, float(index))
        if len(reports.reports) > before:
            times.append(clock.now)
    assert REPORT_SECONDS == 0.5
    assert times == [1000.5 + index / 2 for index in range(12)]


def test_a_report_has_everything_known_and_the_latest_epoch(clock: Clock) -> None:
    reports = Reports()
    reporter = reports.reporter()
    reporter.advance("reading", rows=7)
    reporter.advance("reading", rows=15)
    reporter.advance("fitting", epochs=100)
    reporter.epoch(0, 4.0)
    reporter.epoch(1, 3.0)
    assert reports.reports == []
    clock.now += REPORT_SECONDS
    reporter.epoch(2, 2.0)
    expected = Progress(phase="fitting", rows=15, epoch=2, epochs=100, loss=2.0)
    assert reports.reports == [(expected, [(0, 4.0), (1, 3.0), (2, 2.0)])]
    clock.now += REPORT_SECONDS
    reporter.advance("publishing")
    assert reports.reports[1][0] == Progress(phase="publishing", rows=15, epoch=2, epochs=100, loss=2.0)
    assert reporter.progress == reports.reports[1][0]


def test_a_new_job_is_in_the_phase_reading() -> None:
    assert Reports().reporter().progress == Progress(phase="reading", rows=0, epoch=None, epochs=None, loss=None)


def test_cancellation_is_checked_at_most_four_times_a_second(clock: Clock) -> None:
    reports = Reports()
    reporter = reports.reporter()
    for index in range(65):
        clock.now = 1000.0 + index / 32
        reporter.check_cancelled()
    assert CANCEL_SECONDS == 0.25
    assert reports.asked == 8


@pytest.mark.parametrize("call", ["step", "advance", "epoch"])
def test_the_next_call_of_a_cancelled_job_ends_it(clock: Clock, call: str) -> None:
    reports = Reports()
    reporter = reports.reporter()
    reports.cancelled = True
    calls: dict[str, Callable[[], None]] = {
        "step": reporter.check_cancelled,
        "advance": lambda: reporter.advance("fitting"),
        "epoch": lambda: reporter.epoch(1, 2.0),
    }
    calls[call]()  # too early for another check
    clock.now += CANCEL_SECONDS
    with pytest.raises(JobCancelled):
        calls[call]()
    assert reports.reports == []


def test_a_cancelled_job_makes_no_further_report(clock: Clock) -> None:
    reports = Reports()
    reporter = reports.reporter()
    reports.cancelled = True
    clock.now += REPORT_SECONDS
    with pytest.raises(JobCancelled):
        reporter.epoch(1, 2.0)
    assert reports.reports == []


def test_the_next_call_after_the_time_limit_ends_the_job(clock: Clock) -> None:
    reporter = ProgressReporter(lambda *_: None, lambda: False, seconds=10)
    clock.now += 10
    reporter.advance("reading", rows=1)
    clock.now += CANCEL_SECONDS
    with pytest.raises(TimeExceeded, match="longer than the 10 seconds"):
        reporter.advance("reading", rows=2)


def test_a_job_without_a_time_limit_does_not_end_early(clock: Clock) -> None:
    reporter = Reports().reporter()
    clock.now += 1e9
    reporter.check_cancelled()
