"""A training: find what is published, open the rows, fit, compare, publish. Knows nothing of queues."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.errors import Unavailable
from app.failpoints import failpoint
from app.registry.model_card import ModelCard
from app.registry.publication import ParentChanged
from app.registry.registry import Registry
<<<<<<< HEAD
from app.regression.cross_validation import FoldStatistics
from app.regression.fit import DataSummary, fit_model
from app.regression.linear_model import LinearModel
from app.regression.solvers import Solver
from app.regression.solvers.coefficients import TrainingState
from app.training.card import make_card
from app.training.checkpoints import Checkpoint, SavedRun
=======
from app.registry.shares import shares_after
from app.regression.cross_validation import Folds
from app.regression.downdate import downdate
from app.regression.errors import InvalidData, NotIncluded
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
from app.regression.precision import PrecisionBounds, check_precision, precision_bounds, precision_loss
from app.regression.solvers import Exact, GradientDescent, Solver
from app.regression.streaming_qr import NO_ROWS, StreamingQR, summarise
from app.regression.sufficient_statistics import SufficientStatistics
from app.regression.training_batch import TrainingBatch
from app.training.card import bounds_of, metrics_of, unused_columns, warnings_of
>>>>>>> estimator
from app.training.columns import with_columns_of_file
from app.training.comparison import compare
from app.training.dataset import JobRows
from app.training.fit_errors import fit_errors_translated
from app.training.inheritance import differences, resolved
from app.training.initial_coefficients import attach
from app.training.interruptible import run_interruptibly
from app.training.parent import Parent, finish_promotion, with_initial_coefficients
from app.training.progress import ProgressSink
from app.training.request import TrainingRequest
from app.training.uploads import Uploads
from app.training.validation import FoldHistory

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainerContext:
    """The places a trainer works in."""

    registry: Registry
    spool: Uploads
    checkpoints: Path
    threads: int = 1  # threads that read files
    before_torch: Callable[[], None] = lambda: None  # called before torch is loaded; may raise if it does not fit

    def checkpoint(self, job: str) -> Path:
        """Return the file from which a job's descent resumes."""
        return self.checkpoints / f"{job}.json"


def train(request: TrainingRequest, job: str | None, context: TrainerContext, progress: ProgressSink) -> ModelCard:
    """Train and publish one version, and promote it if requested. The same request publishes only once.

    An update, a forget or a comparison is made again if another version is current when it is to be published.

    Raises the LinserveError that the rows or options deserve, and whatever `progress` raises.
    """
    if published := context.registry.find(request.model, request.upload):
        finish_promotion(request, published.card, context.registry)
        return published.card
    path = context.spool.path(request.upload)
    if not path.exists():
        raise Unavailable("The rows of this job are not in the state folder of the trainer that took it.")
    request, late = with_columns_of_file(
        attach(request, context.spool), path, context.registry, progress.check_cancelled
    )
    training = _Training(request, job, context, late, progress)
    while True:
        try:
            return run_interruptibly(training.fit, progress).publish(context.registry, progress)
        except ParentChanged:
            _log.info("parent changed", extra={"model": request.model})
            progress.begin_again()


@dataclass(frozen=True, eq=False)
class _Unpublished:
    """A new version, before it is published."""

    request: TrainingRequest
    parent: Parent
    card: ModelCard
    model: LinearModel
    folds: FoldStatistics | None

    def publish(self, registry: Registry, progress: ProgressSink) -> ModelCard:
        """Publish the version, and return its card. Raises ParentChanged if another parent is current by then."""
        return self.parent.publish(
            self.request, registry, self.card, self.model, folds=self.folds, progress=progress
        ).card


class _Training:
    """One request's fits. Each reads the rows again only if it needs them differently than the one before."""

    def __init__(
        self,
        request: TrainingRequest,
        job: str | None,
        context: TrainerContext,
        late: Mapping[str, int],
        progress: ProgressSink,
    ) -> None:
        self._request = request
        self._job = job
        self._context = context
        self._late = late
        self._progress = progress
        self._rows: JobRows | None = None
        self._summary: DataSummary | None = None

    def fit(self) -> _Unpublished:
        """Fit a new version on top of the current one."""
        registry = self._context.registry
        parent = Parent.of(self._request, registry)
        base = parent.base
        request = resolved(self._request, base.version.card if base else None)
        history = FoldHistory(request, base.version if base else None, registry)
        if request.solver.uses_torch:
            self._context.before_torch()
        checkpoint = Checkpoint(self._context.checkpoint(self._job or request.upload))
        saved = checkpoint.load()
        request, parent = parent.started(request, registry, checkpoint.start)
        checkpoint.start = parent.start
        solver = request.solver if saved else with_initial_coefficients(request, registry)
        rows = self._rows_of(request)
        observer = _Observer(self._progress, checkpoint, solver, saved)
        with fit_errors_translated((*(request.terms or request.features), *request.targets), base):
            result = fit_model(
                rows,
                solver,
                base=base.rows(history.stored) if base else None,
                folds=history.options,
                observer=observer,
                resume=saved.state if saved else None,
                summary=self._summary,
            )
        self._summary = result.summary
        failpoint("fitted")
        comparison = compare(request, result, registry)
        validation = history.to_store(result.validation)
        card = make_card(
            request,
            result,
            solver=request.solver if result.solver is solver else result.solver,
            base=base,
            rows=rows,
            job=self._job,
            parent=parent.version,
            beats_current=comparison.beats_current,
            validation=validation.card,
            no_folds=validation.no_folds,
            warnings=(
                *(differences(request, base.version.card) if base else ()),
                *request.warnings,
                *rows.warnings,
                *filter(None, (comparison.warning, *validation.warnings)),
            ),
        )
        return _Unpublished(request, parent, card, result.model, validation.folds)

    def _rows_of(self, request: TrainingRequest) -> JobRows:
        """Return the rows, with the counts of the last pass unless they are read differently now."""
        if self._rows is None or self._rows.weight_kind != request.weight_kind:
            path = self._context.spool.path(request.upload)
            self._rows = JobRows(path, request, self._late, self._context.threads)
            self._summary = None
        return self._rows


class _Observer:
    """Passes on the progress of a fit, and saves the states of a descent."""

    def __init__(self, progress: ProgressSink, checkpoint: Checkpoint, solver: Solver, saved: SavedRun | None) -> None:
        self._progress = progress
        self._checkpoint = checkpoint
        self._epochs: int | None = getattr(solver, "epochs", None)
        self._saved = saved

    def rows_read(self, rows: int) -> None:
        self._progress.advance("reading", rows=rows)

    def solving(self) -> None:
        self._progress.advance("fitting", epochs=self._epochs)
        if self._saved is not None:
            self._progress.curve = self._saved.curve
            _log.info("descent resumed", extra={"epoch": self._saved.state.epoch})

    def epoch(self, state: TrainingState) -> None:
        self._progress.epoch(state.epoch, state.loss)
        self._checkpoint.save(state, self._progress.curve)

<<<<<<< HEAD
    def check_cancelled(self) -> None:
        self._progress.check_cancelled()
=======

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
        from app.regression.streaming_qr_cuda import CudaStreamingQR as accumulator  # noqa: N813 - one or the other
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
    except NotIncluded as error:
        if not base.version.card.discounted:
            raise
        # Rows that the version has, with less weight than is taken out, look like rows that it does not have.
        raise NotIncluded(
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
        raise InvalidData(NO_ROWS)
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
>>>>>>> estimator
