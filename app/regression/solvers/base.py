"""The problem that a solver gets, the solution it returns, and the interface of all solvers.

torch is not needed to read or write the state of a descent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np

from app.regression.sufficient_statistics import Array, SufficientStatistics
from app.regression.training_batch import TrainingBatch

if TYPE_CHECKING:  # they import the solvers
    from app.regression.least_squares import Fit
    from app.regression.precision import PrecisionBounds

# How pydantic reads the options in a request. A plain dict, so that pydantic is not imported here.
STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False, "use_attribute_docstrings": True}


@dataclass(frozen=True)
class Keyword:
    """A word that a request may give in place of an option's value; the caller replaces it by a value."""

    word: str


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A linear map and its offset. Their owner knows which columns they apply to."""

    coef: Array  # (k, p)
    intercept: Array  # (k,)

    @classmethod
    def from_matrix(cls, matrix: Array) -> "Coefficients":
        """Split a matrix (k, 1 + p) whose first column is the intercept."""
        return cls(matrix[:, 1:], matrix[:, 0])

    @property
    def matrix(self) -> Array:
        """The coefficients as one matrix (k, 1 + p), the intercept first."""
        return np.column_stack([self.intercept, self.coef])


@dataclass(frozen=True, eq=False)
class BestEpoch:
    """The epoch with the lowest monitored loss so far."""

    epoch: int
    coefficients: Coefficients
    loss: float
    monitored_loss: float


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The state of a run after a whole number of epochs, complete enough to resume it to the same bits.

    Coefficients are those of the run's columns: the features in their own units, unless the run standardises them. A
    loss is the objective: the mean squared error over rows and targets, plus weight_decay / 2 times the sum of the
    squared coefficients and intercepts. The monitored loss is the one that `patience` watches: the mean squared error
    of the validation rows, or without such rows the objective.
    """

    epoch: int
    current: Coefficients
    velocity: Coefficients
    loss: float
    monitored_loss: float
    initial_loss: float
    best: BestEpoch


class FitObserver:
    """Follows a fit, and does nothing. Each method of a subclass may raise to end the fit."""

    def rows_read(self, rows: int) -> None:
        """Note the number of rows that this pass has read so far."""

    def solving(self) -> None:
        """Note that all rows are read and the solver starts."""

    def learning_rate(self, rate: float, largest: float) -> None:
        """Note the learning rate of a descent, and the bound below which full batches cannot diverge."""

    def epoch(self, state: TrainingState) -> None:
        """Note the state after each epoch of an iterative solver, epoch 0 included."""

    def check_cancelled(self) -> None:
        """Raise to end the fit. Called before each long step."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows to fit a linear model to, as a solver sees them."""

    statistics: SufficientStatistics  # statistics of all rows
    rows: TrainingBatch | None = None  # all rows in memory, if the solver needs them
    batches: Callable[[], Iterator[TrainingBatch]] | None = None  # another pass over all rows; None if it is impossible
    resume: TrainingState | None = None  # the last state of an interrupted run


@dataclass(frozen=True, eq=False)
class Solution:
    """The coefficients that a solver found, and what is known of their errors."""

    coef: Array  # (k, p)
    intercept: Array  # (k,)
    centre_prediction: Array  # (k,), at the shift of the statistics
    residual_norms: Array  # (k,), square roots of the sums of squared residuals; NaN if withheld
    unscaled_errors: Array | None  # (1 + p,), as in `Fit`; None if inference is withheld
    optimum: "Fit"  # the exact solution
    inference_unavailable: str | None  # why inference is withheld; None if it is valid
    refined: bool = False  # True if the coefficients were solved in higher precision
    warnings: tuple[str, ...] = ()
    bounds: "PrecisionBounds | None" = None  # None if no row was ever taken out


@runtime_checkable
class Solver(Protocol):
    """A frozen dataclass of options. It is the schema of a request, the record of a job and the algorithm."""

    label: ClassVar[str]  # name of the solver in sentences
    inherited: ClassVar[tuple[str, ...]]  # options that an update or a forget takes from its base by default
    mergeable: ClassVar[bool]  # True if it solves from merged statistics, which updates and forgets need

    @property
    def kind(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def needs_rows(self) -> bool:
        """True if the rows have to be in memory, because their statistics are not enough."""

    @property
    def uses_torch(self) -> bool:
        """True if fitting loads torch."""

    def solve(self, problem: Problem, observer: FitObserver) -> Solution:
        """Return the coefficients. Raises FitError."""
