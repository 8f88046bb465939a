"""Drift of a version: its served rows compared with its training rows, with the number of rows behind each figure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Literal, TypeAlias

import numpy as np

from app.data.columns.schema import MISSING_LEVEL, Column
from app.data.columns.terms import indicator_blocks
from app.monitoring.served_rows import MAX_PAIRED_COLUMNS, ServedRows, axes_of, indicators_of
from app.registry.model_card import ModelCard
from app.registry.origin import Imported
from app.registry.version_file import Version
from app.regression import drift
from app.regression.moments import Moments
from app.regression.sufficient_statistics import Array

Verdict: TypeAlias = Literal["stable", "drifted", "too few rows", "no training rows"]

MAX_LEVELS = 50  # Levels of a category that are listed: those that add most to its index.
PRESENT = "present"  # label of a value that is not missing, next to MISSING_LEVEL

NO_ROWS = "No rows were served in this window."
TOO_FEW = (
    f"A verdict needs {drift.MIN_ROWS} rows: with fewer, the standard error of a difference of means is above half of "
    "the difference that counts as drift."
)
TOO_WIDE = f"The model has more than {MAX_PAIRED_COLUMNS} columns, so only means and variances of them are kept."
NO_PAIRS = (
    "The summaries of the served rows reached their memory limit, so the cross products of these rows were removed."
)
NOT_NUMBERS = "No column is a number that varied in training."
NOT_VARYING = "The served rows do not vary in every direction in which the training rows vary."
NOT_CHECKED = "No row was checked for extrapolation."
CONSTANT = "The column was constant in training, so its deviation, the unit of the difference, is zero."
NO_OWN_TERM = "The category is not a term of its own, so the frequencies of its levels are not known."


@dataclass(frozen=True)
class ColumnDrift:
    training_mean: float
    served_mean: float
    standardised_mean_difference: float | None
    variance_ratio: float | None
    minimum: float
    maximum: float
    rows: int


@dataclass(frozen=True)
class LevelShares:
    training: float
    served: float


@dataclass(frozen=True)
class CategoryDrift:
    psi: float
    rows: int
    unseen: float  # share of rows with a level that training did not have, which is a cell of the index
    levels: dict[str, LevelShares]


@dataclass(frozen=True)
class MissingValues:
    """Values of a feature for which their rows got no prediction: their numbers, and the share of gaps in all rows."""

    gaps: int
    unseen: int
    training_share: float
    served_share: float


@dataclass(frozen=True)
class Drift:
    model: str
    version: int
    window_seconds: float
    rows: int  # rows that were summarised
    predicted_rows: int
    extrapolated: float | None  # share of the rows, estimated from those that were summarised
    columns: dict[str, ColumnDrift]
    categories: dict[str, CategoryDrift]
    covariance_distance: float | None
    missing: dict[str, MissingValues]
    verdict: Verdict
    drifted: tuple[str, ...]  # names of columns and categories, and "covariance"
    unavailable: dict[str, str]


def compare(version: Version, served: ServedRows, window_seconds: float) -> Drift:
    """Return the drift of a version whose served rows are summarised."""
    card = version.card
    if card.imported is not None and not card.has_rows:
        return _without_training(card, card.imported, served, window_seconds)
    return _Comparison(version, served).drift(window_seconds)


def _without_training(card: ModelCard, imported: Imported, served: ServedRows, window_seconds: float) -> Drift:
    """Return the drift of a version whose training rows are not known: only the number of predicted rows."""
    reason = f"The version was {imported.reason}, so there is nothing to compare served rows with."
    names = ("columns", "categories", "covariance_distance", "extrapolated", "missing", "verdict")
    return Drift(
        card.model,
        card.version,
        window_seconds,
        served.summarised,
        served.predicted,
        None,
        {},
        {},
        None,
        {},
        "no training rows",
        (),
        dict.fromkeys(names, reason),
    )


class _Comparison:
    def __init__(self, version: Version, served: ServedRows) -> None:
        self._version, self._served = version, served
        self._statistics = version.model.statistics
        self._names = version.model.columns
        card = version.card
        self._blocks = () if card.table is None else tuple(indicator_blocks(card.terms, card.table))
        self._indicators = indicators_of(version)
        self._unavailable: dict[str, str] = {}
        self._drifted: list[str] = []

    def drift(self, window_seconds: float) -> Drift:
        served, card = self._served, self._version.card
        moments = served.moments
        if moments is not None and len(moments.mean) != len(self._names):
            moments = None
        columns: dict[str, ColumnDrift] = {}
        categories: dict[str, CategoryDrift] = {}
        distance = None
        if moments is None:
            self._unavailable |= dict.fromkeys(("columns", "categories", "covariance_distance"), NO_ROWS)
        else:
            columns = self._columns(moments)
            categories = dict(self._categories(moments))
            distance = self._distance(moments)
        if not served.checked:
            is_wide = len(self._names) > MAX_PAIRED_COLUMNS
            self._unavailable["extrapolated"] = TOO_WIDE if is_wide else NO_ROWS if moments is None else NOT_CHECKED
        rows = served.summarised
        enough = moments is not None and round(moments.effective_rows) >= drift.MIN_ROWS
        if not enough:
            self._drifted.clear()
        missing = dict(self._missing())
        enough = enough or bool(self._drifted)
        if not enough:
            self._unavailable["verdict"] = TOO_FEW
        verdict: Verdict = ("drifted" if self._drifted else "stable") if enough else "too few rows"
        return Drift(
            card.model,
            card.version,
            window_seconds,
            rows,
            served.predicted,
            served.flagged / served.checked if served.checked else None,
            columns,
            categories,
            distance,
            missing,
            verdict,
            tuple(dict.fromkeys(self._drifted)),
            self._unavailable,
        )

    def _columns(self, moments: Moments) -> dict[str, ColumnDrift]:
        statistics, count = self._statistics, len(self._names)
        shift, scale = statistics.shift[:count], statistics.scale[:count]
        differences = drift.mean_differences(statistics, moments)
        moved = drift.constants_moved(statistics, moments)
        ratios = drift.variance_ratios(statistics, moments)
        with np.errstate(over="ignore", invalid="ignore"):
            is_far = np.abs(differences) > drift.mean_limits(statistics, moments)
            if self._served.fourths is not None:
                is_far |= drift.variances_moved(statistics, moments, self._served.fourths[:-1])
        is_far[list(self._indicators)] = False  # compared by the shares of levels
        with np.errstate(over="ignore"):
            rows = np.column_stack(
                [
                    statistics.mean[:count],
                    shift + scale * moments.mean,
                    differences,
                    ratios,
                    shift + scale * moments.minimum,
                    shift + scale * moments.maximum,
                ]
            ).tolist()
        columns = {}
        for place, (name, (training, mean, difference, ratio, low, high)) in enumerate(
            zip(self._names, rows, strict=True)
        ):
            known = not isnan(difference)
            if not known:
                self._unavailable[f"columns.{name}.standardised_mean_difference"] = CONSTANT
                self._unavailable[f"columns.{name}.variance_ratio"] = CONSTANT
            if moved[place] or is_far[place]:
                self._drifted.append(name)
            columns[name] = ColumnDrift(
                training,
                mean,
                difference if known else None,
                ratio if known and isfinite(ratio) else None,
                low,
                high,
                moments.rows,
            )
        return columns

    def _categories(self, moments: Moments) -> Iterator[tuple[str, CategoryDrift]]:
        table = self._version.card.table
        if table is None:
            return
        found = {column.name: (column, block) for column, block in self._blocks}
        for feature in table.features:
            if feature.name in found:
                yield feature.name, self._category(*found[feature.name], moments)
            elif feature.indicators:
                self._unavailable[f"categories.{feature.name}"] = NO_OWN_TERM

    def _category(self, column: Column, block: slice, moments: Moments) -> CategoryDrift:
        statistics = self._statistics
        scale, shift = statistics.scale[block], statistics.shift[block]
        training = _with_reference(statistics.mean[block])
        served = _with_reference(shift + scale * moments.mean[block])
        # Rows with a level that training did not have get no results, so they are not among those summarised.
        unseen = self._served.unseen[column.name]
        unseen_share = unseen / (unseen + self._served.predicted) if unseen else 0.0
        served *= 1 - unseen_share
        psi = drift.stability_index(np.append(training, 0.0), np.append(served, unseen_share))
        cells = len(training) + (unseen > 0)
        if psi > drift.stability_limit(cells, moments.effective_rows, statistics.effective_rows):
            self._drifted.append(column.name)
        labels = list(column.levels) if column.kind == "category" else [PRESENT]
        labels += [MISSING_LEVEL] * (column.missing == "indicator")
        return CategoryDrift(psi, moments.rows, unseen_share, _most_changed(labels, training, served))

    def _missing(self) -> Iterator[tuple[str, MissingValues]]:
        """Yield the missing values by feature. A share that is much larger than in training is drift."""
        served, card = self._served, self._version.card
        absent = served.gaps + served.unseen
        # A row has at most one gap or unknown level of a feature, so at least this number of rows was sent.
        rows = served.predicted + max(absent.values(), default=0)
        training_rows = card.rows + card.dropped_rows
        for name in sorted(absent):
            training, found = card.gaps.get(name, 0) / training_rows, absent[name] / rows
            yield name, MissingValues(served.gaps[name], served.unseen[name], training, served.gaps[name] / rows)
            psi = drift.stability_index(np.array([training, 1 - training]), np.array([found, 1 - found]))
            is_more = found > training and rows >= drift.MIN_ROWS
            if is_more and psi > drift.stability_limit(2, rows, training_rows):
                self._drifted.append(name)

    def _distance(self, moments: Moments) -> float | None:
        statistics = self._statistics
        columns = [place for place in range(len(self._names)) if place not in self._indicators]
        reason = None
        if len(self._names) > MAX_PAIRED_COLUMNS:
            reason = TOO_WIDE
        elif not moments.has_pairs:
            reason = NO_PAIRS
        elif round(moments.effective_rows) < max(2, drift.ROWS_PER_DIRECTION * len(columns)):
            reason = (
                f"The covariance of {len(columns)} columns needs {drift.ROWS_PER_DIRECTION * len(columns)} rows, and "
                f"{moments.rows} were summarised."
            )
        if reason is None:
            axes = axes_of(self._version)
            distance = drift.covariance_distance(axes, moments)
            if not axes.directions:
                reason = NOT_NUMBERS
            elif distance == float("inf"):
                reason = NOT_VARYING
            else:
                fourth = 0.0 if self._served.fourths is None else float(self._served.fourths[-1])
                if distance > drift.covariance_limit(statistics, axes, moments, fourth):
                    self._drifted.append("covariance")
                return distance
        self._unavailable["covariance_distance"] = reason
        return None


def _with_reference(shares: Array) -> Array:
    """Return the shares of all levels. The first one, the reference, has no column."""
    return np.asarray(np.concatenate([[1 - shares.sum()], shares]).clip(0.0, 1.0))


def _most_changed(labels: list[str], training: Array, served: Array) -> dict[str, LevelShares]:
    changes = np.abs(served - training)
    chosen = sorted(np.argsort(-changes, kind="stable")[:MAX_LEVELS].tolist())
    return {labels[place]: LevelShares(float(training[place]), float(served[place])) for place in chosen}


def summary_of(drift_: Drift, most: int) -> Mapping[str, object]:
    """Return the figures of a drift that change most, at most `most` columns and categories, for events."""
    differences = {
        name: column.standardised_mean_difference
        for name, column in drift_.columns.items()
        if column.standardised_mean_difference is not None
    }
    largest = sorted(differences, key=lambda name: -abs(differences[name] or 0.0))[:most]
    indices = sorted(drift_.categories, key=lambda name: -drift_.categories[name].psi)[:most]
    return {
        "model": drift_.model,
        "version": drift_.version,
        "window_seconds": drift_.window_seconds,
        "rows": drift_.rows,
        "predicted_rows": drift_.predicted_rows,
        "extrapolated": drift_.extrapolated,
        "covariance_distance": drift_.covariance_distance,
        "verdict": drift_.verdict,
        "drifted": list(drift_.drifted[:most]),
        "mean_differences": {name: differences[name] for name in largest},
        "psi": {name: drift_.categories[name].psi for name in indices},
    }
