"""Shadows: versions that predict too, and whose predictions are compared with those that were returned.

A shadow predicts in one thread, after the response was made. The work of that thread is limited, and none of its errors
reaches a client.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from app.errors import LinserveError
from app.monitoring.monitor import Monitor
from app.monitoring.split_counts import MAX_TARGETS, Differences, SplitCounts
from app.prediction.query import PredictionQuery
from app.prediction.shadow import differences
from app.registry.base import ModelReader
from app.registry.splits import Split
from app.registry.version_file import Version
from app.regression.sufficient_statistics import Array

MAX_WAITING = 32  # Requests whose rows wait for a shadow.
MAX_ROWS = 1000  # Rows of one request that a shadow predicts for.
MAX_VALUES = 1 << 14  # Values in these rows.

_log = logging.getLogger(__name__)


def rows_at_most(version: Version) -> int:
    """Return the number of rows of a request that a shadow predicts for."""
    return max(1, min(MAX_ROWS, MAX_VALUES // max(1, len(version.model.columns))))


class Shadows:
    """Predicts with shadow versions in one thread, and summarises their differences from the responses. Thread-safe."""

    def __init__(self, registry: ModelReader, monitor: Monitor) -> None:
        self._registry, self._monitor = registry, monitor
        self._thread = ThreadPoolExecutor(1, "shadow")
        self._room = threading.BoundedSemaphore(MAX_WAITING)

    def stop(self) -> None:
        """Drop the rows that wait."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def compare(self, split: Split, asked: Version, rows: int, query: PredictionQuery, predictions: Array) -> None:
        """Compare the shadow of `split` with these predictions soon. Beyond the bounds, rows count as skipped."""
        kept = min(len(query.rows), rows_at_most(asked))
        if not self._room.acquire(blocking=False):
            kept = 0
        if rows > kept:
            self._count(asked, SplitCounts(split.identity, skipped=rows - kept))
        if not kept:
            return
        # A slice may be a view of a parser's memory, or of all rows.
        own = query._replace(rows=query.rows[:kept].copy(), weights=None)
        try:
            self._thread.submit(partial(self._compare, split, asked, own, predictions[:kept].copy()))
        except RuntimeError:  # the service stops
            self._room.release()

    def _compare(self, split: Split, asked: Version, query: PredictionQuery, predictions: Array) -> None:
        counts = SplitCounts(split.identity, failed=len(query.rows))
        try:
            assert split.shadow is not None
            shadow = self._registry.version(asked.card.model, split.shadow)
            found = differences(query, predictions, asked, shadow)
            if found is not None:
                targets = dict(list(found.items())[:MAX_TARGETS])
                summaries = {target: Differences.of(values) for target, values in targets.items()}
                compared = max((each.count for each in summaries.values()), default=0)
                counts = SplitCounts(
                    split.identity, compared=compared, failed=len(query.rows) - compared, targets=summaries
                )
        except LinserveError:
            pass  # counted as failed
        except Exception:  # a bug must not end the comparison of other rows
            _log.exception("shadow failed", extra={"model": asked.card.model})
        finally:
            self._room.release()
            self._count(asked, counts)

    def _count(self, asked: Version, counts: SplitCounts) -> None:
        self._monitor.count_split(asked.card.model, counts)
