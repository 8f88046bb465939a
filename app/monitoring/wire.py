"""Histories as bytes, for the files and blobs that workers share. Foreign bytes are refused, and never executed."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import msgspec
import numpy as np

from app.monitoring.history import TIERS, Bucket, History, Requests, VersionKey
from app.monitoring.served_rows import ServedRows
from app.monitoring.split_counts import MAX_TARGETS, Answered, Differences, SplitCounts
from app.regression.moments import Moments
from app.regression.sufficient_statistics import Array

FORMAT = 1
MAX_BLOB_BYTES = 8 << 20  # Largest blob that is read. A history takes at most half of this.

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Weight = Annotated[float, msgspec.Meta(gt=0, le=1e100)]
_LENGTHS = {tier.seconds for tier in TIERS}


class NotAHistory(ValueError):
    """The bytes are not a history that this release of the service wrote."""


class _Moments(msgspec.Struct, array_like=True):
    rows: Annotated[int, msgspec.Meta(ge=1)]
    mean: bytes  # 64-bit numbers, little-endian, as in the other fields
    products: bytes  # the upper triangle by rows, or the diagonal
    minimum: bytes
    maximum: bytes
    weight: _Weight
    weight_squares: _Weight


class _Served(msgspec.Struct, array_like=True):
    start: _Count
    seconds: _Count
    predicted: _Count
    moments: _Moments | None
    extreme: _Count
    checked: _Count
    flagged: _Count
    gaps: dict[str, _Count]
    unseen: dict[str, _Count]
    fourths: bytes | None


class _Version(msgspec.Struct, array_like=True):
    model: str
    version: _Count
    created_at: str
    served: list[_Served]


class _Minute(msgspec.Struct, array_like=True):
    minute: _Count
    requests: _Count
    failed: _Count
    rows: _Count


class _Differences(msgspec.Struct, array_like=True):
    count: _Count
    total: float
    absolute: float
    largest: float


class _Split(msgspec.Struct, array_like=True):
    identity: str
    versions: dict[int, tuple[_Count, _Count]]  # requests and rows
    compared: _Count
    failed: _Count
    skipped: _Count
    targets: Annotated[dict[str, _Differences], msgspec.Meta(max_length=MAX_TARGETS)]


class _History(msgspec.Struct):
    format: int
    versions: list[_Version]
    requests: dict[str, list[_Minute]]
    splits: dict[str, _Split] = {}  # an earlier release wrote none


_decoder = msgspec.msgpack.Decoder(_History)


def encode(history: History) -> bytes:
    """Return a history as MessagePack."""
    versions = [
        _Version(*key, [_encode_served(bucket, served) for bucket, served in buckets.items()])
        for key, buckets in history.versions.items()
    ]
    requests = {
        model: [_Minute(minute, each.requests, each.failed, each.rows) for minute, each in minutes.items()]
        for model, minutes in history.requests.items()
    }
    splits = {model: _encode_split(each) for model, each in history.splits.items()}
    return msgspec.msgpack.encode(_History(FORMAT, versions, requests, splits))


def decode(content: bytes) -> History:
    """Return the history in these bytes. Raises NotAHistory."""
    try:
        found = _decoder.decode(content)
        if found.format != FORMAT:
            raise NotAHistory(f"It has format {found.format}, and this release reads format {FORMAT}.")
        history = History()
        for version in found.versions:
            key = VersionKey(version.model, version.version, version.created_at)
            history.versions[key] = {_bucket_of(served): _decode_served(served) for served in version.served}
            _check_widths(history.versions[key].values())
        for model, minutes in found.requests.items():
            history.requests[model] = {each.minute: Requests(each.requests, each.failed, each.rows) for each in minutes}
        history.splits = {model: _decode_split(each) for model, each in found.splits.items()}
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotAHistory(str(error)) from None
    return history


def _encode_split(counts: SplitCounts) -> _Split:
    return _Split(
        counts.identity,
        {number: (each.requests, each.rows) for number, each in counts.versions.items()},
        counts.compared,
        counts.failed,
        counts.skipped,
        {
            target: _Differences(each.count, each.total, each.absolute, each.largest)
            for target, each in counts.targets.items()
        },
    )


def _decode_split(found: _Split) -> SplitCounts:
    return SplitCounts(
        found.identity,
        {number: Answered(*each) for number, each in found.versions.items()},
        found.compared,
        found.failed,
        found.skipped,
        {
            target: Differences(each.count, each.total, each.absolute, each.largest)
            for target, each in found.targets.items()
        },
    )


def _encode_served(bucket: Bucket, served: ServedRows) -> _Served:
    moments = None
    if (found := served.moments) is not None:
        products = found.products[np.triu_indices(len(found.mean))] if found.has_pairs else found.products
        mean, squares, low, high = map(_to_bytes, (found.mean, products, found.minimum, found.maximum))
        moments = _Moments(found.rows, mean, squares, low, high, found.weight, found.weight_squares)
    return _Served(
        *bucket,
        served.predicted,
        moments,
        served.extreme,
        served.checked,
        served.flagged,
        served.gaps,
        served.unseen,
        None if served.fourths is None else _to_bytes(served.fourths),
    )


def _bucket_of(served: _Served) -> Bucket:
    if served.seconds not in _LENGTHS or served.start % served.seconds:
        raise ValueError("it has a bucket of another length")
    return Bucket(served.start, served.seconds)


def _decode_served(served: _Served) -> ServedRows:
    moments = None
    if (found := served.moments) is not None:
        mean, minimum, maximum = map(_to_array, (found.mean, found.minimum, found.maximum))
        products = _products_of(_to_array(found.products), len(mean))
        weights = found.weight, found.weight_squares
        moments = Moments(found.rows, mean, products, minimum, maximum, *weights)
        if not len(mean) == len(minimum) == len(maximum) > 0 or (moments.squares < 0).any():
            raise ValueError("its columns do not agree")
    fourths = None if served.fourths is None else _to_array(served.fourths)
    if (0 if fourths is None else len(fourths)) != (len(moments.mean) + 1 if moments else 0):
        raise ValueError("its fourth powers do not agree with its columns")
    return ServedRows(
        served.predicted,
        moments,
        served.extreme,
        served.checked,
        served.flagged,
        Counter(served.gaps),
        Counter(served.unseen),
        fourths,
    )


def _products_of(values: Array, width: int) -> Array:
    if len(values) == width * (width + 1) // 2:
        upper = np.zeros((width, width))
        upper[np.triu_indices(width)] = values
        return upper + np.triu(upper, 1).T
    if len(values) != width:
        raise ValueError("its products do not fit its columns")
    return values


def _check_widths(parts: Iterable[ServedRows]) -> None:
    if len({len(part.moments.mean) for part in parts if part.moments}) > 1:
        raise ValueError("its buckets have different columns")


def _to_bytes(values: Array) -> bytes:
    return np.ascontiguousarray(values, dtype="<f8").tobytes()


def _to_array(content: bytes) -> Array:
    values = np.frombuffer(content, "<f8").astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has numbers that are not finite")
    return values
