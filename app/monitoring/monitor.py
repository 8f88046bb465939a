"""Monitor: the requests and the served rows of versions, summed over all workers.

A thread computes the sums, so that predictions do not wait.

A prediction leaves its rows in a tap. Every FLUSH_SECONDS, a thread summarises them. Every few seconds it writes the
summary for the other workers. A worker that is killed loses what it has not written, at most one of these intervals.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.errors import NotFound, Unavailable
from app.monitoring.comparison import Drift, compare
from app.monitoring.history import MINUTES, History, Requests, VersionKey, merged
from app.monitoring.served_rows import ServedRows, Summariser
from app.monitoring.shared_histories import SharedHistories
from app.monitoring.split_counts import SplitCounts, include
from app.monitoring.taps import Rows, Sample, Tap
from app.registry.base import ModelReader
from app.registry.version_file import Version
from app.storage.store import Store

FLUSH_SECONDS = 0.5
SWEEP_SECONDS = 3600.0  # Seconds between two removals of what has aged out.
STOP_SECONDS = 2.0  # Longest wait for the last write, when the worker stops.
MAX_TAPS = 20  # Versions whose rows are summarised per flush.
MAX_MODELS = 100  # Models whose requests are counted per flush.
MAX_LOOKUPS = 10  # Models per flush that are looked up after failed requests, because clients can send any name.
HOUR = 3600.0

# Called with the name of a model and its requests since the last call. Called in a thread.
OnRequests = Callable[[str, Requests], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Traffic:
    """Requests for a model's predictions in the last hour, over all workers. Failed requests count as requests too."""

    requests: int
    failed: int
    rows: int
    requests_by_minute: tuple[int, ...]  # oldest first


class Monitor:
    """Summarises the rows that this worker predicts for, and reads the summaries of all workers. Thread-safe.

    `drift`, `traffic`, `traffic_of` and `models` may read the files of other workers.
    """

    def __init__(
        self,
        registry: ModelReader,
        folder: Path,
        store: Store | None = None,
        on_requests: OnRequests = lambda _model, _counts: None,
    ) -> None:
        """Share summaries in `store`, or in `folder` if there is none. `registry` knows which models exist."""
        self._registry = registry
        self._on_requests = on_requests
        self._shared = SharedHistories(folder, store)
        self._history = History()
        self._loop_taps: list[Tap] = []  # the last one is in use
        self._noting = threading.Lock()
        self._samples: dict[VersionKey, Sample] = {}
        self._random = np.random.default_rng()
        self._missing: dict[VersionKey, tuple[Counter[str], Counter[str]]] = {}
        self._answered: dict[str, Requests] = {}
        self._splits: dict[str, SplitCounts] = {}
        self._summarisers: dict[VersionKey, Summariser] = {}
        self._flushing = threading.Lock()  # held by the thread that changes or reads the history
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._changed = False

    def start(self) -> None:
        """Start the thread that flushes and writes."""
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what was served, and end the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def tap(self, version: Version) -> Tap:
        """Return a tap for the event loop's predictions of the default model, in place of the one before."""
        tap = Tap(version)
        self._loop_taps.append(tap)
        return tap

    def note(self, version: Version, rows: Rows) -> None:
        """Note encoded rows, (n, features), of which predictions were made. The request is counted by `answered`."""
        if not len(rows):
            return
        key = VersionKey.of(version)
        with self._noting:
            sample = self._samples.get(key)
            if sample is None:
                if len(self._samples) >= MAX_TAPS:
                    return
                sample = self._samples[key] = Sample(version, self._random)
            sample.note(rows, len(rows))

    def note_missing(self, version: Version, gaps: Mapping[str, int], unseen: Mapping[str, int]) -> None:
        """Note the numbers of gaps and of unknown levels, by feature, for which rows got no prediction."""
        key = VersionKey.of(version)
        with self._noting:
            if key in self._missing or len(self._missing) < MAX_TAPS:
                all_gaps, all_unseen = self._missing.setdefault(key, (Counter(), Counter()))
                all_gaps.update(gaps)
                all_unseen.update(unseen)

    def answered(self, model: str, *, failed: bool) -> None:
        """Count a request for predictions of a model, which need not exist."""
        with self._noting:
            counts = self._answered.get(model)
            if counts is None:
                if len(self._answered) >= MAX_MODELS:
                    return
                counts = self._answered[model] = Requests()
            counts.requests += 1
            counts.failed += failed

    def count_split(self, model: str, counts: SplitCounts) -> None:
        """Add counts of the split of a model that exists."""
        with self._noting:
            if model in self._splits or len(self._splits) < MAX_MODELS:
                include(self._splits, {model: counts})

    def split(self, model: str, identity: str) -> SplitCounts:
        """Return the counts of the split of a model with this identity, over all workers."""
        found: dict[str, SplitCounts] = {model: SplitCounts(identity)}
        for history in self._histories():
            counts = history.splits.get(model)
            if counts is not None and counts.identity == identity:
                include(found, {model: counts})
        return found[model]

    def drift(self, version: Version, window_seconds: float) -> Drift:
        """Return the drift of the rows that were served in the last `window_seconds`, over all workers."""
        key, since = VersionKey.of(version), time.time() - window_seconds
        return compare(version, merged(each.rows_since(key, since) for each in self._histories()), window_seconds)

    def traffic(self, model: str) -> Traffic:
        """Return the requests for a model in the last hour, over all workers."""
        return self.traffic_of([model])[model]

    def traffic_of(self, models: Iterable[str]) -> dict[str, Traffic]:
        """Return the requests for each of these models in the last hour, over all workers."""
        histories = self._histories()
        return {model: _traffic(model, histories) for model in models}

    def models(self) -> list[str]:
        """Return the models that had requests in the last hour, over all workers, those with most requests first."""
        oldest = int(time.time()) // 60 - MINUTES
        counts: Counter[str] = Counter()
        for history in self._histories():
            for model, minutes in history.requests.items():
                counts[model] += sum(each.requests for minute, each in minutes.items() if minute > oldest)
        return [model for model, _ in counts.most_common()]

    def flush(self) -> None:
        """Summarise the rows that were served since the last flush."""
        with self._flushing:
            self._flush(time.time())

    def _histories(self) -> list[History]:
        """Return the histories of all workers. This worker's is up to date, and is copied."""
        while True:
            has_slot, others = self._shared.has_slot, self._shared.others()
            with self._flushing:
                if has_slot == self._shared.has_slot:  # else a history has just moved from the others to this one
                    now = time.time()
                    self._flush(now)
                    own = History()
                    own.include(self._history, now)
                    return [own, *others]

    def _run(self) -> None:
        write_at = sweep_at = time.monotonic() + self._shared.write_seconds
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(FLUSH_SECONDS)
            try:
                self.flush()
                if not is_last:
                    self._shared.poll()
                now = time.monotonic()
                if is_last or now >= write_at:
                    write_at = now + self._shared.write_seconds
                    self._write()
                if now >= sweep_at:
                    sweep_at = now + SWEEP_SECONDS
                    self._shared.sweep()
            except Exception:  # a bug must not end the thread, because the taps would then stay full
                _log.exception("served rows not summarised")
        self._shared.close()

    def _write(self) -> None:
        """Write the history, and first include the one that the worker before left."""
        if not self._changed:
            return
        slot = None if self._shared.has_slot else self._shared.find_slot()
        with self._flushing:
            if slot is not None:
                self._shared.take(slot)
                self._history.include(slot.history, time.time())
            self._history.compact(time.time())
            content = History()
            content.include(self._history, time.time())
            self._changed = False
        if not self._shared.write(content):
            self._changed = True

    def _flush(self, now: float) -> None:
        taps = self._loop_taps[:]
        with self._noting:
            samples, self._samples = self._samples, {}
            missing, self._missing = self._missing, {}
            answered, self._answered = self._answered, {}
            splits, self._splits = self._splits, {}
        served: dict[VersionKey, ServedRows] = {}
        collected = []
        for tap in taps:
            requests, count, rows = tap.collect()
            if requests:
                answered.setdefault(tap.version.card.model, Requests()).requests += requests
            collected.append((tap.version, count, rows))
        collected += [(sample.version, *sample.collect()) for sample in samples.values()]
        for version, count, rows in collected:
            if not count:
                continue
            key = VersionKey.of(version)
            answered.setdefault(key.model, Requests()).rows += count
            has_rows = version.card.has_rows  # Otherwise there is nothing to compare served rows with.
            found = self._summariser(key, version).summarise(rows, count) if has_rows else ServedRows(count)
            served[key] = found.merge(served[key]) if key in served else found
        del self._loop_taps[: len(taps) - 1]
        for key, (gaps, unseen) in missing.items():
            found = ServedRows(gaps=gaps, unseen=unseen)
            served[key] = found.merge(served[key]) if key in served else found
        for key, rows_served in served.items():
            self._history.add(key, rows_served, now)
        self._count(answered, {key.model for key in served}, now)
        self._history.count_splits(splits)
        self._changed = self._changed or bool(served or answered or splits)

    def _summariser(self, key: VersionKey, version: Version) -> Summariser:
        summariser = self._summarisers.pop(key, None) or Summariser(version)
        self._summarisers[key] = summariser
        while len(self._summarisers) > MAX_TAPS:
            del self._summarisers[next(iter(self._summarisers))]
        return summariser

    def _count(self, answered: dict[str, Requests], predicted: set[str], now: float) -> None:
        """Count requests for models that exist. Clients can send any name."""
        lookups = 0
        for model, counts in answered.items():
            if model not in predicted and model not in self._history.requests:
                lookups += 1
                if lookups > MAX_LOOKUPS or not self._exists(model):
                    continue
            self._history.count(model, counts, now)
            self._on_requests(model, counts)

    def _exists(self, model: str) -> bool:
        try:
            return bool(self._registry.versions(model))
        except (NotFound, Unavailable):
            return False


def _traffic(model: str, histories: Iterable[History]) -> Traffic:
    last = int(time.time()) // 60
    total, by_minute = Requests(), [0] * MINUTES
    for history in histories:
        for minute, counts in history.requests.get(model, {}).items():
            if last - MINUTES < minute <= last:
                total.add(counts)
                by_minute[minute - last + MINUTES - 1] += counts.requests
    return Traffic(total.requests, total.failed, total.rows, tuple(by_minute))
