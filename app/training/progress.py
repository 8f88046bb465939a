"""The progress of a training, and the interface of its receiver."""

from typing import Protocol

MAX_CURVE_POINTS = 500


class LossCurve:
    """The loss of each epoch, thinned evenly to fewer than MAX_CURVE_POINTS points."""

    def __init__(self, points: list[tuple[int, float]] | None = None, stride: int = 1) -> None:
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

    def with_last(self) -> list[tuple[int, float]]:
        """Return the points, and the newest epoch even if it is not one of them."""
        if self._last is None or (self.points and self.points[-1][0] >= self._last[0]):
            return self.points
        return [*self.points, self._last]


class Interruptible(Protocol):
    """Work that can be ended from outside."""

    def check_cancelled(self) -> None:
        """Raise if the work is to end."""

    def abandon(self) -> None:
        """Let the next check in the working thread raise, because nobody waits for the work any more."""


class ProgressSink(Interruptible, Protocol):
    """Receives the progress of one training. Each method may raise to end the training."""

    curve: LossCurve

    def advance(self, phase: str, *, rows: int | None = None, epochs: int | None = None) -> None:
        """Note the phase, and how much there is or was to do."""

    def epoch(self, epoch: int, loss: float) -> None:
        """Note the loss after an epoch."""

    def begin_publishing(self) -> None:
        """Note that publishing begins. The training cannot be cancelled after this."""

    def begin_again(self) -> None:
        """Note that the model is fitted once more, so that the training can be cancelled again."""
