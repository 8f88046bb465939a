"""Gauges for Prometheus about models in use: version, drift and rolling error, over all workers and replicas.

The number of series is bounded: MAX_MODELS models, their current versions only, and MAX_NAMES columns, categories and
targets of each.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from app.errors import NotFound, Unavailable
from app.monitoring.comparison import Drift
from app.monitoring.monitor import Monitor
from app.monitoring.outcomes.outcomes import Outcomes
from app.registry.base import ModelReader
from app.registry.version_file import Version
from app.web.windows import DAY

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MAX_MODELS = 20
MAX_NAMES = 50
MAX_LABEL = 100  # Characters of a label.
SECONDS = 5.0  # Time for which the values are kept, however often they are read.
DRIFT_SECONDS, OUTCOME_SECONDS = DAY, 7 * DAY

_MODEL = ("model",)
# The names of the gauges, their help and their labels.
GAUGES = {
    "linserve_model_version": ("Number of the current version.", _MODEL),
    "linserve_model_created_timestamp_seconds": ("When the current version was trained.", _MODEL),
    "linserve_drift_rows": ("Rows served in 24 h that were summarised.", _MODEL),
    "linserve_drift_predicted_rows": ("Rows served in 24 h.", _MODEL),
    "linserve_drift_extrapolated_ratio": ("Share of rows served in 24 h that are flagged as extrapolation.", _MODEL),
    "linserve_drift_detected": ("1 if rows served in 24 h have drifted, 0 if not; none if there are too few.", _MODEL),
    "linserve_drift_names": ("Number of columns and categories that have drifted.", _MODEL),
    "linserve_drift_covariance_distance": ("Distance of the served covariance from training.", _MODEL),
    "linserve_drift_largest_mean_difference": ("Largest difference of a mean, in training deviations.", _MODEL),
    "linserve_drift_mean_difference": ("Served mean minus training mean, in training deviations.", ("model", "column")),
    "linserve_drift_stability_index": ("Population stability index of levels.", ("model", "feature")),
    "linserve_outcome_rows": ("Predictions of 7 days with an outcome.", ("model", "target")),
    "linserve_outcome_rmse": ("Root mean squared error of predictions of 7 days.", ("model", "target")),
    "linserve_outcome_bias": ("Mean error of predictions of 7 days.", ("model", "target")),
    "linserve_outcome_coverage_ratio": ("Share of outcomes within the 95 % interval.", ("model", "target")),
    "linserve_actuals_bytes": ("Space that recorded predictions take.", ()),
    "linserve_actuals_max_bytes": ("Space that recorded predictions may take.", ()),
    "linserve_actuals": ("Recorded predictions, by what became of them.", ("state",)),
}


T = TypeVar("T")


class Sample(NamedTuple):
    """One value of a gauge."""

    gauge: str
    labels: tuple[str, ...]
    value: float


class ModelGauges:
    """Reads the gauges of the models in use. Thread-safe. It may wait for the storage."""

    def __init__(self, registry: ModelReader, monitor: Monitor, outcomes: Outcomes, default_model: str) -> None:
        self._registry, self._monitor, self._outcomes = registry, monitor, outcomes
        self._default_model = default_model
        self._reading = threading.Lock()
        self._read_at = -SECONDS
        self._samples: list[Sample] = []

    def families(self) -> "Iterator[Metric]":
        """Yield all gauges. One without a value has only its description."""
        from prometheus_client.core import GaugeMetricFamily

        with self._reading:
            now = time.monotonic()
            if now - self._read_at >= SECONDS:
                self._samples, self._read_at = list(self._read()), now
            samples = self._samples
        for name, (description, labels) in GAUGES.items():
            family = GaugeMetricFamily(name, description, labels=labels)
            for sample in samples:
                if sample.gauge == name:
                    family.add_metric(sample.labels, sample.value)
            yield family

    def _read(self) -> Iterator[Sample]:
        models = [self._default_model, *(name for name in self._monitor.models() if name != self._default_model)]
        for model in models[:MAX_MODELS]:
            with contextlib.suppress(NotFound, Unavailable):
                version = self._registry.current(model)
                yield from _of_version(model, version)
                yield from _of_drift(model, self._monitor.drift(version, DRIFT_SECONDS))
                yield from self._of_outcomes(model, version)
        with contextlib.suppress(Unavailable):
            usage = self._outcomes.usage()
            yield Sample("linserve_actuals_bytes", (), usage.bytes)
            yield Sample("linserve_actuals_max_bytes", (), usage.max_bytes)
            for state in ("waiting", "matched", "removed"):
                yield Sample("linserve_actuals", (state,), getattr(usage, state))

    def _of_outcomes(self, model: str, version: Version) -> Iterator[Sample]:
        found = self._outcomes.rolling(model, OUTCOME_SECONDS).get(version.card.version)
        if found is None:
            return
        for target, error in _labelled(found.targets.items()):
            values = {
                "linserve_outcome_rows": error["rows"],
                "linserve_outcome_rmse": error["rmse"],
                "linserve_outcome_bias": error["bias"],
                "linserve_outcome_coverage_ratio": error["interval_coverage"],
            }
            for gauge, value in values.items():
                if value is not None:
                    yield Sample(gauge, (model, target), value)


def _of_version(model: str, version: Version) -> Iterator[Sample]:
    yield Sample("linserve_model_version", (model,), version.card.version)
    created = datetime.fromisoformat(version.card.created_at).timestamp()
    yield Sample("linserve_model_created_timestamp_seconds", (model,), created)


def _of_drift(model: str, drift: Drift) -> Iterator[Sample]:
    differences = {
        name: column.standardised_mean_difference
        for name, column in drift.columns.items()
        if column.standardised_mean_difference is not None
    }
    values = {
        "linserve_drift_rows": drift.rows,
        "linserve_drift_predicted_rows": drift.predicted_rows,
        "linserve_drift_extrapolated_ratio": drift.extrapolated,
        "linserve_drift_detected": drift.verdict == "drifted" if drift.verdict in ("drifted", "stable") else None,
        "linserve_drift_names": len(drift.drifted),
        "linserve_drift_covariance_distance": drift.covariance_distance,
        "linserve_drift_largest_mean_difference": max(map(abs, differences.values()), default=None),
    }
    for gauge, value in values.items():
        if value is not None:
            yield Sample(gauge, (model,), float(value))
    for name, difference in _labelled(differences.items()):
        yield Sample("linserve_drift_mean_difference", (model, name), difference)
    for name, category in _labelled(drift.categories.items()):
        yield Sample("linserve_drift_stability_index", (model, name), category.psi)


def _labelled(items: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Yield the first MAX_NAMES values by names that are valid as labels, and distinct when they are cut."""
    seen: set[str] = set()
    for name, value in items:
        label = name[:MAX_LABEL].encode("utf-8", "replace").decode()
        if label not in seen:
            seen.add(label)
            yield label, value
        if len(seen) >= MAX_NAMES:
            return
