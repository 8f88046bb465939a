"""The job itself: rows from the spool, a fit, a published version. Knows nothing of queues."""

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.data.batch import Array
from app.errors import ColumnOutOfRange, InvalidInput, Unavailable
from app.failpoints import failpoint
from app.jobs.host.memory_limit import check_memory_for_torch
from app.jobs.progress import LossCurve, ProgressReporter
from app.jobs.uploads import UploadStore
from app.registry.model_card import ModelCard
from app.registry.publication import ParentChanged
from app.registry.registry import Registry
from app.registry.shares import shares_after
from app.regression.cross_validation import Folds
from app.regression.downdate import (
    NOT_AMONG,
    PrecisionBounds,
    check_precision,
    downdate,
    precision_bounds,
    precision_loss,
)
from app.regression.extended_precision import Refined, refine, should_refine
from app.regression.least_squares import (
    ESSENTIALLY_PERFECT,
    Fit,
    fit,
    is_essentially_perfect,
    is_optimal,
    why_no_inference,
)
from app.regression.linear_model import LinearModel
from app.regression.solvers import Exact, GradientDescent, Solver
from app.regression.streaming_qr import NO_ROWS, StreamingQR, summarise
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.training_batch import TrainingBatch
from app.training.card import bounds_of, metrics_of, unused_columns, warnings_of
from app.training.columns import with_columns_of_file
from app.training.comparison import Comparison, compare
from app.training.dataset import JobRows
from app.training.inheritance import Base, differences, resolved
from app.training.initial_coefficients import attach
from app.training.interruptible import run_interruptibly
from app.training.parent import Parent, finish_promotion, solver_with_weights
from app.training.request import TrainingRequest
from app.training.validation import FoldHistory, Statistics, Validated

if TYPE_CHECKING:  # they load torch
    from app.regression.solvers.gradient_descent import TrainingState
    from app.training.checkpoints import Checkpoint

SHORT_OF_OPTIMUM = "The model was trained by gradient descent, which stopped short of the least-squares optimum."
RESIDUALS_TOO_SMALL = (
    "The residuals are so small next to the terms they are left over from that their sum of squares is not known to "
    "one part in a million."
)
BIASED_BY_DECAY = (
    "The model was trained by gradient descent with weight_decay, which keeps it from the least-squares optimum."
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainerContext:
    """The places a trainer works in."""

    registry: Registry
    spool: UploadStore
    checkpoints: Path
    threads: int = 1  # that read files

    def checkpoint(self, job: str) -> Path:
        """The file in which a job's descent goes on."""
        return self.checkpoints / f"{job}.json"


def train(request: TrainingRequest, job: str | None, workshop: TrainerContext, tracker: ProgressReporter) -> ModelCard:
    """Train and publish one version, and promote it if asked. The same request publishes once, however often it is run.

    An update, a forget or a comparison is made again if another version is current when it is to be published. Raises
    any error of `app.errors` that rows or options deserve, and JobCancelled.
    """
    if published := workshop.registry.find(request.model, request.upload):
        finish_promotion(request, published.card, workshop.registry)
        return published.card

    path = workshop.spool.path(request.upload)
    if not path.exists():
        raise Unavailable("The rows of this job are not in the state folder of the trainer that took it.")
    request, late = with_columns_of_file(
        attach(request, workshop.spool.path(workshop.spool.start(request.upload))),
        path,
        workshop.registry,
        tracker.check_cancelled,
    )
    rows = JobRows(path, late, workshop.threads, tracker)
    fitting = partial(_fitted, request, job, workshop, rows, tracker)
    while True:
        try:
            return run_interruptibly(fitting, tracker).publish(workshop.registry, tracker)
        except ParentChanged:
            _log.info("parent changed", extra={"model": request.model})
            tracker.begin_again()


@dataclass(frozen=True, eq=False)
class _Unpublished:
    """A new version, before it is published."""

    request: TrainingRequest
    parent: Parent
    card: ModelCard
    model: LinearModel
    folds: Statistics | None

    def publish(self, registry: Registry, tracker: ProgressReporter) -> ModelCard:
        """Publish the version, and return its card. Raises ParentChanged if another parent is current by then."""
        return self.parent.publish(
            self.request, registry, self.card, self.model, folds=self.folds, tracker=tracker
        ).card


def _fitted(
    request: TrainingRequest, job: str | None, workshop: TrainerContext, rows: JobRows, tracker: ProgressReporter
) -> _Unpublished:
    """Fit a new version on the one that is current."""
    registry = workshop.registry
    parent = Parent.of(request, registry)
    request = resolved(request, parent.base.version.card if parent.base else None)
    history = FoldHistory(request, parent.base.version if parent.base else None, registry)
    try:
        if isinstance(request.solver, Exact):
            trained = _solve(rows, request, parent.base, history, tracker)
        else:
            # torch is loaded by the first job that descends, not by those that are solved at once.
            check_memory_for_torch()
            from app.training.checkpoints import Checkpoint

            checkpoint = Checkpoint(workshop.checkpoint(job or request.upload))
            saved = checkpoint.load()
            request, parent = parent.started(request, registry, checkpoint.start)
            assert isinstance(request.solver, GradientDescent)
            solver = request.solver if saved else solver_with_weights(request, registry)
            checkpoint.start = parent.start
            trained = _descend(rows, request, solver, checkpoint, saved=saved, tracker=tracker)
    except ColumnOutOfRange as error:
        columns = (*(request.terms or request.features), *request.targets)
        raise type(error)(error.column, columns[error.column]) from None
    failpoint("fitted")
    comparison = Comparison()
    if request.promote == "if_better" and trained.validation is not None:
        comparison = compare(
            request,
            trained.validation,
            registry,
            coefficients=trained.optimum.design.effective_coefficients(getattr(trained.solver, "l2", 0.0)),
            weight=trained.statistics.total_weight,
        )
    model = _model(request, trained)
    card = _card(request, trained, model, parent.base, rows)
    card = replace(
        card,
        job=job,
        parent=parent.version,
        beats_current=comparison.beats_current,
        no_folds=trained.validation.no_folds if trained.validation else history.no_folds,
        warnings=(
            *(differences(request, parent.base.version.card) if parent.base else ()),
            *request.warnings,
            *rows.warnings,
            *filter(None, (comparison.warning, *history.warnings)),
            *card.warnings,
        ),
    )
    folds = trained.validation.stored if trained.validation else None
    return _Unpublished(request, parent, card, model, folds)


@dataclass(frozen=True, eq=False)
class _Trained:
    """What either solver comes to: weights (k, p), intercept (k,), and the exact optimum for comparison."""

    coef: Array
    intercept: Array
    centre_prediction: Array
    residual_norms: Array
    unscaled_errors: Array | None
    statistics: SufficientStatistics
    optimum: Fit
    inference_unavailable: str | None
    solver: Solver  # with the penalty that was chosen
    validation: Validated | None = None
    refined: bool = False
    warnings: tuple[str, ...] = ()  # of the solver itself
    bounds: PrecisionBounds | None = None  # None if no row was ever taken out

    @property
    def exact(self) -> bool:
        return isinstance(self.solver, Exact)


def _model(request: TrainingRequest, trained: _Trained) -> LinearModel:
    return LinearModel(
        request.features,
        request.targets,
        trained.coef,
        trained.intercept,
        trained.statistics,
        trained.residual_norms,
        trained.unscaled_errors,
        trained.centre_prediction,
        terms=request.terms,
        has_intercept=trained.optimum.design.intercept,
        inference_unavailable=trained.inference_unavailable,
    )


def _card(
    request: TrainingRequest, trained: _Trained, model: LinearModel, base: Base | None, rows: JobRows
) -> ModelCard:
    """The card of a new version, as far as its rows and their fit decide it."""
    design, statistics, validation = trained.optimum.design, trained.statistics, trained.validation
    return ModelCard(
        model=request.model,
        version=0,  # the registry gives the number
        features=request.features,
        targets=request.targets,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        job=None,
        parent=None,
        upload=request.upload,
        mode=request.mode,
        solver=trained.solver if trained.exact else request.solver,
        rows=statistics.rows,
        dropped_rows=rows.dropped,
        rank=design.rank,
        condition_number=design.condition_number,
        metrics=metrics_of(
            model,
            design,
            validation.result if validation else None,
            optimum_norms=None if trained.exact else trained.optimum.residual_norms,
        ),
        terms=request.terms,
        unused_columns=unused_columns(rows.unused, base.version.card if base else None),
        precision_loss=None if statistics.untracked else precision_loss(statistics),
        precision_bounds=None if statistics.untracked else bounds_of(trained.bounds, request.targets),
        weight_kind=statistics.weight_kind,
        discounted=statistics.discounted,
        untracked=statistics.untracked,
        earlier_shares=_earlier_shares(request, base),
        inference_unavailable=trained.inference_unavailable,
        validation=validation.card if validation else None,
        warnings=(
            *trained.warnings,
            *warnings_of(model, design, trained.solver, refined=trained.refined, dropped=rows.dropped),
        ),
    )


def _earlier_shares(request: TrainingRequest, base: Base | None) -> dict[int, float] | None:
    if base is None:
        return {}
    return shares_after(base.version.card, base.share if request.mode == "update" else 1.0)


def _solve(
    rows: JobRows, request: TrainingRequest, base: Base | None, history: FoldHistory, tracker: ProgressReporter
) -> _Trained:
    solver = request.solver
    assert isinstance(solver, Exact)
    accumulator: type[StreamingQR] = StreamingQR
    if solver.device == "cuda":
        # torch is loaded by the first job that needs it.
        check_memory_for_torch()
        from app.regression.streaming_qr_cuda import CudaAccumulator as accumulator  # noqa: N813 - one or the other
    earlier = None
    if base is not None and request.mode == "update":
        earlier = base.version.model.statistics.discounted_by(base.share)
    validation = None
    if request.folds is None:
        statistics = rows.statistics(request, accumulator)
        tracker.advance("fitting")
    else:
        found = rows.statistics_of_folds(request, accumulator, history.rows)
        tracker.advance("fitting")
        folds = Folds(found, tracker.check_cancelled, base=earlier)
        statistics = folds.whole
        if request.choose_l2:
            solver = folds.choose_l2(solver)
        validation = history.validate(folds, solver, base.share if base else 1.0, tracker.check_cancelled)
    if earlier is not None:
        statistics = earlier.merge(statistics)
    elif base is not None:
        statistics = _without(base, statistics, fit_intercept=solver.fit_intercept)
    optimum = fit(statistics, solver)
    bounds = precision_bounds(statistics, optimum, l2=solver.l2)
    withheld = check_precision(statistics, bounds)
    best: Fit | Refined = optimum
    # Only rows that can be read again can be refined, and those of the version before are gone.
    if base is None and solver.l2 == 0 and should_refine(statistics, optimum):
        best = refine(rows.blocks(request), statistics, fit_intercept=solver.fit_intercept)
    # Residuals that are rounding errors are known to be small, and that is all.
    perfect = is_essentially_perfect(statistics, optimum)
    residual_norms = np.where(np.isnan(best.residual_norms) & perfect, optimum.residual_norms, best.residual_norms)
    if withheld is None and np.isnan(residual_norms).any():
        withheld = RESIDUALS_TOO_SMALL
    inference_unavailable = withheld or why_no_inference(statistics, optimum, solver, residual_norms)
    return _Trained(
        best.coef,
        best.intercept,
        best.centre_prediction,
        np.full_like(residual_norms, np.nan) if withheld else residual_norms,
        best.unscaled_errors if inference_unavailable is None else None,
        statistics,
        optimum,
        inference_unavailable,
        solver,
        validation,
        refined=isinstance(best, Refined),
        bounds=bounds,
    )


def _without(base: Base, rows: SufficientStatistics, *, fit_intercept: bool) -> SufficientStatistics:
    try:
        return downdate(base.version.model.statistics, rows, base.share, fit_intercept=fit_intercept)
    except InvalidInput as error:
        if not base.version.card.discounted or not error.message.startswith(NOT_AMONG):
            raise
        # Rows that the version has, with less weight than is taken out, look like rows that it does not have.
        raise InvalidInput(
            f"{error.message} If they are, decay has left less than {base.share:g} of their weight; check `trained_in` "
            "or `share`."
        ) from None


def _descend(
    rows: JobRows,
    request: TrainingRequest,
    solver: GradientDescent,
    checkpoint: "Checkpoint",
    *,
    saved: "tuple[TrainingState, LossCurve] | None",
    tracker: ProgressReporter,
) -> _Trained:
    from app.regression.solvers.gradient_descent import gradient_descent  # as in `_fitted`

    assert request.weight_kind is not None
    gathered = _gathered(rows.blocks(request)) if solver.needs_rows else None
    statistics = summarise([gathered] if gathered else rows.blocks(request), weight_kind=request.weight_kind)
    tracker.advance("fitting", epochs=solver.epochs)
    resume = None
    if saved is not None:
        resume, tracker.curve = saved
        _log.info("descent resumed", extra={"epoch": resume.epoch})

    def on_epoch(state: "TrainingState") -> None:
        tracker.epoch(state.epoch, state.loss)
        checkpoint.save(state, tracker.curve)

    end = gradient_descent(
        gathered, statistics, solver, resume=resume, on_step=tracker.check_cancelled, on_epoch=on_epoch
    )
    optimum = fit(statistics, Exact())
    shift = statistics.shift[: statistics.features]
    residual_norms = statistics.residual_norms(end.coef, end.centre_prediction, shift)
    inference_unavailable = why_no_inference(statistics, optimum, Exact())
    if is_essentially_perfect(statistics, optimum, residual_norms).any():
        inference_unavailable = ESSENTIALLY_PERFECT
    elif not is_optimal(residual_norms, statistics, optimum):
        inference_unavailable = SHORT_OF_OPTIMUM if solver.weight_decay == 0 else BIASED_BY_DECAY
    return _Trained(
        end.coef,
        end.intercept,
        end.centre_prediction,
        residual_norms,
        optimum.unscaled_errors if inference_unavailable is None else None,
        statistics,
        optimum,
        inference_unavailable,
        solver,
        warnings=end.warnings,
    )


def _gathered(blocks: Iterator[TrainingBatch]) -> TrainingBatch:
    """All rows in memory, once: each block is let go as it is copied."""
    parts = deque(blocks)
    count = sum(len(block.x) for block in parts)
    if count == 0:
        raise InvalidInput(NO_ROWS)
    first = parts[0]
    weights = None if first.sample_weight is None else np.empty(count)
    rows = TrainingBatch(np.empty((count, first.x.shape[1])), np.empty((count, first.y.shape[1])), weights)
    start = 0
    while parts:
        block = parts.popleft()
        part = slice(start, start + len(block.x))
        rows.x[part], rows.y[part], start = block.x, block.y, part.stop
        if weights is not None:
            weights[part] = block.sample_weight
    return rows
