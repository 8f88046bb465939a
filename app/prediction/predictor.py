"""Predictions of one version, and where to compute them.

Every wire format, every table and the route use the same predictor and the same thresholds.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from enum import Enum, auto
from operator import gt
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from app.errors import PredictionTooLarge
from app.prediction.missing_rows import CompleteRows, Reasons
from app.prediction.query import PredictionQuery
from app.registry.origin import WITHOUT_STATISTICS
from app.registry.version_file import Version
from app.regression import errors
from app.regression.linear_model import Extrapolation
from app.regression.sufficient_statistics import Array
from app.storage.memory_budget import LARGE_BODY

# Multiplications of a value and a coefficient above which a prediction would delay other requests by milliseconds.
MAX_INLINE_MULTIPLIES = 20_000
# Bytes of a response above which it takes as much time and memory as decoding a large body.
LARGE_RESPONSE = 1 << 22
NO_REASONS = Reasons()


class Executor(Enum):
    """The thread that computes a prediction."""

    INLINE = auto()  # On the event loop.
    THREAD = auto()
    TURN = auto()  # In a thread, after waiting for one of the few turns for long requests.


class Workload(NamedTuple):
    """Measures of a prediction's work. A measure that is not known yet is 0."""

    body_bytes: int = 0  # Bytes of JSON, or of a table, that have to be decoded.
    multiplies: int = 0  # Multiplications of a value and a coefficient.
    response_bytes: int = 0  # Approximate bytes of a JSON response.
    slow_options: int = 0  # 1 if an option may decompose a design, which takes seconds for thousands of features.
    tables: int = 0  # 1 if the rows or the results are a table.


# Largest workloads that are computed inline, and without a turn.
INLINE = Workload(LARGE_BODY, MAX_INLINE_MULTIPLIES, LARGE_RESPONSE)
WITHOUT_TURN = Workload(LARGE_BODY, sys.maxsize, LARGE_RESPONSE, 1, 1)


def choose_executor(workload: Workload) -> Executor:
    """Return where to compute a prediction, by the measure that demands most."""
    if any(map(gt, workload, WITHOUT_TURN)):
        return Executor.TURN
    return Executor.THREAD if any(map(gt, workload, INLINE)) else Executor.INLINE


class PredictionResult(NamedTuple):
    """Results for n rows, k targets and p columns of the model. A row with a missing value has NaN in each array."""

    version: Version
    are_objects: bool  # True if the rows were objects.
    rows: CompleteRows
    predictions: Array  # (n, k)
    intervals: Array | None = None  # (n, k, 2); also NaN for a row outside the space that the training rows span.
    confidence_intervals: Array | None = None  # (n, k, 2), as `intervals`.
    contributions: Array | None = None  # (n, k, p)
    extrapolation: Extrapolation | None = None  # Flags of the complete rows.
    reasons: Reasons = NO_REASONS  # Why rows of JSON have no results.
    unavailable: Mapping[str, str] = MappingProxyType({})  # Reasons for requested arrays that are None, by name.


class _Results(NamedTuple):
    """Results for complete rows."""

    predictions: Array
    intervals: Array | None
    confidence_intervals: Array | None
    contributions: Array | None
    extrapolation: Extrapolation | None


class Observer(Protocol):
    """Is told of predictions, for monitoring."""

    def note(self, version: Version, rows: Array) -> None:
        """Note encoded rows, (n, features), that were predicted."""

    def note_missing(self, version: Version, gaps: Mapping[str, int], unseen: Mapping[str, int]) -> None:
        """Note the numbers of gaps and of unseen levels, by feature, for which rows have no results."""


class Predictor:
    """Predicts with one version."""

    def __init__(self, version: Version, observer: Observer | None = None) -> None:
        self._version = version
        self._observer = observer

    def predict(self, query: PredictionQuery) -> PredictionResult:
        """Compute what the query asks for.

        Raises InvalidInput with the place of each wrong value.
        Raises PredictionTooLarge if a result leaves the range of 64-bit numbers.
        """
        (codes, unseen), weights = query.arrays(self._version)
        rows = CompleteRows.of(codes, weights)
        complete = None if weights is None else rows.take(weights)
        try:
            results = self._results(query, rows.take(codes), complete)
        except errors.PredictionTooLarge as error:
            raise PredictionTooLarge(rows.index(error.row), query.pointer) from None
        reasons = NO_REASONS
        if rows.missing and not isinstance(query.rows, np.ndarray):  # Those of a table have been counted.
            reasons = Reasons()
            reasons.add(codes, self._version.encoder.names, unseen)
            if self._observer is not None:
                self._observer.note_missing(self._version, +reasons.gaps, reasons.unseen)
            if weights is not None:
                reasons.add(weights[:, np.newaxis], ["instance_weights"])
        return PredictionResult(
            self._version,
            query.are_objects,
            rows,
            rows.spread(results.predictions),
            rows.spread_optional(results.intervals),
            rows.spread_optional(results.confidence_intervals),
            rows.spread_optional(results.contributions),
            extrapolation=results.extrapolation,
            reasons=reasons,
            unavailable=dict(self._unavailable(query)),
        )

    def _unavailable(self, query: PredictionQuery) -> Iterator[tuple[str, str]]:
        """Yield the name of each array that is asked for and not possible, and the reason."""
        model, options = self._version.model, query.options
        if model.inference_unavailable is not None:
            levels = {"intervals": options.interval, "confidence_intervals": options.confidence}
            yield from ((name, model.inference_unavailable) for name, level in levels.items() if level is not None)
        if options.extrapolation and not model.has_statistics:
            yield "extrapolation", WITHOUT_STATISTICS

    def _results(self, query: PredictionQuery, codes: Array, weights: Array | None) -> _Results:
        """Return the results for complete rows. The columns of the design are made for some rows at a time.

        Raises errors.PredictionTooLarge with the first row among them.
        """
        size = query.rows_at_once(self._version)
        if len(codes) <= size:
            return self._results_for(query, query.design(codes, self._version), weights)
        parts = []
        for start in range(0, len(codes), size):
            x, own = query.design(codes[start : start + size], self._version), None
            if weights is not None:
                own = weights[start : start + size]
            try:
                parts.append(self._results_for(query, x, own))
            except errors.PredictionTooLarge as error:
                raise errors.PredictionTooLarge(start + error.row) from None
        return _Results(*map(_joined, zip(*parts, strict=True)))

    def _results_for(self, query: PredictionQuery, x: Array, weights: Array | None) -> _Results:
        model, options = self._version.model, query.options
        predictions = model.predict(x)
        if self._observer is not None:
            self._observer.note(self._version, x)
        intervals = confidence_intervals = None
        if model.inference_unavailable is None:
            if options.interval is not None:
                intervals = model.interval(x, options.interval, observation_weights=weights)
            if options.confidence is not None:
                confidence_intervals = model.interval(x, options.confidence, of_mean=True)
        contributions = model.contributions(x) if options.explain else None
        extrapolation = model.extrapolation(x) if options.extrapolation and model.has_statistics else None
        return _Results(predictions, intervals, confidence_intervals, contributions, extrapolation)


def _joined(parts: Sequence[Any]) -> Any:
    """Return the results for all rows, of one kind, from those for some rows each."""
    if isinstance(parts[0], Extrapolation):
        names = [field.name for field in fields(Extrapolation)]
        return Extrapolation(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    return None if parts[0] is None else np.concatenate(parts)
