"""Counters for Prometheus, summed over all web workers."""

import asyncio
import errno
import hashlib
import os
import shutil
import tempfile
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from app.jobs.host.cpu_affinity import PredictionActivity

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
WRITE_SECONDS = 0.25
MIN_ROOM = 4 << 20  # bytes


@dataclass(slots=True, eq=False)
class _Series:
    """What is counted of one method, route and status, and what is not yet counted in."""

    requests: "Counter"
    seconds: "Histogram"
    pending: int = 0
    pending_seconds: float = 0.0
    pending_in_buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))


class Metrics:
    """Series are named by route, never by what a caller sent, so that input cannot multiply them.

    A request is counted in memory and written a moment later, with those that came meanwhile: to write each by itself
    costs as much as to answer it.
    """

    def __init__(self, service: Path, traffic: PredictionActivity, trainer_seen: Path) -> None:
        """All workers of one service, known by its state folder, share their counters.

        The trainer touches the file `trainer_seen` every few seconds.
        """
        folder = _shared_memory(service)
        _remove_files_of_the_dead(folder)
        # prometheus_client decides at its import whether values live in files that the workers share.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        from prometheus_client import CollectorRegistry, Counter, Histogram, multiprocess

        self._folder = folder
        self._traffic = traffic
        self._trainer_seen = trainer_seen
        self._collector = CollectorRegistry()
        multiprocess.MultiProcessCollector(self._collector, path=str(folder))  # type: ignore[no-untyped-call]
        own = CollectorRegistry()
        self._requests = Counter("linserve_requests", "Requests answered.", ["method", "route", "status"], registry=own)
        self._seconds = Histogram(
            "linserve_request_seconds", "Time to answer.", ["route"], buckets=BUCKETS, registry=own
        )
        self._rows = Counter("linserve_predicted_rows", "Rows predicted.", registry=own)
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._pending_rows: deque[int] = deque()  # of predictions, in whatever thread they were made
        self._pending_rows_here = 0  # of those made on the event loop
        self._writing: asyncio.TimerHandle | None = None

    def answered(self, method: str, route: str, status: int, seconds: float, rows: int = 0) -> None:
        """Count a request, and the rows it predicted unless `predicted` was told of them."""
        self._pending_rows_here += rows
        series = self._series.get((method, route, status)) or self._begin(method, route, status)
        series.pending += 1
        series.pending_seconds += seconds
        series.pending_in_buckets[bisect_left(BUCKETS, seconds)] += 1
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(WRITE_SECONDS, self.write)
            if rows:
                self._traffic.note()  # the first after a pause is noted at once

    def predicted(self, rows: int) -> None:
        self._pending_rows.append(rows)

    def write(self) -> None:
        """Write what is pending, for other workers to see; on the event loop, as `answered` is."""
        self._writing = None
        rows, self._pending_rows_here = self._pending_rows_here, 0
        while self._pending_rows:
            rows += self._pending_rows.pop()
        if rows:
            self._rows.inc(rows)
            self._traffic.note()
        for series in self._series.values():
            if not series.pending:
                continue
            series.requests.inc(series.pending)
            # There is no way in its interface to observe many values at once.
            series.seconds._sum.inc(series.pending_seconds)  # noqa: SLF001
            for bucket, count in enumerate(series.pending_in_buckets):
                if count:
                    series.seconds._buckets[bucket].inc(count)  # noqa: SLF001
                    series.pending_in_buckets[bucket] = 0
            series.pending, series.pending_seconds = 0, 0.0

    def text(self, jobs: Mapping[str, int] | None = None) -> bytes:
        """All that is counted, how many jobs there are of each status that has not ended, and when a trainer was seen.

        What is not known is left out.
        """
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.core import GaugeMetricFamily
        from prometheus_client.registry import Collector

        class Jobs(Collector):
            def collect(self) -> list[GaugeMetricFamily]:
                family = GaugeMetricFamily("linserve_jobs", "Training jobs that have not ended.", labels=["status"])
                for status, count in (jobs or {}).items():
                    family.add_metric([status], count)
                return [family]

        trainer_seen = self._trainer_seen

        class Trainer(Collector):
            def collect(self) -> list[GaugeMetricFamily]:
                try:
                    seen = trainer_seen.stat().st_mtime
                except OSError:
                    return []
                described = "When a trainer last worked at its queue, in seconds since 1970."
                return [GaugeMetricFamily("linserve_trainer_seen_timestamp_seconds", described, value=seen)]

        now = CollectorRegistry()
        now.register(Jobs())
        now.register(Trainer())
        text: bytes = generate_latest(self._collector) + generate_latest(now)
        return text

    def _begin(self, method: str, route: str, status: int) -> _Series:
        requests = self._requests.labels(method, route, str(status))
        self._series[method, route, status] = series = _Series(requests, self._seconds.labels(route))
        return series


def _shared_memory(service: Path) -> Path:
    """A folder of ours in memory: on a full disk, writing to a mapped file would kill the process."""
    # Containers may share the memory, and then all have one path for different folders.
    found = service.stat()
    name = hashlib.sha256(f"{service.resolve()} {found.st_dev} {found.st_ino}".encode()).hexdigest()[:16]
    parent = Path("/dev/shm")  # noqa: S108 - the folder in it is ours alone, or it is not used
    if not _has_room(parent):
        parent = Path(tempfile.gettempdir())
        if not _has_room(parent):
            raise OSError(errno.ENOSPC, f"There is no room for metrics in /dev/shm or {parent}")
    folder = parent / f"linserve-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix="linserve-"))
    return folder


def _has_room(folder: Path) -> bool:
    """Whether a file can grow there. Without room, writing to a mapped file would kill the process too."""
    return folder.is_dir() and shutil.disk_usage(folder).free > MIN_ROOM


def _remove_files_of_the_dead(folder: Path) -> None:
    """Start from zero where no worker of an earlier run is alive; a respawned worker leaves its siblings' counts."""
    files = {path: path.stem.rpartition("_")[2] for path in folder.glob("*.db")}
    if any(os.path.exists(f"/proc/{pid}") for pid in files.values() if pid != str(os.getpid())):  # noqa: PTH110
        return
    for path in files:
        path.unlink(missing_ok=True)
