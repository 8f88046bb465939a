"""Counters for Prometheus, summed over all web workers."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Metrics:
    """Series are named by route, never by what a caller sent, so that input cannot multiply them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_files_of_the_dead(folder)
        # prometheus_client decides at its import whether values live in files that the workers share.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        from prometheus_client import CollectorRegistry, Counter, Histogram, multiprocess

        self._folder = folder
        self._collector = CollectorRegistry()
        multiprocess.MultiProcessCollector(self._collector, path=str(folder))  # type: ignore[no-untyped-call]
        own = CollectorRegistry()
        self._requests = Counter("linserve_requests", "Requests answered.", ["method", "route", "status"], registry=own)
        self._seconds = Histogram(
            "linserve_request_seconds", "Time to answer.", ["route"], buckets=BUCKETS, registry=own
        )
        self._rows = Counter("linserve_predicted_rows", "Rows predicted.", registry=own)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def predicted(self, rows: int) -> None:
        self._rows.inc(rows)

    def text(self) -> bytes:
        from prometheus_client import generate_latest

        text: bytes = generate_latest(self._collector)
        return text


def _remove_files_of_the_dead(folder: Path) -> None:
    """Start from zero where no worker of an earlier run is alive; a respawned worker leaves its siblings' counts."""
    files = {path: path.stem.rpartition("_")[2] for path in folder.glob("*.db")}
    if any(os.path.exists(f"/proc/{pid}") for pid in files.values() if pid != str(os.getpid())):  # noqa: PTH110
        return
    for path in files:
        path.unlink(missing_ok=True)
