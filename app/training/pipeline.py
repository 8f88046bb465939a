"""A training: find the published version, open the rows, fit, compare, publish. No queue is needed."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from app.errors import Unavailable
from app.failpoints import failpoint
from app.registry.model_card import ModelCard
from app.registry.publication import ParentChanged
from app.registry.publisher import ModelPublisher
from app.regression.cross_validation import FoldStatistics
from app.regression.fit import Base, DataSummary, FitResult, fit_model
from app.regression.linear_model import LinearModel
from app.regression.solvers import Solver
from app.regression.solvers.base import FitObserver, TrainingState
from app.training.card import make_card
from app.training.checkpoints import Checkpoint, SavedRun
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

    registry: ModelPublisher
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

    def publish(self, registry: ModelPublisher, progress: ProgressSink) -> ModelCard:
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
                base=Base(base.version.model.statistics, base.mode, base.share, history.stored) if base else None,
                folds=history.options,
                observer=observer,
                resume=saved.state if saved else None,
                summary=self._summary,
            )
        self._summary = result.summary
        failpoint("fitted")
        if result.solver is solver:  # the card repeats the options of the request
            result = replace(result, solver=request.solver)
        return self._unpublished(request, parent, rows, history, result)

    def _unpublished(
        self, request: TrainingRequest, parent: Parent, rows: JobRows, history: FoldHistory, result: FitResult
    ) -> _Unpublished:
        comparison = compare(request, result, self._context.registry)
        validation = history.to_store(result.validation)
        card = make_card(request, result, parent.base, rows)
        card = replace(
            card,
            job=self._job,
            parent=parent.version,
            beats_current=comparison.beats_current,
            validation=validation.card,
            no_folds=validation.no_folds,
            warnings=(
                *(differences(request, parent.base.version.card) if parent.base else ()),
                *request.warnings,
                *rows.warnings,
                *filter(None, (comparison.warning, *validation.warnings)),
                *card.warnings,
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


class _Observer(FitObserver):
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

    def check_cancelled(self) -> None:
        self._progress.check_cancelled()
