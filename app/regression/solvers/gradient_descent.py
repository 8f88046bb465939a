"""Gradient descent: its options, and the fit they lead to. torch is loaded when the descent runs."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from app.regression.solvers.base import STRICT, FitObserver, Problem, Solution

MAX_EPOCHS = 100_000_000
MAX_ROWS = 2**53 - 1  # largest number that JSON carries exactly, with all those below it

SHORT_OF_OPTIMUM = "The model was trained by gradient descent, which stopped short of the least-squares optimum."
BIASED_BY_DECAY = (
    "The model was trained by gradient descent with weight_decay, which keeps it from the least-squares optimum."
)


@dataclass(frozen=True, kw_only=True)
class Start:
    """A version of the model, or weights and intercept."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT | {
        "json_schema_extra": {
            "minProperties": 1,
            "maxProperties": 2,
            "dependentRequired": {"weights": ["intercept"], "intercept": ["weights"]},
        }
    }

    version: Annotated[int, Ge(1)] | None = None
    weights: list[list[float]] | None = None
    """A row for each target."""
    intercept: list[float] | None = None

    def __post_init__(self) -> None:
        given = (self.version is not None, self.weights is not None, self.intercept is not None)
        if given not in ((True, False, False), (False, True, True)):
            raise ValueError("Give either a version, or weights and intercept")


@dataclass(frozen=True, kw_only=True)
class GradientDescent:
    """Steps down the gradient of the mean squared error.

    Full batches diverge only with a learning rate above a bound that follows from the rows. A run above it fails if it
    ends with a larger loss than it began with; otherwise it succeeds with a warning that names the bound. Mini-batches
    have diverged if they end above 10 times the larger of the first loss and the loss of the best constant.
    """

    label: ClassVar[str] = "gradient descent"
    inherited: ClassVar[tuple[str, ...]] = ()
    mergeable: ClassVar[bool] = False
    uses_torch: ClassVar[bool] = True
    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    kind: Literal["gradient_descent"] = "gradient_descent"
    """Needed: without a `kind`, the solver is exact."""
    epochs: Annotated[int, Ge(1), Le(MAX_EPOCHS)] = 100
    learning_rate: Annotated[float, Gt(0)] = 1e-5
    batch_size: Annotated[int, Ge(1), Le(MAX_ROWS)] | None = None
    """null: all rows."""
    shuffle: bool = True
    seed: Annotated[int, Ge(0), Lt(2**31)] = 0
    start: Literal["random", "current"] | Start = "random"
    """`current` starts from the version that is current when the job starts. If another version is promoted while the
    descent runs, the new version is published and not promoted, and a warning says so. Default: random."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """As in torch.optim.SGD: weight_decay / 2 * (sum of squared coefficients and intercepts) is part of the loss that
    is descended and reported. With `standardize`, these are those of the standardised features."""
    standardize: bool = False
    """Descend on (feature - mean) / standard deviation. The weight of a constant feature changes no prediction of the
    rows: it is 0 after a random start, and otherwise only `weight_decay` moves it."""
    patience: Annotated[int, Ge(1), Le(MAX_EPOCHS)] | None = None
    """Stop after this number of epochs without a lower loss, and keep the coefficients of the lowest. The loss is the
    mean squared error of the held-out rows, or without `validation_fraction` the loss of the curve."""
    validation_fraction: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Fraction of the rows that patience watches, not trained on. The number of rows is rounded to the nearest; none
    gives a warning, and all of them fail the job."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def needs_rows(self) -> bool:
        """Return True unless full batches are enough: their gradient needs nothing but the statistics."""
        return self.batch_size is not None or self.validation_fraction > 0

    def solve(self, problem: Problem, observer: FitObserver) -> Solution:
        """Descend as torch.optim.SGD does. Inference is given if the result is the optimum for all practical purposes.

        Raises as `app.regression.solvers.descent.gradient_descent` does.
        """
        # They import this module, and one of them loads torch.
        from app.regression import least_squares
        from app.regression.solvers.descent import gradient_descent
        from app.regression.solvers.exact import Exact
        from app.regression.solvers.scaler import largest_learning_rate

        statistics = problem.statistics
        observer.learning_rate(self.learning_rate, largest_learning_rate(statistics, self))
        end = gradient_descent(
            problem.rows,
            statistics,
            self,
            resume=problem.resume,
            on_step=observer.check_cancelled,
            on_epoch=observer.epoch,
        )
        optimum = least_squares.fit(statistics, Exact())
        shift = statistics.shift[: statistics.features]
        residual_norms = statistics.residual_norms(end.coef, end.centre_prediction, shift)
        inference_unavailable = least_squares.why_no_inference(statistics, optimum, Exact())
        if least_squares.is_essentially_perfect(statistics, optimum, residual_norms).any():
            inference_unavailable = least_squares.ESSENTIALLY_PERFECT
        elif not least_squares.is_optimal(residual_norms, statistics, optimum):
            inference_unavailable = SHORT_OF_OPTIMUM if self.weight_decay == 0 else BIASED_BY_DECAY
        return Solution(
            end.coef,
            end.intercept,
            end.centre_prediction,
            residual_norms,
            optimum.unscaled_errors if inference_unavailable is None else None,
            optimum,
            inference_unavailable,
            warnings=end.warnings,
        )
