"""Splits of traffic in requests: which version answers a client, and what is counted."""

import contextlib

import numpy as np
from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app.errors import LinserveError
from app.monitoring.split_counts import Answered, SplitCounts
from app.prediction.query import PredictionQuery
from app.prediction.selection import VersionSelector
from app.registry.splits import Split, bucket_of
from app.registry.version_file import Version
from app.regression.sufficient_statistics import Array
from app.web.shadows import rows_at_most
from app.web.state import Services, get_services
from app.web.version_headers import STICKY, min_version


async def select(
    request: Request, model: str, version: int | None = None, *, may_split: bool = True
) -> VersionSelector:
    """Return the selector of the version that answers a request.

    A split of the traffic applies only if the request names neither a version nor an alias. Raises InvalidInput if the
    lowest version that the client accepts is not valid.
    """
    services, least = get_services(request), min_version(request, version)
    if version is not None or not may_split:
        return VersionSelector(services.registry, model, version, least)
    split = await _split_of(services, model)
    if split is None or _is_over(services, model, split):
        return VersionSelector(services.registry, model, None, least)
    client = request.headers.get(STICKY) or (request.client.host if request.client else "")
    request.state.split = split
    return VersionSelector(services.registry, model, None, least, split, bucket_of(model, client))


def answered(
    request: Request,
    version: Version,
    rows: int,
    query: PredictionQuery | None = None,
    predictions: Array | None = None,
) -> None:
    """Count a request that this version answered, if a split has chosen it, and let the shadow predict for its rows.

    `query` has the first of the rows, and `predictions` are those that are returned for them.
    """
    split: Split | None = getattr(request.state, "split", None)
    services, number = get_services(request), version.card.version
    if split is None or number not in {*split.shares, split.current}:
        return
    model = version.card.model
    services.monitor.count_split(model, SplitCounts(split.identity, {number: Answered(1, rows)}))
    if split.shadow is None or split.shadow == number:
        return
    if query is None or predictions is None:
        services.monitor.count_split(model, SplitCounts(split.identity, skipped=rows))
    else:
        services.shadows.compare(split, version, rows, query, predictions)


def shadow_of(request: Request) -> int | None:
    """Return the number of the shadow for this request, or None."""
    split: Split | None = getattr(request.state, "split", None)
    return None if split is None else split.shadow


async def _split_of(services: Services, model: str) -> Split | None:
    """Return the split of a model, which may be over. If the store cannot be read, there is none."""
    try:
        return services.splits.get_cached(model)
    except LookupError:
        return await run_in_threadpool(_read_split, services, model)


def _is_over(services: Services, model: str, split: Split) -> bool:
    """Return True if another version is known to be current than when the split was set."""
    with contextlib.suppress(LinserveError):
        current = services.registry.get_cached(model)
        return current is not None and current.card.version != split.current
    return False


def _read_split(services: Services, model: str) -> Split | None:
    try:
        return services.splits.get(model)
    except LinserveError:
        return None


class SampledRows:
    """Collects the first rows of a table, as many as a shadow predicts for, and their predictions."""

    def __init__(self, version: Version) -> None:
        self._left = rows_at_most(version)
        self._rows: list[Array] = []
        self._predictions: list[Array] = []

    def add(self, query: PredictionQuery, predictions: Array) -> None:
        """Add encoded rows while there is room."""
        if self._left:
            assert isinstance(query.rows, np.ndarray)
            self._rows.append(query.rows[: self._left].copy())
            self._predictions.append(predictions[: self._left].copy())
            self._left -= len(self._rows[-1])

    def collected(self) -> tuple[PredictionQuery | None, Array | None]:
        """Return the rows and their predictions, or None for both if there are no rows."""
        if not self._rows:
            return None, None
        return PredictionQuery(np.concatenate(self._rows)), np.concatenate(self._predictions)
