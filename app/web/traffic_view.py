"""A split as the API shows it, for the route and for the page of the model."""

import math
from typing import Any

from app.monitoring.split_counts import Differences
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
    view: dict[str, Any] = {"model": model, "current": current, "set_at": None, "answered": {}, "shadow": None}
    if split is None:
        return {**view, "shares": {} if current is None else {str(current): 100}}
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
    }


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
