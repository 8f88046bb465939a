"""The second look at the rows of a training, after the fit and before the publication, for diagnostics."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from app.data.batch import Source
from app.errors import InvalidInput, MemoryExceeded
from app.regression.diagnostics.diagnosis import Diagnosis, DiagnosisOptions
from app.regression.errors import FitError
from app.regression.fit import DataSummary, FitResult
from app.regression.sufficient_statistics import Array
from app.regression.summary_plan import SummaryPlan
from app.regression.terms import parse_terms
from app.training.dataset import JobRows
from app.training.progress import ProgressReporter
from app.training.request import DIAGNOSED_ROWS, TrainingRequest

PHASE = "diagnosing"

_ABSENT = (
    "Residuals against fitted values, quantiles of residuals, leverages, Cook's distances, the Durbin-Watson "
    "statistic, the Breusch-Pagan test and partial residuals need all rows, so they are absent."
)
WITHOUT_OLD_ROWS = {
    "update": f"An update does not see the rows of the versions that it builds on. {_ABSENT}",
    "forget": f"A forget does not see the rows that remain. {_ABSENT}",
}
WITHOUT_ROWS = f"A merge sees statistics and no rows. {_ABSENT}"
SWITCHED_OFF = "The request said diagnostics=false."
NO_MEMORY = "The second look at the rows needs more memory than the trainer may have."
NOT_READABLE = "The rows could not be read again after the fit."

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Diagnosed:
    """The diagnostics of a version, or the reason why it has none."""

    diagnostics: dict[str, Any] | None = None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class _Known:
    """The last diagnostics, and the fit that they are of."""

    summary: DataSummary
    coef: Array
    intercept: Array
    diagnosed: Diagnosed

    def is_of(self, result: FitResult) -> bool:
        model = result.model
        return (
            result.summary is self.summary
            and np.array_equal(model.coef, self.coef)
            and np.array_equal(model.intercept, self.intercept)
        )


class SecondLook:
    """Looks at the rows of one job again, once for each fit of other coefficients."""

    def __init__(
        self,
        source: Source,
        late: Mapping[str, int],
        progress: ProgressReporter,
        *,
        limit: int = DIAGNOSED_ROWS,
        threads: int = 1,
        within_memory: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Prepare to read `source`. `limit` is the most rows by default, see DIAGNOSED_ROWS.

        `within_memory` returns a context that raises MemoryExceeded for what libraries raise if they lack memory.
        """
        self._source, self._late, self._progress = source, late, progress
        self._limit, self._threads, self._within_memory = limit, threads, within_memory
        self._known: _Known | None = None

    def diagnose(
        self, request: TrainingRequest, rows: JobRows, result: FitResult, mode: Literal["replace", "update", "forget"]
    ) -> Diagnosed:
        """Return the diagnostics of a fit to these rows, which the rows of another version count into unless replaced.

        Raises what the progress raises, and StoreUnavailable.
        """
        if mode != "replace":
            return Diagnosed(reason=WITHOUT_OLD_ROWS[mode])
        if request.diagnostics is False:
            return Diagnosed(reason=SWITCHED_OFF)
        if rows.read > self._limit and not request.diagnostics:
            return Diagnosed(reason=_too_long(rows.read, self._limit))
        if self._known is None or not self._known.is_of(result):
            model = result.model
            found = self._look(request, rows, result)
            self._known = _Known(result.summary, model.coef, model.intercept, found)
        return self._known.diagnosed

    def _look(self, request: TrainingRequest, rows: JobRows, result: FitResult) -> Diagnosed:
        reason = NOT_READABLE
        try:
            with self._within_memory():
                return Diagnosed(self._read(request, rows, result))
        except (MemoryError, MemoryExceeded):
            reason = NO_MEMORY
        except (InvalidInput, FitError) as error:  # a file of a source has changed, for example
            _log.info("rows not read again", extra={"model": request.model, "reason": error.message})
        return Diagnosed(reason=reason)

    def _read(self, request: TrainingRequest, rows: JobRows, result: FitResult) -> dict[str, Any]:
        options = DiagnosisOptions(
            numbers=columns_of_numbers(rows),
            is_weighted=rows.schema.weight is not None,
            is_penalised=any(getattr(result.solver, name, 0) > 0 for name in ("l2", "weight_decay")),
            keeps_residuals=rows.read <= self._limit,
        )
        diagnosis = Diagnosis(result, options)
        plan = SummaryPlan(rows.features, rows.terms)
        # Rows of their own, because those of the job hold the counts of the pass for the fit.
        again = JobRows(self._source, request, rows.schema, self._late, self._threads)
        self._progress.advance(PHASE, rows=0)
        if diagnosis.needs_rows:
            for batch, numbers in ((numbered.batch, numbered.numbers) for numbered in again.numbered_batches()):
                for columns in plan.columns([batch]):
                    diagnosis.add(columns, numbers)
                self._progress.advance(PHASE, rows=again.complete)
        found = diagnosis.result()
        for target in found["targets"].values():
            for entry in target["cooks_distance"] or ():
                file, entry["row"] = again.place(entry["row"])
                if file is not None:
                    entry["file"] = file
        return found


def _too_long(rows: int, limit: int) -> str:
    return (
        f"The rows are {rows}, and more than {limit} are looked at again only if the request says diagnostics=true, "
        "because it takes about as long as reading them for the fit."
    )


def columns_of_numbers(rows: JobRows) -> list[int]:
    """Return the places of the columns that are made from numbers and dates only: no levels and no indicators."""
    names = {column.name for column in rows.schema.features if column.kind in ("number", "date")}
    if not rows.terms:
        return [place for place, name in enumerate(rows.features) if name in names]
    numbers = [name in names for name in rows.features]
    factors = enumerate(parse_terms(rows.terms, rows.features))
    return [place for place, of_term in factors if all(numbers[feature] for feature, _ in of_term)]
