"""Progress and cancellation of a running job, at a bearable rate."""

import time
from collections.abc import Callable
from dataclasses import replace

from app.errors import TimeExceeded
from app.jobs.job import Progress
from app.training.progress import LossCurve

REPORT_SECONDS = 0.5
CANCEL_SECONDS = 0.25


class JobCancelled(Exception):
    """Raised inside a job that was cancelled, to end it."""


class ProgressReporter:
    """What the work tells of itself as it goes; called as often as the work likes."""

    def __init__(
        self,
        report: Callable[[Progress, list[tuple[int, float]]], None],
        cancelled: Callable[[], bool],
        seconds: float = 0,
    ) -> None:
        """A job may take so many seconds, or with 0 as long as it likes."""
        self.progress = Progress()
        self.curve = LossCurve()
        self._report = report
        self._cancelled = cancelled
        self._seconds = seconds
        self._began = self._reported = self._asked = time.monotonic()
        self._abandoned = False

    def abandon(self) -> None:
        """Let the next step of the thread that works raise JobCancelled: the job has ended without it."""
        self._abandoned = True

    def check_cancelled(self) -> None:
        """Raise JobCancelled if the job was cancelled meanwhile, TimeExceeded if it takes longer than it may."""
        if self._abandoned:
            raise JobCancelled
        now = time.monotonic()
        if now - self._asked >= CANCEL_SECONDS:
            self._asked = now
            if self._cancelled():
                raise JobCancelled
            if self._seconds and now - self._began > self._seconds:
                raise TimeExceeded(f"The training took longer than the {self._seconds:g} seconds that it may.")

    def begin_publishing(self) -> None:
        """Record that publishing begins, or raise: a job whose cancelling was recorded before can record nothing."""
        self.progress = replace(self.progress, phase="publishing")
        self._report(self.progress, self.curve.with_last())

    def begin_again(self) -> None:
        """Record that the fit is made once more, so that the job can be cancelled again. Raises as `step` does."""
        self.progress = replace(self.progress, phase="fitting")
        self._report(self.progress, self.curve.with_last())
        self._asked = -CANCEL_SECONDS
        self.check_cancelled()

    def advance(self, phase: str, *, rows: int | None = None, epochs: int | None = None) -> None:
        self.progress = replace(
            self.progress,
            phase=phase,
            rows=self.progress.rows if rows is None else rows,
            epochs=self.progress.epochs if epochs is None else epochs,
        )
        self._report_sometimes()

    def epoch(self, epoch: int, loss: float) -> None:
        self.curve.add(epoch, loss)
        self.progress = replace(self.progress, epoch=epoch, loss=loss)
        self._report_sometimes()

    def _report_sometimes(self) -> None:
        self.check_cancelled()
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._report(self.progress, self.curve.with_last())
