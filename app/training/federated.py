"""Merge version files from other sites into a model, or take them out of it: statistics instead of rows.

The files are untrusted, see `app.registry.untrusted`. If the model has no current version, the first file gives the
columns of a new one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from app.data.columns.gap_patterns import GapPatterns
from app.errors import InvalidInput, ModelNotFound
from app.registry.base import ModelPublisher
from app.registry.untrusted import ForeignFile, ForeignVersion
from app.registry.version_file import Version
from app.regression.fit import FitResult, fit_model
from app.regression.linear_model import RANGES_UNKNOWN
from app.regression.solvers import with_options
from app.regression.solvers.base import FitObserver
from app.regression.sufficient_statistics import SufficientStatistics, WeightKind
from app.regression.summary_plan import SummaryPlan
from app.regression.training_batch import TrainingBatch
from app.training.card import make_card
from app.training.columns import check_versions
from app.training.diagnostics import WITHOUT_ROWS
from app.training.encoded import base_of, with_schema
from app.training.fit_errors import fit_errors_translated
from app.training.gaps import with_counts
from app.training.merge_plan import files_of
from app.training.parent import BaseVersion, Parent, differences, intact_current, resolved
from app.training.progress import ProgressReporter
from app.training.request import TrainingRequest
from app.training.united_columns import UnitedColumns
from app.training.validation import FoldHistory

MAX_ROWS = 2**53  # Most rows of a model: above, 64-bit numbers are not exact.

NO_FOLDS = "A merge stores no statistics of folds, because the folds of the merged rows are not known."


@dataclass(frozen=True, eq=False)
class VersionRows:
    """The rows of version files, of which only the statistics are known: the data of a fit."""

    columns: UnitedColumns
    statistics: SufficientStatistics
    gaps: GapPatterns

    dropped = 0

    @property
    def complete(self) -> int:
        return self.statistics.rows

    @property
    def unused(self) -> list[str]:
        return []

    @property
    def gaps_by_column(self) -> dict[str, int]:
        return {}

    @property
    def features(self) -> tuple[str, ...]:
        return self.columns.table.encoded_features

    @property
    def targets(self) -> tuple[str, ...]:
        return self.columns.targets

    @property
    def terms(self) -> tuple[str, ...]:
        return self.columns.columns if self.columns.terms else ()

    @property
    def weight_kind(self) -> WeightKind:
        return self.columns.weight_kind

    @property
    def blocks(self) -> tuple[slice, ...]:
        return self.columns.blocks

    def batches(self) -> Iterator[TrainingBatch]:
        raise NotImplementedError  # No site sends its rows.

    def summarise(
        self,
        plan: SummaryPlan,  # noqa: ARG002 - the statistics are known already
        rows_read: Callable[[int], None],
    ) -> dict[int, SufficientStatistics]:
        rows_read(self.statistics.rows)
        return {0: self.statistics}


@dataclass(frozen=True, eq=False)
class Merge:
    """The fits of one request. Each reads the files again, since the current version gives their columns."""

    request: TrainingRequest
    job: str | None
    path: Path
    registry: ModelPublisher
    progress: ProgressReporter

    def fit(self) -> Callable[[], Version]:
        """Merge the files with the current version. Return the call that publishes the new one. Raises InvalidInput."""
        try:
            return self._fit()
        except (np.linalg.LinAlgError, ArithmeticError):  # possible only with statistics that no rows have
            raise InvalidInput("The statistics of the files give no model. Export the files again.") from None

    def _fit(self) -> Callable[[], Version]:
        registry, name = self.registry, self.request.model
        try:
            number, current = intact_current(registry, name)
        except ModelNotFound:
            number, current = None, None
        if self.request.mode == "forget":
            check_versions(self.request, current, registry)
        united, discounted = None if current is None else UnitedColumns.of(current.card), False
        solver: Any = None if current is None else current.card.solver
        for file in files_of(self.path):
            adds = self.request.mode == "update"
            united = (united or UnitedColumns.of(file.card)).joined(file.card, file.label, adds=adds)
            solver, discounted = solver or file.card.solver, discounted or (file.card.discounted and adds)
        assert united is not None
        request = self._resolved(united, current, solver)
        names = (*united.columns, *united.targets)
        with fit_errors_translated(names):
            statistics = self._merged(united)
        rows = VersionRows(united, statistics, GapPatterns(()))
        base = None if current is None else BaseVersion.of(current, request)
        _check(base, rows)
        with fit_errors_translated(names, base):
            result = fit_model(
                rows,
                request.solver,
                base=None if base is None else base_of(base, {}, united.columns),
                observer=_Observer(self.progress),
                reread=False,
            )
        _check_finite(result)
        expected: int | Literal["any"] | None = number if request.promote == "always" else "any"
        return self._publication(request, Parent(expected, base), rows, result, discounted=discounted)

    def _resolved(self, united: UnitedColumns, current: Version | None, solver: Any) -> TrainingRequest:
        """Return the request with its columns, and with the options of `solver` that it does not give itself."""
        request = replace(
            self.request,
            features=united.features,
            targets=united.targets,
            terms=united.terms,
            weight_kind=united.weight_kind,
        )
        request = with_schema(request, united.table)
        if current is not None:
            return resolved(request, current.card)
        options: dict[str, Any] = {name: getattr(solver, name) for name in request.inherits}
        return replace(request, mode="replace", solver=with_options(request.solver, **options))

    def _merged(self, united: UnitedColumns) -> SufficientStatistics:
        """Return the statistics of all files together."""
        merged: SufficientStatistics | None = None
        for file in files_of(self.path):
            self.progress.check_cancelled()
            version = _read(file)
            aligned = united.align(version.statistics, version.card)
            merged = aligned if merged is None else merged.merge(aligned)
            self.progress.advance("reading", rows=merged.rows)
        assert merged is not None
        return merged

    def _publication(
        self,
        request: TrainingRequest,
        parent: Parent,
        rows: VersionRows,
        result: FitResult,
        *,
        discounted: bool,
    ) -> Callable[[], Version]:
        base = parent.base
        card = make_card(request, result, base, rows)
        validation = FoldHistory(request, base.version if base else None, self.registry).to_store(None)
        table = with_counts(rows.columns.table, rows, base.version.card if base else None, request.mode)
        card = replace(
            card,
            job=self.job,
            table=table,
            parent=parent.version,
            # The shares of the rows of a discounted file are not known.
            earlier_shares=None if discounted else card.earlier_shares,
            no_folds=NO_FOLDS if validation.no_folds else None,
            no_diagnostics=WITHOUT_ROWS,
            warnings=(
                *(differences(request, base.version.card) if base else ()),
                *request.warnings,
                *([NO_FOLDS] if validation.warnings else []),
                *([RANGES_UNKNOWN] if result.model.unknown_ranges.any() else []),
                *card.warnings,
            ),
        )
        return partial(parent.publish, request, self.registry, card, result.model, folds=None, progress=self.progress)


@dataclass(frozen=True, eq=False)
class _Observer(FitObserver):
    """Passes on the progress of a fit."""

    progress: ProgressReporter

    def rows_read(self, rows: int) -> None:
        self.progress.advance("reading", rows=rows)

    def solving(self) -> None:
        self.progress.advance("fitting")

    def check_cancelled(self) -> None:
        self.progress.check_cancelled()


def _read(file: ForeignFile) -> ForeignVersion:
    version = file.read()
    if version.statistics.rows > MAX_ROWS:
        raise InvalidInput(f"{file.label} has more rows than can be counted.")
    return version


def _check(base: BaseVersion | None, rows: VersionRows) -> None:
    """Raise InvalidInput if the rows cannot be added to, or taken out of, the base."""
    statistics = rows.statistics
    total = statistics.rows + (base.version.card.rows if base is not None and base.mode == "update" else 0)
    if total > MAX_ROWS:
        raise InvalidInput(f"The model would have more than {MAX_ROWS} rows, which cannot be counted exactly.")
    if base is not None and base.mode == "forget" and statistics.discounted and not base.version.card.discounted:
        raise InvalidInput(
            "Decay has reduced the weights of the rows in the file, and not those of the current version, so the "
            "version does not hold the rows with these weights."
        )


def _check_finite(result: FitResult) -> None:
    if not (np.isfinite(result.model.coef).all() and np.isfinite(result.model.intercept).all()):
        raise InvalidInput("The statistics of the files give no finite coefficients. Export the files again.")
