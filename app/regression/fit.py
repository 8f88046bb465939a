"""Rows to a fitted model: summarise, add to or take out of a base, cross-validate, solve."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from app.regression.cross_validation import CrossValidation, Folds, FoldStatistics, merged_folds
from app.regression.downdate import downdate
from app.regression.errors import NO_ROWS, InvalidData, InvalidOption
from app.regression.folds import FoldOptions
from app.regression.least_squares import Fit
from app.regression.linear_model import LinearModel
from app.regression.precision import PrecisionBounds
from app.regression.solvers.base import FitObserver, Problem, Solution, Solver, TrainingState
from app.regression.solvers.exact import Exact
from app.regression.sufficient_statistics import Array, SufficientStatistics, WeightKind
from app.regression.summaries import available_threads, few_threads
from app.regression.summary_plan import SummaryPlan, counted, summarise_batches
from app.regression.training_batch import TrainingBatch


class TrainingData(Protocol):
    """Rows that can be read any number of times."""

    @property
    def features(self) -> tuple[str, ...]: ...

    @property
    def targets(self) -> tuple[str, ...]: ...

    @property
    def terms(self) -> tuple[str, ...]:
        """Columns made from the features, see `app.regression.terms`; none if the columns are the features."""

    @property
    def weight_kind(self) -> WeightKind: ...

    @property
    def blocks(self) -> Sequence[slice]:
        """Places of each category's indicators among the terms, or else among the features; none if there are none.

        Of the columns of a block, at most one is 1 in each row, and the others are 0.
        """

    def batches(self) -> Iterator[TrainingBatch]:
        """Read all rows once, with x (n, features) and y (n, targets)."""


@runtime_checkable
class FragmentedData(TrainingData, Protocol):
    """Rows that can summarise themselves in parts, elsewhere or at the same time."""

    def summarise(self, plan: SummaryPlan, rows_read: Callable[[int], None]) -> dict[int, SufficientStatistics]:
        """Return the statistics of all rows by fold, or under the key 0 if there are no folds; empty without rows.

        See `app.regression.summary_plan.summarise_batches` for the statistics of a part, and `merge_summaries`.
        `rows_read` is called with the number of rows summarised so far, from the calling thread, and may raise.
        """


@dataclass(frozen=True, eq=False)
class ArrayData:
    """Rows in memory. x is (n, p), y is (n, k), the weights are (n,)."""

    x: Array
    y: Array
    features: tuple[str, ...]
    targets: tuple[str, ...]
    sample_weight: Array | None = None
    terms: tuple[str, ...] = ()
    weight_kind: WeightKind = "precision"
    blocks: tuple[slice, ...] = ()

    def batches(self) -> Iterator[TrainingBatch]:
        yield TrainingBatch(self.x, self.y, self.sample_weight)


@dataclass(frozen=True, eq=False)
class Base:
    """Earlier rows, by their statistics, that the data is added to (update) or taken out of (forget).

    Statistics and folds have the columns of the data: see `app.regression.column_changes.aligned`.
    """

    statistics: SufficientStatistics
    mode: Literal["update", "forget"] = "update"
    share: float = 1.0  # share of their weight that the earlier rows (update) or the data's rows (forget) have left
    folds: FoldStatistics = field(default_factory=dict)  # stored folds that the data's folds are added to


@dataclass(frozen=True, eq=False)
class Validation:
    """The result of a cross-validation."""

    result: CrossValidation  # over the folds of the base and the data together
    folds: FoldStatistics  # the same folds
    data: SufficientStatistics  # statistics of the data's rows
    # The data's rows, predicted from the other folds and the base. None if all are in one fold, or not requested.
    apart: CrossValidation | None


@dataclass(frozen=True, eq=False)
class DataSummary:
    """The statistics of the data, kept so that another fit to the same data need not read it again."""

    key: tuple[object, ...]  # everything else that they depend on
    all_rows: SufficientStatistics | None  # None if they are divided into folds
    folds: FoldStatistics


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted model, and what else is known about the fit. `Solution` describes the fields that it has too."""

    model: LinearModel
    solver: Solver  # with the penalty that was chosen
    optimum: Fit
    refined: bool
    bounds: PrecisionBounds | None
    validation: Validation | None
    warnings: tuple[str, ...]
    summary: DataSummary

    @property
    def statistics(self) -> SufficientStatistics:
        return self.model.statistics


def fit_model(
    data: TrainingData,
    solver: Solver,
    *,
    base: Base | None = None,
    folds: FoldOptions | None = None,
    observer: FitObserver | None = None,
    resume: TrainingState | None = None,
    summary: DataSummary | None = None,
    reread: bool = True,
    threads: int | None = None,
    reused: bool = False,
) -> FitResult:
    """Fit a model to the data, on top of a base if there is one.

    Parameters:
        data: read once, and a second time if the fit is worth refining.
        solver: its options have values, not keywords.
        base: earlier rows. Needs a solver that is `mergeable`.
        folds: adds a cross-validation. Needs the exact solver.
        observer: follows the fit, and may end it by raising.
        resume: the last state of an interrupted run of an iterative solver with the same options.
        summary: that of an earlier fit to the same data, which is then not read again.
        reread: False if the data can be read only once. The fit is then not refined.
        threads: that summarise the rows, by default as many as BLAS may use. The result has the same bits for any
            number.
        reused: True if a batch of the data may have the memory of the one before.

    Raises FitError, and whatever reading the data or the observer raises.
    """
    observer = observer or FitObserver()
    if base is not None and not solver.mergeable:
        raise InvalidOption("kind", f"Rows cannot be added or taken out with {solver.label}.")
    rows = _Rows(data, observer, threads or available_threads(), reused=reused)
    if solver.needs_rows:
        rows.gather()
    summary = _summary(rows, solver, base, folds, summary)
    observer.solving()
    with few_threads(len(data.terms or data.features)):
        statistics, solver, validation = _combined(summary, solver, base, folds, observer, blocks=tuple(data.blocks))
        # The rows of a base are gone, so they cannot be read again.
        problem = Problem(statistics, rows.gathered, rows.batches if base is None and reread else None, resume)
        solution = solver.solve(problem, observer)
    known = (solution.optimum, solution.refined, solution.bounds, validation, solution.warnings, summary)
    return FitResult(_model(data, statistics, solution), solver, *known)


class _Rows:
    """The data's rows, with the terms as columns. Their number is reported as they are read."""

    def __init__(self, data: TrainingData, observer: FitObserver, threads: int, *, reused: bool) -> None:
        self.data = data
        self.gathered: TrainingBatch | None = None  # all of them, if they are in memory
        self._plan = SummaryPlan(data.features, data.terms, data.weight_kind, tuple(data.blocks))
        self._observer = observer
        self._threads, self._reused = threads, reused

    def batches(self) -> Iterator[TrainingBatch]:
        if self.gathered is not None:
            yield self.gathered
            return
        yield from self._plan.columns(counted(self.data.batches(), self._observer.rows_read))

    def plan(self, folds: FoldOptions | None, first: int, device: Literal["cpu", "cuda"]) -> SummaryPlan:
        return replace(self._plan, folds=folds, first=first, device=device)

    def summarise(self, plan: SummaryPlan) -> dict[int, SufficientStatistics]:
        """Return the statistics of the rows by fold, or under the key 0 if there are no folds."""
        if self.gathered is not None:
            return summarise_batches(replace(plan, terms=()), [self.gathered], threads=self._threads)
        if isinstance(self.data, FragmentedData):
            return self.data.summarise(plan, self._observer.rows_read)
        batches, rows_read = self.data.batches(), self._observer.rows_read
        return summarise_batches(plan, batches, rows_read, threads=self._threads, reused=self._reused)

    def gather(self) -> None:
        """Read all rows into memory. Each batch is released when it has been copied, so they are in memory once."""
        parts = deque(self.batches())
        count = sum(len(batch.x) for batch in parts)
        if count == 0:
            raise InvalidData(NO_ROWS)
        first = parts[0]
        weights = None if first.sample_weight is None else np.empty(count)
        rows = TrainingBatch(np.empty((count, first.x.shape[1])), np.empty((count, first.y.shape[1])), weights)
        start = 0
        while parts:
            batch = parts.popleft()
            part = slice(start, start + len(batch.x))
            rows.x[part], rows.y[part], start = batch.x, batch.y, part.stop
            if weights is not None:
                weights[part] = batch.sample_weight
        self.gathered = rows


def _summary(
    rows: _Rows, solver: Solver, base: Base | None, folds: FoldOptions | None, known: DataSummary | None
) -> DataSummary:
    """Return the statistics of the data: the known ones, unless they depend on something that has changed."""
    first = 0
    if base is not None and folds is not None and not folds.by_group:
        first = sum(fold.rows for fold in base.folds.values())
    device = solver.device if isinstance(solver, Exact) else "cpu"
    plan = rows.plan(folds, first, "cuda" if device == "cuda" else "cpu")
    if known is not None and known.key == plan.key:
        return known
    divided = rows.summarise(plan)
    if not divided:
        raise InvalidData(NO_ROWS)
    return DataSummary(plan.key, divided[0], {}) if folds is None else DataSummary(plan.key, None, divided)


def _combined(
    summary: DataSummary,
    solver: Solver,
    base: Base | None,
    folds: FoldOptions | None,
    observer: FitObserver,
    *,
    blocks: Sequence[slice],
) -> tuple[SufficientStatistics, Solver, Validation | None]:
    """Return the statistics to fit to, the solver with its penalty, and the cross-validation."""
    earlier = base.statistics.discounted_by(base.share) if base is not None and base.mode == "update" else None
    validation = None
    if folds is None:
        assert summary.all_rows is not None
        statistics = summary.all_rows
    else:
        if not isinstance(solver, Exact):
            raise InvalidOption("kind", "Cross-validation needs the exact solver.")
        divided = Folds(summary.folds, observer.check_cancelled, base=earlier)
        statistics = divided.all_rows
        if folds.choose_l2:
            solver = divided.choose_l2(solver)
        validation = _validate(divided, solver, base, folds, observer)
    if earlier is not None:
        statistics = earlier.merge(statistics)
    elif base is not None:
        intercept = getattr(solver, "fit_intercept", True)
        statistics = downdate(base.statistics, statistics, base.share, fit_intercept=intercept, blocks=blocks)
    return statistics, solver, validation


def _validate(data: Folds, solver: Exact, base: Base | None, options: FoldOptions, observer: FitObserver) -> Validation:
    """Cross-validate over the folds of the base, discounted, and those of the data together."""
    together = data
    if base is not None and base.folds:
        together = Folds(merged_folds(base.folds, data.statistics, base.share), observer.check_cancelled)
    result = together.validate(solver)
    apart = None
    if options.apart and len(data.statistics) > 1:
        apart = result if together is data else data.validate(solver)
    return Validation(result, together.statistics, data.all_rows, apart)


def _model(data: TrainingData, statistics: SufficientStatistics, solution: Solution) -> LinearModel:
    return LinearModel(
        data.features,
        data.targets,
        solution.coef,
        solution.intercept,
        statistics,
        solution.residual_norms,
        solution.unscaled_errors,
        solution.centre_prediction,
        terms=data.terms,
        has_intercept=solution.optimum.design.intercept,
        inference_unavailable=solution.inference_unavailable,
    )
