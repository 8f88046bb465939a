"""The progress of a training: report it, and notice a cancellation, both at a limited rate."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from app.errors import TimeExceeded

REPORT_SECONDS = 0.5  # Least time between two reports.
CANCEL_SECONDS = 0.25  # Least time between two checks for a cancellation.
MAX_CURVE_POINTS = 500
PUBLISHING = "publishing"  # The phase in which a job can no longer be cancelled.

Points: TypeAlias = list[tuple[int, float]]  # epoch and loss


class JobCancelled(Exception):
    """Raised in a job to end it, because it was cancelled or another trainer runs it now."""


@dataclass(frozen=True)
class Progress:
    """How far a job has come. A value that does not apply is None."""

    phase: str = "reading"  # then fitting, perhaps diagnosing, then publishing
    rows: int = 0
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    fragments: int | None = None  # parts of the rows that are summarised
    fragments_total: int | None = None
    learning_rate: float | None = None
    largest_learning_rate: float | None = None  # below which full batches cannot diverge


class LossCurve:
    """The loss of each epoch, thinned evenly to fewer than MAX_CURVE_POINTS points."""

    def __init__(self, points: Points | None = None, stride: int = 1) -> None:
        self.points = points or []
        self.stride = stride
        self._last: tuple[int, float] | None = None

    def add(self, epoch: int, loss: float) -> None:
        self._last = (epoch, loss)
        if epoch % self.stride or (self.points and self.points[-1][0] >= epoch):
            return
        self.points.append(self._last)
        while len(self.points) >= MAX_CURVE_POINTS:
            self.stride *= 2
            self.points = [point for point in self.points if point[0] % self.stride == 0]

    def with_last(self) -> Points:
        """Return the points, and the newest epoch even if it is not one of them."""
        if self._last is None or (self.points and self.points[-1][0] >= self._last[0]):
            return self.points
        return [*self.points, self._last]


class ProgressReporter:
    """Receives the progress of a job as often as the job calls it, and reports some of it."""

    def __init__(
        self, report: Callable[[Progress, Points], None], cancelled: Callable[[], bool], seconds: float = 0
    ) -> None:
        """`seconds` is the time limit of the job; 0 means no limit."""
        self.progress = Progress()
        self.curve = LossCurve()
        self._report = report
        self._cancelled = cancelled
        self._seconds = seconds
        self._started_at = self._reported_at = self._checked_at = time.monotonic()
        self._abandoned = False

    def report(self) -> None:
        """Report the progress now. Raises JobCancelled if the job is no longer this trainer's."""
        self._report(self.progress, self.curve.with_last())

    def abandon(self) -> None:
        """Make the next call from the working thread raise JobCancelled, because the job has ended."""
        self._abandoned = True

    def check_cancelled(self) -> None:
        """Raise JobCancelled if the job was cancelled, and TimeExceeded if it has reached its time limit."""
        if self._abandoned:
            raise JobCancelled
        now = time.monotonic()
        if now - self._checked_at >= CANCEL_SECONDS:
            self._checked_at = now
            if self._cancelled():
                raise JobCancelled
            if self._seconds and now - self._started_at > self._seconds:
                raise TimeExceeded(f"The training took longer than the {self._seconds:g} seconds allowed.")

    def begin_publishing(self) -> None:
        """Report that publishing begins. Raises JobCancelled if a cancellation was recorded before."""
        self.progress = replace(self.progress, phase=PUBLISHING)
        self.report()

    def begin_again(self) -> None:
        """Report that the fit starts again, so that the job can be cancelled. Raises as `check_cancelled` does."""
        self.progress = replace(self.progress, phase="fitting")
        self.report()
        self._checked_at = -CANCEL_SECONDS
        self.check_cancelled()

    def advance(self, phase: str, *, rows: int | None = None, epochs: int | None = None) -> None:
        """Note the phase, the number of rows read, and the number of epochs to come."""
        given = {name: value for name, value in (("rows", rows), ("epochs", epochs)) if value is not None}
        self.progress = replace(self.progress, phase=phase, **given)
        self._report_if_due()

    def fragments(self, done: int, total: int) -> None:
        """Note the number of parts of the rows that are summarised, and of all parts."""
        self.progress = replace(self.progress, fragments=done, fragments_total=total)
        self._report_if_due()

    def learning_rate(self, rate: float, largest: float) -> None:
        """Note the learning rate of a descent, and the bound below which full batches cannot diverge."""
        self.progress = replace(self.progress, learning_rate=rate, largest_learning_rate=largest)
        self._report_if_due()

    def epoch(self, epoch: int, loss: float) -> None:
        """Note the loss after an epoch."""
        self.curve.add(epoch, loss)
        self.progress = replace(self.progress, epoch=epoch, loss=loss)
        self._report_if_due()

    def _report_if_due(self) -> None:
        self.check_cancelled()
        now = time.monotonic()
        if now - self._reported_at >= REPORT_SECONDS:
            self._reported_at = now
            self.report()
