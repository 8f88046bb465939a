"""A split as the API shows it, for the route and for the page of the model."""

import math
from typing import Any

from app.data.names import MAX_LISTED
from app.errors import ModelFileInvalid, NotFound
from app.monitoring.split_counts import Differences
from app.prediction.column_differences import column_differences
from app.registry.base import ModelReader
from app.registry.splits import Split
from app.web.state import Services


def split_in_force(services: Services, model: str) -> Split | None:
    """Return the split that applies now, after a look at the store, or None. Raises StoreUnavailable."""
    split = services.splits.get(model)
    return split if split is not None and split.current == services.registry.served_number(model) else None


def traffic_to_view(services: Services, model: str) -> dict[str, Any]:
    """Return a model's traffic as `TrafficView`. This may wait. Raises ModelNotFound, Unavailable."""
    services.registry.versions(model)
    current, split = services.registry.served_number(model), split_in_force(services, model)
    view: dict[str, Any] = {"model": model, "current": current}
    if split is None:
        shares = {} if current is None else {str(current): 100}
        return {**view, "shares": shares, "set_at": None, "answered": {}, "shadow": None, "column_differences": {}}
    counts = services.monitor.split(model, split.identity)
    shadow = None
    if split.shadow is not None:
        shadow = {
            "version": split.shadow,
            "compared_rows": counts.compared,
            "failed_rows": counts.failed,
            "skipped_rows": counts.skipped,
            "targets": {target: _differences(each) for target, each in counts.targets.items()},
        }
    return {
        **view,
        "shares": {str(number): share for number, share in split.shares.items()},
        "set_at": split.set_at,
        "answered": {
            str(number): {"requests": each.requests, "rows": each.rows}
            for number, each in sorted(counts.versions.items())
        },
        "shadow": shadow,
        "column_differences": _column_differences(services.registry, model, split),
    }


def _column_differences(registry: ModelReader, model: str, split: Split) -> dict[str, list[dict[str, str]]]:
    """Return the differences from the current version by version with a share, if there are any.

    A version that cannot be read has none, because the current version answers in its place.
    """
    found = {}
    for number, share in split.shares.items():
        if not share or number == split.current:
            continue
        try:
            current = registry.card(model, split.current)
            differences = column_differences(registry.card(model, number), current)[:MAX_LISTED]
        except (NotFound, ModelFileInvalid):
            continue
        if differences:
            found[str(number)] = [{"column": each.column, "detail": each.message} for each in differences]
    return found


def _differences(found: Differences) -> dict[str, Any]:
    count = found.count
    return {
        "count": count,
        "mean": _finite(found.total / count) if count else None,
        "mean_absolute": _finite(found.absolute / count) if count else None,
        "largest": _finite(found.largest) if count else None,
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
