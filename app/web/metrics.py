"""Counters for Prometheus, summed over all web workers."""

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.jobs.host.cpu_affinity import PredictionActivity
from app.monitoring.history import Requests

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram
    from prometheus_client.core import Metric

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
# Seconds between the end of a request and the write of its count.
WRITE_SECONDS = 0.25
MAX_MODELS = 20  # Models with series of their own; all others share one.
OTHER_MODELS = "(other)"  # which no model can be called
# Free bytes that a folder for the counters must have.
MIN_FREE_BYTES = 4 << 20


@dataclass(slots=True, eq=False)
class _Series:
    """The counters of one method, route and status, and the counts that are not yet written to them."""

    requests: "Counter"
    seconds: "Histogram"
    pending: int = 0
    pending_seconds: float = 0.0
    pending_in_buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))


class Metrics:
    """Counters by route, never by what a client sends, so that requests cannot create series.

    Requests are counted in memory and written together every WRITE_SECONDS. Writing each count separately would take
    as long as the prediction.
    """

    def __init__(
        self,
        service: Path,
        traffic: PredictionActivity,
        trainer_seen: Path,
        protocols: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Share the counters with all workers of the service whose state folder is `service`.

        The trainer touches the file `trainer_seen` every few seconds. `protocols` are the wire formats of predictions,
        by route. Raises OSError if there is no space for the counters.
        """
        folder = _shared_folder(service)
        _remove_files_of_dead_workers(folder)
        # prometheus_client decides at its import whether values are in files that the workers share.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        from prometheus_client import CollectorRegistry, Counter, Histogram, multiprocess

        self._traffic = traffic
        self._protocols = protocols
        self._trainer_seen = trainer_seen
        self._collector = CollectorRegistry()
        multiprocess.MultiProcessCollector(self._collector, path=str(folder))  # type: ignore[no-untyped-call]
        own = CollectorRegistry()
        self._requests = Counter(
            "linserve_requests", "Requests answered.", ["method", "route", "protocol", "status"], registry=own
        )
        self._seconds = Histogram(
            "linserve_request_seconds", "Time to answer.", ["route", "protocol"], buckets=BUCKETS, registry=own
        )
        self._rows = Counter("linserve_predicted_rows", "Rows predicted.", registry=own)
        self._model_requests = Counter(
            "linserve_model_requests", "Requests for predictions of a model.", ["model", "result"], registry=own
        )
        self._model_rows = Counter("linserve_model_rows", "Rows predicted by a model.", ["model"], registry=own)
        self._recorded = Counter(
            "linserve_recorded_predictions",
            "Predictions sent with an id, by whether they were recorded.",
            ["recorded"],
            registry=own,
        )
        self._models: set[str] = set()  # models that have series of their own
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._pending_rows: deque[int] = deque()  # rows of predictions in any thread
        self._pending_loop_rows = 0  # rows of predictions on the event loop
        self._writing: asyncio.TimerHandle | None = None

    def answered(self, method: str, route: str, status: int, seconds: float, rows: int = 0) -> None:
        """Count a request, and the predicted rows unless `predicted` counts them. Called on the event loop."""
        self._pending_loop_rows += rows
        series = self._series.get((method, route, status))
        if series is None:
            protocol = self._protocols.get(route, "")
            requests = self._requests.labels(method, route, protocol, str(status))
            self._series[method, route, status] = series = _Series(requests, self._seconds.labels(route, protocol))
        series.pending += 1
        series.pending_seconds += seconds
        series.pending_in_buckets[bisect_left(BUCKETS, seconds)] += 1
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(WRITE_SECONDS, self.write)
            if rows:
                self._traffic.note()  # at once for the first prediction after a pause

    def model_requests(self, model: str, counts: Requests) -> None:
        """Count requests for predictions of a model. Called in any thread."""
        label = model if model in self._models or len(self._models) < MAX_MODELS else OTHER_MODELS
        self._models.add(label)
        if counts.requests - counts.failed:
            self._model_requests.labels(label, "answered").inc(counts.requests - counts.failed)
        if counts.failed:
            self._model_requests.labels(label, "failed").inc(counts.failed)
        if counts.rows:
            self._model_rows.labels(label).inc(counts.rows)

    def predicted(self, rows: int) -> None:
        """Count predicted rows. Called from any thread."""
        self._pending_rows.append(rows)

    def write(self) -> None:
        """Write the pending counts to the shared files. Called on the event loop."""
        self._writing = None
        rows, self._pending_loop_rows = self._pending_loop_rows, 0
        while self._pending_rows:
            rows += self._pending_rows.pop()
        if rows:
            self._rows.inc(rows)
            self._traffic.note()
        for series in self._series.values():
            if not series.pending:
                continue
            series.requests.inc(series.pending)
            # The public interface cannot observe many values at once.
            series.seconds._sum.inc(series.pending_seconds)  # noqa: SLF001
            for bucket, count in enumerate(series.pending_in_buckets):
                if count:
                    series.seconds._buckets[bucket].inc(count)  # noqa: SLF001
                    series.pending_in_buckets[bucket] = 0
            series.pending, series.pending_seconds = 0, 0.0

    def recorded(self, rows: int, *, lost: int = 0) -> None:
        """Count predictions that were to be recorded until their outcomes come. Called in any thread."""
        if rows:
            self._recorded.labels("true").inc(rows)
        if lost:
            self._recorded.labels("false").inc(lost)

    def text(
        self,
        jobs: Mapping[str, int] | None = None,
        trainer_seen: float | None = None,
        others: "Iterable[Metric]" = (),
    ) -> bytes:
        """Return all counters, the numbers of unfinished jobs by status, when a trainer was last seen, and others.

        Without `trainer_seen`, the time is that of the file. Values that are not known are left out.
        """
        from prometheus_client import generate_latest
        from prometheus_client.core import GaugeMetricFamily
        from prometheus_client.registry import Collector

        file = self._trainer_seen

        class Gauges(Collector):
            def collect(self) -> "Iterator[Metric]":
                family = GaugeMetricFamily("linserve_jobs", "Training jobs that have not ended.", labels=["status"])
                for status, count in (jobs or {}).items():
                    family.add_metric([status], count)
                yield family
                with contextlib.suppress(OSError):
                    yield GaugeMetricFamily(
                        "linserve_trainer_seen_timestamp_seconds",
                        "When a trainer last polled its queue, in seconds since 1970.",
                        value=file.stat().st_mtime if trainer_seen is None else trainer_seen,
                    )
                yield from others

        text: bytes = generate_latest(self._collector) + generate_latest(Gauges())
        return text


def _shared_folder(service: Path) -> Path:
    """Return a private folder in memory. On a full disk, a write to a mapped file would kill the process."""
    # Containers can share /dev/shm and use the same path for different state folders, so the path alone is not unique.
    status = service.stat()
    name = hashlib.sha256(f"{service.resolve()} {status.st_dev} {status.st_ino}".encode()).hexdigest()[:16]
    parent = Path("/dev/shm")  # noqa: S108 - a folder in it is used only if it belongs to this user
    if not _has_space(parent):
        parent = Path(tempfile.gettempdir())
        if not _has_space(parent):
            raise OSError(errno.ENOSPC, f"There is no space for metrics in /dev/shm or {parent}")
    folder = parent / f"linserve-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix="linserve-"))
    return folder


def _has_space(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free > MIN_FREE_BYTES


def _remove_files_of_dead_workers(folder: Path) -> None:
    """Start from zero if no other worker is alive. A respawned worker keeps the counts of the others."""
    files = {path: path.stem.rpartition("_")[2] for path in folder.glob("*.db")}
    if any(os.path.exists(f"/proc/{pid}") for pid in files.values() if pid != str(os.getpid())):  # noqa: PTH110
        return
    for path in files:
        path.unlink(missing_ok=True)
