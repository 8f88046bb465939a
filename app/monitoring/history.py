"""Histories: summaries in buckets of time, which become longer with their age, and requests by minute."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from app.monitoring.served_rows import ServedRows
from app.monitoring.split_counts import SplitCounts, include
from app.registry.version_file import Version

MAX_VERSIONS = 20  # Versions in a history. The least recently used one is removed.
MAX_MODELS = 100  # Models whose requests are counted. The least recently used one is removed.
# Bytes of all summaries. If there are more, the oldest lose their cross products. If that is not enough, the oldest
# versions are removed.
MAX_BYTES = 4 << 20
MINUTE, HOUR, DAY = 60, 3600, 86_400
MINUTES = 60  # Minutes for which requests are counted.


class Tier(NamedTuple):
    """Buckets of one length, in seconds, and the age at which they are merged into the next tier."""

    seconds: int
    until: int


# Windows of 2 hours and of a day are in buckets of the first and second tier. These are kept for one bucket of the next
# tier longer, so that such a window never touches one.
TIERS = (Tier(5 * MINUTE, 3 * HOUR), Tier(HOUR, 30 * HOUR), Tier(6 * HOUR, 7 * DAY + 6 * HOUR))


class VersionKey(NamedTuple):
    """Names a version. A model that was deleted and trained anew may have the same numbers, so the time is part."""

    model: str
    version: int
    created_at: str

    @classmethod
    def of(cls, version: Version) -> "VersionKey":
        return cls(version.card.model, version.card.version, version.card.created_at)


class Bucket(NamedTuple):
    """The start of a bucket, in seconds since 1970, and its length."""

    start: int
    seconds: int

    @property
    def end(self) -> int:
        return self.start + self.seconds


@dataclass
class Requests:
    """Counts of requests for a model. A request that failed counts as a request too."""

    requests: int = 0
    failed: int = 0
    rows: int = 0

    def add(self, other: "Requests") -> None:
        self.requests += other.requests
        self.failed += other.failed
        self.rows += other.rows


@dataclass(eq=False)
class History:
    """The requests and summaries of one worker. The versions, models, buckets and bytes are limited."""

    versions: dict[VersionKey, dict[Bucket, ServedRows]] = field(default_factory=dict)
    requests: dict[str, dict[int, Requests]] = field(default_factory=dict)  # by model, then by minute since 1970
    splits: dict[str, SplitCounts] = field(default_factory=dict)  # of the last split of each model

    def add(self, key: VersionKey, served: ServedRows, now: float) -> None:
        """Add rows that were served just now."""
        buckets = self.versions.pop(key, {})
        self.versions[key] = buckets  # the last one is the one that was used last
        seconds = TIERS[0].seconds
        _merge_into(buckets, Bucket(int(now) // seconds * seconds, seconds), served)
        self._bound_numbers()

    def count(self, model: str, counts: Requests, now: float) -> None:
        """Add requests that were answered just now."""
        minutes = self.requests.pop(model, {})
        self.requests[model] = minutes
        minutes.setdefault(int(now) // MINUTE, Requests()).add(counts)
        self._bound_numbers()

    def count_splits(self, counts: Mapping[str, SplitCounts]) -> None:
        """Add what the versions of splits answered just now."""
        for model in counts:
            if model in self.splits:
                self.splits[model] = self.splits.pop(model)  # the last one is the one that was used last
        include(self.splits, counts)
        self._bound_numbers()

    def include(self, other: "History", now: float) -> None:
        """Add everything in another history, which is not changed."""
        for key, buckets in other.versions.items():
            own = self.versions.setdefault(key, {})
            for bucket, served in buckets.items():
                _merge_into(own, bucket, served)
        for model, minutes in other.requests.items():
            counted = self.requests.setdefault(model, {})
            for minute, counts in minutes.items():
                counted.setdefault(minute, Requests()).add(counts)
        include(self.splits, other.splits)
        self.compact(now)

    def compact(self, now: float) -> None:
        """Merge old buckets into longer ones, and remove what is too old or exceeds a limit."""
        for key, buckets in list(self.versions.items()):
            for tier, longer in zip(TIERS, (*TIERS[1:], None), strict=True):
                for bucket in [
                    each for each in buckets if each.seconds == tier.seconds and each.end <= now - tier.until
                ]:
                    served = buckets.pop(bucket)
                    if longer is not None:
                        start = bucket.start // longer.seconds * longer.seconds
                        _merge_into(buckets, Bucket(start, longer.seconds), served)
            if not buckets:
                del self.versions[key]
        oldest = int(now) // MINUTE - MINUTES
        for model, minutes in list(self.requests.items()):
            for minute in [each for each in minutes if each <= oldest]:
                del minutes[minute]
            if not minutes:
                del self.requests[model]
        self._bound_numbers()
        self._bound_bytes()

    def _bound_numbers(self) -> None:
        while len(self.versions) > MAX_VERSIONS:
            del self.versions[next(iter(self.versions))]
        while len(self.requests) > MAX_MODELS:
            del self.requests[next(iter(self.requests))]
        while len(self.splits) > MAX_MODELS:
            del self.splits[next(iter(self.splits))]

    def _bound_bytes(self) -> None:
        excess = sum(served.nbytes for buckets in self.versions.values() for served in buckets.values()) - MAX_BYTES
        if excess <= 0:
            return
        paired = [
            (bucket, key)
            for key, buckets in self.versions.items()
            for bucket, served in buckets.items()
            if served.moments and served.moments.has_pairs
        ]
        for bucket, key in sorted(paired):
            if excess <= 0:
                return
            excess -= _drop_pairs(self.versions[key], bucket)
        while excess > 0 and self.versions:
            buckets = self.versions.pop(next(iter(self.versions)))
            excess -= sum(served.nbytes for served in buckets.values())

    def rows_since(self, key: VersionKey, since: float) -> ServedRows:
        """Return the summary of the buckets that end after a time, in seconds since 1970."""
        return merged(served for bucket, served in self.versions.get(key, {}).items() if bucket.end > since)


def merged(parts: Iterable[ServedRows]) -> ServedRows:
    """Return one summary of all parts."""
    total = ServedRows()
    for part in parts:
        total = total.merge(part)
    return total


def _merge_into(buckets: dict[Bucket, ServedRows], bucket: Bucket, served: ServedRows) -> None:
    before = buckets.get(bucket)
    buckets[bucket] = served if before is None else before.merge(served)


def _drop_pairs(buckets: dict[Bucket, ServedRows], bucket: Bucket) -> int:
    """Remove the cross products of a bucket. Return the bytes that this frees."""
    served = buckets[bucket]
    assert served.moments is not None
    buckets[bucket] = lighter = replace(served, moments=served.moments.without_pairs())
    return served.nbytes - lighter.nbytes
