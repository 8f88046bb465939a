"""When a gradient descent has diverged."""

import math
from decimal import ROUND_FLOOR, Context

import numpy as np

from app.regression.errors import Diverged, InvalidData
from app.regression.solvers.coefficients import TrainingState
from app.regression.solvers.descent_task import Task

SAME_LOSS = 1e-9  # relative difference of two losses that counts as rounding
MAX_GROWTH = 10.0  # loss at which mini-batches have diverged, relative to the start or to the best constant
TINY = float(np.finfo(float).tiny)


class DivergenceGuard:
    """Judges the losses of one run.

    Full batches below the bound of `largest_learning_rate` never count as diverged. Above it, the run has diverged if
    the loss after its last epoch is larger than before its first step. Mini-batches have diverged if the loss after
    the last epoch is above MAX_GROWTH times the larger of the first loss and the loss of the best constant. Only a
    loss that is not finite ends a run early.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    def check(self, state: TrainingState) -> None:
        """Check the loss of an epoch.

        Raises Diverged if it is not finite, or InvalidData if it is not although the run cannot diverge.
        """
        if math.isfinite(state.loss):
            return
        if state.epoch and not self._task.is_stable:
            raise self._diverged(state)
        raise InvalidData(
            f"The loss of epoch {state.epoch} exceeds the range of 64-bit numbers, although the descent has not "
            "diverged. Start from smaller weights, or scale the features and targets down."
        )

    def check_end(self, state: TrainingState) -> tuple[str, ...]:
        """Return the warnings that the last epoch deserves. Raises Diverged."""
        task = self._task
        if task.is_stable:
            return ()
        if task.rows is not None:
            if state.loss > MAX_GROWTH * max(state.initial_loss, task.loss_of_constant()):
                raise self._diverged(state)
            return ()
        if state.loss > state.initial_loss * (1 + SAME_LOSS) + TINY:
            raise self._diverged(state)
        warning = (
            f"The learning rate of {task.options.learning_rate:g} is above {_rounded_down(task.bound)}, the bound "
            "below which full batches cannot diverge. This run did not end with a larger loss than it began with, but "
            "a longer one may."
        )
        return (warning,)

    def _diverged(self, state: TrainingState) -> Diverged:
        task = self._task
        grown = f"to {state.loss:.6g}" if math.isfinite(state.loss) else "beyond the range of 64-bit floats"
        return Diverged(
            f"Gradient descent diverged: the loss grew from {state.initial_loss:.6g} {grown} by epoch {state.epoch} "
            f"with a learning rate of {task.options.learning_rate:g}. Full batches do not diverge with a learning rate "
            f"below {_rounded_down(task.bound)}."
        )


def _rounded_down(bound: float) -> str:
    """Return the bound with 4 digits, never larger than it is."""
    return f"{float(Context(prec=4, rounding=ROUND_FLOOR).create_decimal_from_float(bound)):.4g}"
