"""A training: find the published version, open the rows, fit, compare, publish. No queue is needed."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from app.data.batch import Source
from app.data.columns.schema import TableSchema
from app.data.formats import BY_NAME
from app.errors import InvalidInput, SpoolFull, StoreUnavailable
from app.failpoints import failpoint
from app.registry.base import ModelPublisher, ParentChanged
from app.registry.model_card import ModelCard
from app.registry.version_file import Version
from app.regression.fit import DataSummary, FitResult, fit_model
from app.regression.solvers.base import FitObserver, TrainingState
from app.storage.store import Store
from app.training.card import make_card
from app.training.checkpoints import Checkpoint, SavedRun
from app.training.columns import current_version, with_columns_of_file
from app.training.comparison import comparable_version, compare
from app.training.dataset import JobRows
from app.training.diagnostics import Diagnosed, SecondLook
from app.training.encoded import base_of, with_coefficients_of_version, with_schema
from app.training.federated import Merge
from app.training.fit_errors import fit_errors_translated
from app.training.fragments.executors import Executor
from app.training.fragments.files import FragmentedFiles
from app.training.fragments.rows import FragmentedRows
from app.training.gaps import check_gaps, with_counts
from app.training.initial_coefficients import attach
from app.training.interruptible import run_interruptibly
from app.training.outages import outlast, pause
from app.training.parent import Parent, differences, finish_promotion, resolved
from app.training.progress import ProgressReporter
from app.training.request import DIAGNOSED_ROWS, TrainingRequest
from app.training.source_rows import check_unchanged, file_set, files_of
from app.training.source_url import AllowedSources
from app.training.sources import SourceFiles
from app.training.table import TableReader, to_store
from app.training.uploads import UploadStore
from app.training.validation import FoldHistory
from app.training.version_files import VERSION

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainerContext:
    """The places a trainer works in."""

    registry: ModelPublisher
    spool: UploadStore
    checkpoints: Path
    threads: int = 1  # threads that read files, and that summarise rows
    before_torch: Callable[[], None] = lambda: None  # called before torch is loaded; may raise if it does not fit
    # Returns a context that raises MemoryExceeded for what libraries raise if they lack memory.
    within_memory: Callable[[], AbstractContextManager[None]] = nullcontext
    diagnosed_rows: int = DIAGNOSED_ROWS  # most rows that are looked at again by default
    sources: AllowedSources = AllowedSources()  # noqa: RUF009 - frozen
    store: Store | None = None  # shared with trainers on other machines; it has the uploads and the checkpoints
    executor: Executor | None = None  # summarises fragments of a source; None: they are read one after the other

    def checkpoint(self, job: str) -> Path:
        """Return the file from which a job's descent resumes."""
        return self.checkpoints / f"{job}.json"


def train(request: TrainingRequest, job: str | None, context: TrainerContext, progress: ProgressReporter) -> ModelCard:
    """Train and publish one version, and promote it if requested. The same request publishes only once.

    An update, a forget or a comparison is made again if another version is current when it is to be published. While
    the store is unavailable, the training waits.

    Raises LinserveError if the rows or the options are invalid, and passes on the errors of `progress`.
    """
    wait = partial(pause, progress)
    if card := outlast(lambda: _published(request, context.registry), wait):
        return card
    files, source = outlast(lambda: _open_rows(request, context, wait), wait, (StoreUnavailable, SpoolFull))
    fit: Callable[[], Callable[[], Version]]
    if request.format == VERSION:
        assert isinstance(source, Path)
        merge = Merge(request, job, source, context.registry, progress)
        fit = partial(outlast, merge.fit, wait)
    else:
        request, late = outlast(lambda: _complete(request, source, context, progress), wait)
        step = partial(progress.advance, "reading")
        fragments = None
        if files is not None and context.executor is not None:
            fragments = FragmentedFiles(files.files, request.format, context.executor)
        table = TableReader(request, source, late, context.threads, step=step, fragments=fragments)
        second_look = SecondLook(
            source,
            late,
            progress,
            limit=context.diagnosed_rows,
            threads=context.threads,
            within_memory=context.within_memory,
        )
        fit = _Training(request, source, files, job, context, late, progress, table, second_look, fragments).fit
    while True:
        publish = run_interruptibly(fit, progress)
        try:
            return outlast(publish, wait).card
        except ParentChanged:
            _log.info("parent changed", extra={"model": request.model})
            progress.begin_again()


def _published(request: TrainingRequest, registry: ModelPublisher) -> ModelCard | None:
    """Return the card of the version that an earlier attempt published, after finishing its promotion, or None."""
    published = registry.find(request.model, request.upload)
    if published is None:
        return None
    finish_promotion(request, published.card, registry)
    return published.card


def _open_rows(
    request: TrainingRequest, context: TrainerContext, wait: Callable[[float], None]
) -> tuple[SourceFiles | None, Source]:
    """Return the files of a request's source, if it has one, and the rows.

    Raises Unavailable if an upload is gone, and as `UploadStore.source` and `files_of`.
    """
    if files := files_of(request, context.sources, context.spool):
        return files, file_set(files, wait)
    table_format = BY_NAME.get(request.format)
    ranged = table_format is not None and not table_format.is_text and not table_format.needs_whole_file
    return None, context.spool.source(request.upload, wait, ranged=ranged)


def _complete(
    request: TrainingRequest, source: Source, context: TrainerContext, progress: ProgressReporter
) -> tuple[TrainingRequest, Mapping[str, int]]:
    """Return the request with its initial coefficients and features, and the late lines of NDJSON."""
    request = attach(request, context.spool)
    return with_columns_of_file(request, source, context.registry, progress.check_cancelled)


@dataclass(eq=False)
class _Training:
    """One request's fits. Each reads the rows again only if it needs them differently than the one before."""

    request: TrainingRequest
    source: Source
    files: SourceFiles | None  # those of `source`, unless the rows were uploaded
    job: str | None
    context: TrainerContext
    late: Mapping[str, int]
    progress: ProgressReporter
    table: TableReader
    second_look: SecondLook
    fragments: FragmentedFiles | None = None  # of `files`, if the trainer has an executor
    rows: JobRows | None = None
    summary: DataSummary | None = None

    def fit(self) -> Callable[[], Version]:
        """Fit a new version on top of the current one. Return the call that publishes it."""
        while True:
            try:
                return self._fit()
            except InvalidInput as error:
                if not self.table.corrects(error):
                    raise
                _log.info("schema corrected", extra={"model": self.request.model})
            finally:
                if self.context.executor is not None:
                    self.context.executor.end_job()

    def _fit(self) -> Callable[[], Version]:
        registry = self.context.registry
        parent = self._outlast(lambda: Parent.of(self.request, registry))
        base = parent.base
        request = resolved(self.request, base.version.card if base else None)
        history = self._outlast(partial(FoldHistory, request, base.version if base else None, registry))
        read_current = partial(current_version, registry, request.model, request.mode)
        current = base.version if base else self._outlast(read_current)
        schema = self.table.read(current)
        request = with_schema(request, schema)
        self._outlast(partial(comparable_version, request, schema, registry))  # A fault is reported before the fit.
        if request.solver.uses_torch:
            self.context.before_torch()
        rows = self._rows_of(request, schema)
        checkpoint = Checkpoint(self.context.checkpoint(self.job or request.upload), rows.columns, self.context.store)
        saved = self._outlast(checkpoint.load)
        request, parent = self._outlast(partial(parent.started, request, registry, checkpoint.start))
        checkpoint.start = parent.start
        read_solver = partial(with_coefficients_of_version, request, rows, registry)
        solver = request.solver if saved else self._outlast(read_solver)
        with fit_errors_translated((*rows.columns, *request.targets), base):
            result = fit_model(
                rows,
                solver,
                base=base_of(base, history.stored, rows.columns) if base else None,
                folds=history.options,
                observer=_Observer(self.progress, checkpoint, getattr(solver, "epochs", None), saved),
                resume=saved.state if saved else None,
                summary=self.summary,
                threads=self.context.threads,
            )
        if self.files is not None:
            check_unchanged(self.files)
        self.summary = result.summary
        failpoint("fitted")
        if result.solver is solver:  # the card repeats the options of the request
            result = replace(result, solver=request.solver)
        check_gaps(request, rows, result, current)
        table = to_store(schema, request, current)
        table = with_counts(table, rows, base.version.card if base else None, request.mode)
        diagnosed = self.second_look.diagnose(request, rows, result, base.mode if base else "replace")
        return self._publication(request, parent, table, history, result, diagnosed=diagnosed)

    def _publication(
        self,
        request: TrainingRequest,
        parent: Parent,
        table: TableSchema,
        history: FoldHistory,
        result: FitResult,
        *,
        diagnosed: Diagnosed,
    ) -> Callable[[], Version]:
        registry, rows = self.context.registry, self.rows
        assert rows is not None
        beats_current, not_better = self._outlast(partial(compare, request, result, rows.schema, registry))
        validation = history.to_store(result.validation)
        card = make_card(request, result, parent.base, rows)
        card = replace(
            card,
            job=self.job,
            table=table,
            parent=parent.version,
            beats_current=beats_current,
            validation=validation.card,
            no_folds=validation.no_folds,
            diagnostics=diagnosed.diagnostics,
            no_diagnostics=diagnosed.reason,
            warnings=(
                *(differences(request, parent.base.version.card) if parent.base else ()),
                *request.warnings,
                *self.table.warnings,
                *rows.warnings,
                *filter(None, (not_better, *validation.warnings)),
                *card.warnings,
            ),
        )
        return partial(
            parent.publish, request, registry, card, result.model, folds=validation.folds, progress=self.progress
        )

    def _outlast(self, call: Callable[[], T]) -> T:
        """Return the result of a call that reads the store, and wait while that is unavailable.

        The fit as a whole is not called again, because it may take hours. The rows wait by themselves.
        """
        return outlast(call, partial(pause, self.progress))

    def _rows_of(self, request: TrainingRequest, schema: TableSchema) -> JobRows:
        """Return the rows, with the counts of the last pass unless they are read differently now."""
        if self.rows is None or self.rows.weight_kind != request.weight_kind or self.rows.schema != schema:
            threads, noted = self.context.threads, self.progress.fragments
            if self.fragments is not None:
                self.rows = FragmentedRows(self.fragments, request, schema, threads=threads, on_fragments=noted)
            else:
                self.rows = JobRows(self.source, request, schema, self.late, threads)
            self.summary = None
        return self.rows


@dataclass(frozen=True, eq=False)
class _Observer(FitObserver):
    """Passes on the progress of a fit, and saves the states of a descent."""

    progress: ProgressReporter
    checkpoint: Checkpoint
    epochs: int | None
    saved: SavedRun | None

    def rows_read(self, rows: int) -> None:
        self.progress.advance("reading", rows=rows)

    def solving(self) -> None:
        self.progress.advance("fitting", epochs=self.epochs)
        if self.saved is not None:
            self.progress.curve = self.saved.curve
            _log.info("descent resumed", extra={"epoch": self.saved.state.epoch})

    def learning_rate(self, rate: float, largest: float) -> None:
        self.progress.learning_rate(rate, largest)

    def epoch(self, state: TrainingState) -> None:
        self.progress.epoch(state.epoch, state.loss)
        self.checkpoint.save(state, self.progress.curve)

    def check_cancelled(self) -> None:
        self.progress.check_cancelled()
