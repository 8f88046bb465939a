"""The problem that a solver gets, the solution it returns, and the interface of all solvers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from app.regression.solvers.coefficients import TrainingState
from app.regression.training_batch import Array, TrainingBatch

if TYPE_CHECKING:  # they import the solvers
    from app.regression.least_squares import Fit
    from app.regression.precision import PrecisionBounds
    from app.regression.sufficient_statistics import SufficientStatistics

# How pydantic reads the options in a request. A plain dict, so that pydantic is not imported here.
STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False, "use_attribute_docstrings": True}


@dataclass(frozen=True)
class Keyword:
    """A word that a request may give in place of an option's value; the caller replaces it by a value."""

    word: str


class FitObserver(Protocol):
    """Follows a fit. Each method may raise to end it."""

    def rows_read(self, rows: int) -> None:
        """Note the number of rows that this pass has read so far."""

    def solving(self) -> None:
        """Note that all rows are read and the solver starts."""

    def epoch(self, state: TrainingState) -> None:
        """Note the state after each epoch of an iterative solver, epoch 0 included."""

    def check_cancelled(self) -> None:
        """Raise to end the fit. Called before each long step."""


class SilentObserver:
    """An observer that does nothing."""

    def rows_read(self, rows: int) -> None:
        pass

    def solving(self) -> None:
        pass

    def epoch(self, state: TrainingState) -> None:
        pass

    def check_cancelled(self) -> None:
        pass


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows to fit a linear model to, as a solver sees them."""

    statistics: "SufficientStatistics"  # statistics of all rows
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
    # True if it solves from merged statistics, which updates and forgets need.
    mergeable: ClassVar[bool]

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
