"""Evaluate a version on labelled rows: in one pass over a table or over rows decoded from JSON, in bounded memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.data.batch import RowBatch, row_error, split_wide
from app.data.columns.schema import Column
from app.data.columns.segments import segment_column, segments_of_cells, segments_of_rows
from app.data.json_encoder import JsonEncoder
from app.data.json_faults import escaped
from app.data.json_rows import as_rows
from app.data.names import shown
from app.errors import InvalidInput, PredictionTooLarge
from app.prediction.estimates import inference_bytes
from app.prediction.missing_rows import Reasons
from app.prediction.predictor import Predictor
from app.prediction.query import PredictionOptions, PredictionQuery
from app.prediction.tables import TableOptions, TableRows
from app.registry.version_file import Version
from app.regression.evaluation import (
    INTERVAL_METRICS,
    OUTSIDE_SPAN,
    Calibration,
    Decile,
    ErrorSums,
    Metrics,
    Scored,
    evaluation_bytes,
    exact_rows,
)
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import Array

MAX_SEGMENTS = 50  # Segments with metrics of their own; the other values are evaluated together.
MAX_COUNTED_SEGMENTS = 1000  # Distinct values that are counted, of which the most frequent become segments.
MAX_COUNTED_SUMS = 1 << 17  # The same, times the number of targets.
MAX_INTERVAL_COLUMNS = 1000  # Columns of a design that an evaluation decomposes for intervals.

_ROW_ARRAYS = 16  # Arrays of a number for each row and target that are in memory at once.
_NUMBER_BYTES = 8
_NEGATIVE = "The weight is negative. Expected at least 0."
_TOO_WIDE = f"Intervals of models with more than {MAX_INTERVAL_COLUMNS} columns are not evaluated."
_INSTANCES, _TARGETS = "/instances", "/targets"

# The values of a column, None for a gap, and the index of each row's value.
_Segments: TypeAlias = tuple[Sequence[str | None], NDArray[np.intp]]


@dataclass(frozen=True)
class EvaluationOptions:
    """The results to compute, and how the rows are read."""

    table: TableOptions = field(default_factory=TableOptions)
    by: str | None = None  # Column whose values are the segments.
    level: float = 0.95  # Level of the prediction intervals.


@dataclass(frozen=True)
class LeftOut:
    """Rows that do not count for any target, or not for some, by the reason. A row may have several."""

    rows: int  # Rows that do not count for any target.
    gaps: Mapping[str, int]  # By column.
    unseen: Mapping[str, int]  # Rows with a level that the version does not know, by column.
    zero_weight: int


@dataclass(frozen=True)
class Segment:
    value: str | None  # None for rows without a value
    targets: Mapping[str, Metrics]


@dataclass(frozen=True)
class OtherSegments:
    """All values that are not among the most frequent ones."""

    values: int  # Number of distinct values that were counted.
    more: bool  # True if there are further values, which were not counted.
    targets: Mapping[str, Metrics]


@dataclass(frozen=True)
class VersionEvaluation:
    """The results of one version."""

    version: int
    rows: int  # All rows of the body.
    left_out: LeftOut
    targets: Mapping[str, Metrics]
    calibration: Mapping[str, Sequence[Decile]]
    calibration_is_exact: bool
    segments: Sequence[Segment] | None
    other: OtherSegments | None
    unavailable: Mapping[str, str]  # Reasons of metrics that are None, by `TARGET.METRIC`.


class _Part(NamedTuple):
    """Some consecutive rows. NaN is a gap."""

    features: Array  # (n, p)
    targets: Array  # (n, k)
    weights: Array | None  # (n,)
    segments: _Segments | None


def evaluate_table(
    rows: TableRows, options: EvaluationOptions, max_bytes: int, on_batch: Callable[[], None] = lambda: None
) -> VersionEvaluation:
    """Evaluate the version on the rows of a table, which `read_options` made. `on_batch` may raise an error to stop.

    Raises InvalidInput with the place of a fault, or BodyTooLarge if the table expands to more than `max_bytes`.
    """
    version = rows.version
    table = rows.prediction()  # which knows the number of the first row, and what is still to be counted
    evaluator = _Evaluator(version, options, table.first_row)
    column = None if options.by is None else segment_column(options.by, version.table)
    reasons = rows.reasons
    for batch in rows.batches(max_bytes):
        on_batch()
        for part in split_wide(batch, evaluator.row_bytes):
            if table.uncounted:
                reasons.add(part.values, table.uncounted)
            evaluator.add(_part_of(part, version.model, options.table.weights, column))
    return evaluator.result(reasons)


def read_options(options: EvaluationOptions) -> TableOptions:
    """Return how the rows of a table are read for an evaluation."""
    return replace(options.table, targets=True, others=True, keep=() if options.by is None else (options.by,))


def _part_of(batch: RowBatch, model: LinearModel, weight: str | None, column: Column | None) -> _Part:
    segments = None
    if column is not None:
        assert batch.kept is not None
        segments = segments_of_cells(batch.kept.column(column.name), column)
    p, k = len(model.features), len(model.targets)
    return _Part(batch.values[:, :p], batch.values[:, p : p + k], _weights(batch.values, model, k, weight), segments)


def _weights(values: Array, model: LinearModel, targets: int, weight: str | None) -> Array | None:
    """Return the weights in rows of features, some targets and, unless it is a feature, the weight."""
    if weight is None:
        return None
    place = model.features.index(weight) if weight in model.features else len(model.features) + targets
    return values[:, place]


def evaluate_rows(
    instances: list[Any], targets: list[Any] | None, version: Version, options: EvaluationOptions
) -> VersionEvaluation:
    """Evaluate the version on rows decoded from JSON. Without `targets`, the instances have them.

    Raises InvalidInput with the place of each fault.
    """
    read = options.table if targets is not None else replace(options.table, targets=True)
    columns = read.columns(version.table)
    evaluator, reasons = _Evaluator(version, options, None), Reasons()
    encoder = JsonEncoder(columns)
    instances = _as_rows(instances, encoder, _INSTANCES, read)
    codes = _read(instances, encoder, _INSTANCES, read, reasons)
    label_encoder, labels = encoder, codes
    if targets is not None:
        label_encoder = JsonEncoder([replace(column, missing="drop", fill=None) for column in version.table.targets])
        targets = _as_rows(targets, label_encoder, _TARGETS, read)
        if len(targets) != len(instances):
            message = f"Found {len(targets)} rows of targets for {len(instances)} instances. Send one for each."
            raise InvalidInput.at(_TARGETS, message)
        labels = _read(targets, label_encoder, _TARGETS, read, reasons)
    segments = None
    if options.by is not None:
        place = encoder.names.index(options.by) if options.by in encoder.names else None
        segments = segments_of_rows(instances, segment_column(options.by, version.table), place, _INSTANCES)
    p, k = len(version.model.features), len(version.model.targets)
    step = max(1, min(encoder.rows_at_once, label_encoder.rows_at_once, _step(evaluator.row_bytes)))
    for start in range(0, len(instances), step):
        rows = slice(start, start + step)
        values = encoder.design(codes[rows])
        y = values[:, p : p + k] if targets is None else label_encoder.design(labels[rows])
        weights = _weights(values, version.model, k if targets is None else 0, read.weights)
        own = None if segments is None else (segments[0], segments[1][rows])
        evaluator.add(_Part(values[:, :p], y, weights, own))
    return evaluator.result(reasons)


def _as_rows(rows: list[Any], encoder: JsonEncoder, pointer: str, read: TableOptions) -> list[Any]:
    missing = read.prediction.missing != "refuse"
    return as_rows(rows, encoder.names, pointer, missing=missing, numbers=encoder.is_plain)


def _read(
    rows: Sequence[Any],
    encoder: JsonEncoder,
    pointer: str,
    read: TableOptions,
    reasons: Reasons,
) -> Array:
    """Return the codes of the rows, whose other columns are ignored, and add what they lack to the reasons."""
    others = {name for row in rows if isinstance(row, dict) for name in row}
    ignored = frozenset(others.difference(encoder.names))
    missing = read.prediction.missing != "refuse"
    codes, unseen = encoder.read(rows, pointer, missing=missing, unknown=read.prediction.unknown, ignored=ignored)
    reasons.add(codes, encoder.names, unseen)
    return codes


def counted_segments(targets: int) -> int:
    """Return the number of distinct values that are counted."""
    return min(MAX_COUNTED_SEGMENTS, max(MAX_SEGMENTS, MAX_COUNTED_SUMS // targets))


def working_bytes(model: LinearModel, *, by_segment: bool) -> int:
    """Return the bytes that an evaluation takes, in addition to reading the rows."""
    k = len(model.targets)
    size = evaluation_bytes(1 + (counted_segments(k) + 1 if by_segment else 0), k)
    return size + (inference_bytes(model) if _no_intervals(model) is None else 0)


def _no_intervals(model: LinearModel) -> str | None:
    """Return why there are no intervals, or None if there are."""
    if model.inference_unavailable is None and len(model.columns) > MAX_INTERVAL_COLUMNS:
        return None if model.has_decomposed_design else _TOO_WIDE
    return model.inference_unavailable


def _step(row_bytes: int) -> int:
    return max(1, (1 << 21) // row_bytes)


class _Evaluator:
    """Adds up the errors of one version."""

    def __init__(self, version: Version, options: EvaluationOptions, first_row: int | None) -> None:
        model = version.model
        k = len(model.targets)
        self._version, self._model, self._options = version, model, options
        self._first_row = first_row
        self._rows = self._unused = self._zero_weight = 0
        self._no_intervals = _no_intervals(model)
        # Only precision weights determine the variance of a single observation.
        is_precision = model.has_statistics and model.statistics.weight_kind == "precision"
        self._weights_intervals = version.table.weight is not None and is_precision
        self._sums = ErrorSums(1, k)  # Of all rows. Those of segments are added up at the end.
        self._calibrations = [Calibration(exact_rows(k)) for _ in model.targets]
        self._limit = counted_segments(k)
        self._segments: dict[str | None, int] = {}
        self._by_segment = None if options.by is None else ErrorSums(self._limit + 1, k)
        self._has_more = False
        self.row_bytes = _NUMBER_BYTES * max(len(model.features) + k + 1, len(model.columns), _ROW_ARRAYS * k)

    def add(self, part: _Part) -> None:
        """Add rows. Raises InvalidInput with the place of a fault."""
        x, observed = part.features, part.targets
        has_features = ~np.isnan(x).any(axis=1)
        weights = np.ones(len(x)) if part.weights is None else part.weights
        self._check(weights)
        is_zero = has_features & (weights == 0)
        self._zero_weight += int(is_zero.sum())
        is_used = has_features & (weights > 0) & ~np.isnan(observed).all(axis=1)
        self._unused += int((~is_used).sum())
        rows = np.flatnonzero(is_used)
        if len(rows):
            own = weights[rows]
            scored = self._score(x[rows], observed[rows], own, rows, weighted=part.weights is not None)
            for target, calibration in enumerate(self._calibrations):
                calibration.add(scored.predictions[:, target], scored.observed[:, target], own)
            if self._by_segment is None:
                self._sums.add(scored)
            elif part.segments is not None:
                self._by_segment.add(scored, self._places(part.segments)[rows])
        self._rows += len(x)

    def _score(self, x: Array, observed: Array, weights: Array, rows: NDArray[np.intp], *, weighted: bool) -> Scored:
        interval = self._options.level if self._no_intervals is None else None
        own = weights if weighted and self._weights_intervals else None
        try:
            result = Predictor(self._version).predict(PredictionQuery(x, PredictionOptions(interval), own))
        except PredictionTooLarge as error:
            raise self._fault(int(rows[error.row]), error.message) from None
        return Scored(result.predictions, observed, weights, result.intervals)

    def _check(self, weights: Array) -> None:
        if (weights < 0).any():
            raise self._fault(int(np.argmax(weights < 0)), _NEGATIVE, self._options.table.weights)

    def _fault(self, row: int, message: str, column: str | None = None) -> InvalidInput:
        """Return the error for a row of the present part."""
        if self._first_row is not None:
            return row_error(message, row=self._first_row + self._rows + row, column=column)
        pointer = f"{_INSTANCES}/{self._rows + row}"
        return InvalidInput.at(pointer if column is None else f"{pointer}/{escaped(column)}", message)

    def _places(self, segments: _Segments) -> NDArray[np.intp]:
        """Return the group of each row, (n,). Values beyond the limit share the last group."""
        labels, codes = segments
        groups = np.full(len(labels), self._limit, dtype=np.intp)
        for code in np.flatnonzero(np.bincount(codes, minlength=len(labels))).tolist():
            label = labels[code]
            if label in self._segments or len(self._segments) < self._limit:
                groups[code] = self._segments.setdefault(label, len(self._segments))
            else:
                self._has_more = True
        return groups[codes]

    def result(self, reasons: Reasons) -> VersionEvaluation:
        """Return the results for all rows that were added. Raises InvalidInput if there are none."""
        if not self._rows:
            raise InvalidInput("The file has no rows. Expected rows with their targets.")
        targets = self._model.targets
        segments, other = self._most_frequent()
        if self._by_segment is not None:
            self._sums = self._by_segment.united([*self._segments.values(), self._limit])
        return VersionEvaluation(
            version=self._version.card.version,
            rows=self._rows,
            left_out=LeftOut(self._unused, dict(+reasons.gaps), dict(+reasons.unseen), self._zero_weight),
            targets=self._metrics(self._sums, 0),
            calibration={target: each.deciles() for target, each in zip(targets, self._calibrations, strict=True)},
            calibration_is_exact=all(calibration.is_exact for calibration in self._calibrations),
            segments=segments,
            other=other,
            unavailable=self._unavailable(),
        )

    def _metrics(self, sums: ErrorSums, group: int) -> dict[str, Metrics]:
        return {target: sums.metrics(group, index) for index, target in enumerate(self._model.targets)}

    def _most_frequent(self) -> tuple[list[Segment] | None, OtherSegments | None]:
        sums = self._by_segment
        if sums is None:
            return None, None
        rows = sums.rows.max(axis=1)
        known = sorted(self._segments.items(), key=lambda item: -rows[item[1]])
        first, rest = known[:MAX_SEGMENTS], [group for _, group in known[MAX_SEGMENTS:]]
        segments = [Segment(label, self._metrics(sums, group)) for label, group in first]
        if not rest and not self._has_more:
            return segments, None
        union = sums.united([*rest, self._limit])
        return segments, OtherSegments(len(rest), self._has_more, self._metrics(union, 0))

    def _unavailable(self) -> dict[str, str]:
        reasons: dict[str, str] = {}
        for index, target in enumerate(self._model.targets):
            own = self._sums.unavailable(0, index)
            metrics = self._sums.metrics(0, index)
            if not metrics.interval_rows and metrics.rows:
                own |= dict.fromkeys(INTERVAL_METRICS, self._no_intervals or OUTSIDE_SPAN)
            reasons |= {f"{target}.{name}": reason for name, reason in own.items()}
        return reasons


def check_columns(version: Version, options: EvaluationOptions) -> None:
    """Raise InvalidInput if the options name columns that cannot be used in this way."""
    weight = options.table.weights
    if weight is None:
        return
    known = version.table.column(weight)
    if weight in version.card.targets or (known is not None and known.kind != "number"):
        message = f"{shown(weight)} is not a column of weights. Expected a column of numbers that is not a target."
        raise InvalidInput.of_parameter("weight", message)
