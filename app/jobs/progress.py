"""Report the progress of a running job, and notice its cancellation, at a limited rate."""

import time
from collections.abc import Callable
from dataclasses import replace

from app.errors import TimeExceeded
from app.jobs.job import PUBLISHING, Progress
from app.training.progress import LossCurve

REPORT_SECONDS = 0.5  # Least time between two reports.
CANCEL_SECONDS = 0.25  # Least time between two checks for a cancellation.


class JobCancelled(Exception):
    """Raised in a job to end it, because it was cancelled or another trainer runs it now."""


class ProgressReporter:
    """Receives the progress of a job as often as the job calls it, and reports some of it."""

    def __init__(
        self,
        report: Callable[[Progress, list[tuple[int, float]]], None],
        cancelled: Callable[[], bool],
        seconds: float = 0,
    ) -> None:
        """`seconds` is the time limit of the job; 0 means no limit."""
        self.progress = Progress()
        self.curve = LossCurve()
        self._report = report
        self._cancelled = cancelled
        self._seconds = seconds
        self._started_at = self._reported_at = self._checked_at = time.monotonic()
        self._abandoned = False

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
        """Record that publishing begins. Raises JobCancelled if a cancellation was recorded before."""
        self.progress = replace(self.progress, phase=PUBLISHING)
        self._report(self.progress, self.curve.with_last())

    def begin_again(self) -> None:
        """Record that the fit starts again, so that the job can be cancelled. Raises as `check_cancelled` does."""
        self.progress = replace(self.progress, phase="fitting")
        self._report(self.progress, self.curve.with_last())
        self._checked_at = -CANCEL_SECONDS
        self.check_cancelled()

    def advance(self, phase: str, *, rows: int | None = None, epochs: int | None = None) -> None:
        """Note the phase, the number of rows read, and the number of epochs to come."""
        self.progress = replace(
            self.progress,
            phase=phase,
            rows=self.progress.rows if rows is None else rows,
            epochs=self.progress.epochs if epochs is None else epochs,
        )
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
            self._report(self.progress, self.curve.with_last())
