"""The diagnostics of one fit together: rows are added in batches, then the results are taken.

Memory is bounded: a chunk of rows, sums and histograms, and 8 bytes for each row and target if quantiles are exact. The
result has the types of JSON and is bounded too: MAX_TARGETS targets, each with the numbers that the modules state.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.regression.diagnostics.breusch_pagan import BreuschPagan
from app.regression.diagnostics.chunk import RowChunk
from app.regression.diagnostics.cooks_distance import CooksDistance
from app.regression.diagnostics.durbin_watson import DurbinWatson
from app.regression.diagnostics.lens import ALLOWED_ERROR, Lens
from app.regression.diagnostics.leverage import LeverageHistogram
from app.regression.diagnostics.normal_quantiles import AllQuantiles, Quantiles, SketchedQuantiles, normal_plot
from app.regression.diagnostics.partial_residuals import MAX_COLUMNS, PartialResiduals, bins_of, by_importance
from app.regression.diagnostics.residual_plot import ResidualPlot
from app.regression.diagnostics.withheld import (
    ALONE,
    COLLINEAR,
    COLLINEAR_DEVIATIONS,
    INACCURATE,
    INACCURATE_LEVERAGE,
    NO_NUMBERS,
    NO_ORDER,
    NOT_FINITE,
    OTHER_ROWS,
    Withheld,
    is_finite,
    why_no_leverage,
    why_no_residuals,
    why_no_standardising,
)
from app.regression.errors import InvalidData
from app.regression.fit import FitResult
from app.regression.sufficient_statistics import Array
from app.regression.summaries import one_thread
from app.regression.training_batch import TrainingBatch

MAX_TARGETS = 4  # Targets that are diagnosed, the first ones.


@dataclass(frozen=True)
class DiagnosisOptions:
    """What the rows of a fit, and its solver, are like."""

    numbers: Sequence[int]  # columns that may have partial residuals
    is_weighted: bool = False  # True if the rows have weights
    is_penalised: bool = False  # True if the solver has a penalty
    keeps_residuals: bool = True  # True if quantiles are exact: all residuals are then kept


class Diagnosis:
    """Adds up the diagnostics of a fit in one pass over its rows.

    Nothing is computed that classical theory does not cover or that rounding makes uncertain: the reason is given.
    """

    def __init__(self, result: FitResult, options: DiagnosisOptions) -> None:
        """Prepare for the rows of a fit."""
        self._model, self._design = result.model, result.optimum.design
        self._rank, self._count = self._design.rank, self._model.statistics.effective_rows
        self._no_leverage = why_no_leverage(self._design, is_penalised=options.is_penalised)
        self._unstandardised = why_no_standardising(self._model) or self._no_leverage
        named = range(min(len(self._model.targets), MAX_TARGETS))
        self._no_residuals = why_no_residuals(result, named)
        self._sound = [target for target in named if target not in self._no_residuals]
        self._lens = Lens(self._model, self._design, self._sound, with_leverage=self._no_leverage is None)
        self._rows, self._squares = 0.0, np.zeros(len(self._sound))  # observations, and their squared scaled residuals
        self._leverage = None if self._no_leverage else LeverageHistogram(self._rank, self._count)
        self._quantiles: Quantiles = AllQuantiles() if options.keeps_residuals else SketchedQuantiles(len(self._sound))
        is_orthonormal = self._lens.has_counts or not options.is_weighted
        slopes = self._lens.centred.rank - 1
        self._breusch_pagan = BreuschPagan(len(self._sound), slopes, orthonormal=is_orthonormal)
        self._durbin_watson = DurbinWatson(len(self._sound))
        self._bins = bins_of(self._model, options.numbers)
        self._notes: list[str] = []
        if len(self._model.targets) > MAX_TARGETS:
            self._notes.append(f"The first {MAX_TARGETS} of {len(self._model.targets)} targets are diagnosed.")
        chosen = self._chosen_columns()
        self._bins = {column: self._bins[column] for column in sorted({*chain(*chosen)})}
        fits = zip(self._lens.typical_fits, self._lens.unit.tolist(), chosen, strict=True)
        self._targets = [
            _Target(
                ResidualPlot(place, *fit, unit),
                CooksDistance(place, self._rank),
                PartialResiduals(place, columns, self._model.coef[self._sound[place]], self._bins),
            )
            for place, (fit, unit, columns) in enumerate(fits)
        ]

    @property
    def needs_rows(self) -> bool:
        """True if something is left to be computed."""
        return bool(self._sound) or self._leverage is not None

    def add(self, batch: TrainingBatch, numbers: NDArray[np.int64]) -> None:
        """Add rows of the model's columns, with the numbers of the rows in their file, in the order of the file.

        Raises PredictionTooLarge.
        """
        with one_thread(), np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
            for rows in self._lens.chunks(batch, numbers):
                self._add(rows)

    def result(self) -> dict[str, Any]:
        """Return the diagnostics, in the types of JSON. None for a part that is withheld, with a reason.

        Raises InvalidData if the rows were not those of the fit.
        """
        if self.needs_rows and self._rows != self._model.statistics.rows:
            raise InvalidData(OTHER_ROWS)
        unavailable: dict[str, str] = {}

        def given(path: str, value: Any) -> Any:
            withheld = value if isinstance(value, Withheld) else Withheld(NOT_FINITE)
            if value is not withheld and is_finite(value):
                return value
            unavailable[path] = withheld.reason
            return None

        names = self._model.targets[:MAX_TARGETS]
        return {
            "rows": int(self._model.statistics.rows),
            "leverage": given("leverage", self._leverage_part()),
            "targets": {
                name: {part: given(f"targets.{name}.{part}", value) for part, value in self._parts(target)}
                for target, name in enumerate(names)
            },
            "notes": self._notes,
            "unavailable": unavailable,
        }

    def _chosen_columns(self) -> list[list[int]]:
        """Return the columns with partial residuals of each target, and note if these are not all columns."""
        most = MAX_COLUMNS // max(1, len(self._sound))
        ordered = [by_importance(self._model, self._design, target, list(self._bins)) for target in self._sound]
        largest = max(map(len, ordered), default=0)
        if largest > most:
            measure = "|t|" if self._model.unscaled_errors is not None else "effect of a standard deviation"
            which = f"the {most} of {largest} columns with the largest {measure}"
            self._notes.append(f"Partial residuals are given for {which}.")
        return [columns[:most] for columns in ordered]

    def _add(self, rows: RowChunk) -> None:
        counts = rows.counts
        self._rows += len(rows.columns) if counts is None else float(counts.sum())
        if self._leverage is not None:
            self._leverage.add(rows)
        if not self._sound:
            return
        squares: Array = rows.scaled**2
        self._squares += squares.sum(axis=0) if counts is None else counts @ squares
        self._durbin_watson.add(rows)
        places = {column: bins.places(rows.columns[:, column]) for column, bins in self._bins.items()}
        for target in self._targets:
            target.plot.add(rows)
            target.partial.add(rows, places)
        if self._unstandardised is None:
            self._quantiles.add(rows)
            self._breusch_pagan.add(rows)
            for target in self._targets:
                target.cooks.add(rows)

    def _leverage_part(self) -> dict[str, Any] | Withheld:
        if self._leverage is None:
            return Withheld(self._no_leverage or "")
        return self._leverage.result() if self._leverage_is_accurate else Withheld(INACCURATE_LEVERAGE)

    @property
    def _leverage_is_accurate(self) -> bool:
        """True if the leverages add up to the rank."""
        assert self._leverage is not None
        return abs(self._leverage.total - self._rank) <= ALLOWED_ERROR * self._rank

    def _parts(self, target: int) -> Iterator[tuple[str, Any]]:
        """Yield each part of the diagnostics of a target, or why it is withheld."""
        place = self._sound.index(target) if target in self._sound else None
        reason = self._no_residuals.get(target)
        if place is not None and not abs(self._squares[place] / self._count - 1) <= ALLOWED_ERROR:
            reason = INACCURATE
        if place is None or reason is not None:
            yield from ((part, Withheld(reason or "")) for part in (*DESCRIPTIVE, *STANDARDISED))
            return
        found = self._targets[place]
        yield "residuals", found.plot.result()
        yield "durbin_watson", Withheld(NO_ORDER) if self._lens.has_counts else self._durbin_watson.result(place)
        yield "partial_residuals", found.partial.result(self._model.columns) or Withheld(NO_NUMBERS)
        reason = self._unstandardised or (None if self._leverage_is_accurate else INACCURATE_LEVERAGE)
        if reason is not None:
            yield from ((part, Withheld(reason)) for part in STANDARDISED)
            return
        freedom = self._count - self._rank
        deviation = float(np.sqrt(self._squares[place] / freedom))
        is_alone = not self._quantiles.observations
        yield "quantiles", Withheld(ALONE) if is_alone else normal_plot(self._quantiles, place, deviation)
        yield "cooks_distance", Withheld(ALONE) if is_alone else found.cooks.result(deviation, freedom)
        is_collinear = why_no_leverage(self._lens.centred, is_penalised=False) == COLLINEAR
        yield "breusch_pagan", Withheld(COLLINEAR_DEVIATIONS) if is_collinear else self._breusch_pagan.result(place)


DESCRIPTIVE = ("residuals", "durbin_watson", "partial_residuals")  # parts for which any coefficients will do
STANDARDISED = ("quantiles", "cooks_distance", "breusch_pagan")  # parts that classical theory is about


@dataclass(frozen=True, eq=False)
class _Target:
    """The parts of one target that are added up by themselves."""

    plot: ResidualPlot
    cooks: CooksDistance
    partial: PartialResiduals
