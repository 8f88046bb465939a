"""The residual diagnostics of a version as charts and tables."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from app.pages.charts.residuals import bars, heat_map, partial_residuals, quantiles
from app.registry.model_card import ModelCard

_PREFIX = "diagnostics."


def diagnostics_context(card: ModelCard, view: Mapping[str, Any], most_partial: int) -> dict[str, Any] | None:
    """Return the charts and numbers of the diagnostics for the targets of the card, or None if there are none.

    Each target has at most `most_partial` charts of partial residuals. Each part that is missing has a reason.
    """
    found: Mapping[str, Any] | None = view.get("diagnostics")
    if not found:
        return None
    reasons = {**view["unavailable"], **{_PREFIX + path: why for path, why in found.get("unavailable", {}).items()}}

    def reason(*path: str) -> str:
        keys = [_PREFIX + ".".join(path[:length]) for length in range(len(path), 0, -1)]
        return next((reasons[key] for key in keys if key in reasons), "This part was not recorded.")

    leverage, remarks = found.get("leverage"), " ".join(found.get("notes") or [])
    targets: list[dict[str, Any]] = []
    for target in card.targets:
        own = (found.get("targets") or {}).get(target)
        if own is None:
            targets.append({"target": target, "reason": remarks or reason("targets", target)})
            continue
        targets.append({"target": target, "reason": None, **_target(target, own, reason, most_partial)})
    return {
        "rows": found["rows"],
        "remarks": remarks,
        "leverage": leverage,
        "leverage_plot": None if leverage is None else _leverage_plot(leverage),
        "leverage_reason": reason("leverage"),
        "targets": targets,
    }


def _leverage_plot(leverage: Mapping[str, Any]) -> Markup:
    # No leverage is above 1. With few rows, the threshold may be.
    threshold = leverage["threshold"] if leverage["threshold"] <= 1 else None
    return bars(leverage["edges"], leverage["counts"], "Leverage of the rows", "Leverage", threshold=threshold)


def _target(target: str, own: Mapping[str, Any], reason: Any, most_partial: int) -> dict[str, Any]:
    residuals, points, partial = own.get("residuals"), own.get("quantiles"), own.get("partial_residuals")
    path = ("targets", target)
    parts = list((partial or {}).items())
    return {
        "residuals": residuals,
        "residual_plot": None if residuals is None else _residual_plot(target, residuals),
        "residual_reason": reason(*path, "residuals"),
        "quantiles": points,
        "quantile_plot": None
        if points is None
        else quantiles(points["theoretical"], points["observed"], f"Quantiles of the residuals of {target}"),
        "quantile_reason": reason(*path, "quantiles"),
        "cooks": own.get("cooks_distance"),
        "cooks_reason": reason(*path, "cooks_distance"),
        "durbin_watson": own.get("durbin_watson"),
        "durbin_watson_reason": reason(*path, "durbin_watson"),
        "breusch_pagan": own.get("breusch_pagan"),
        "breusch_pagan_reason": reason(*path, "breusch_pagan"),
        "partial": [
            {"column": column, "plot": partial_residuals(each["edges"], each["means"], column), **each}
            for column, each in parts[:most_partial]
        ],
        "partial_more": max(0, len(parts) - most_partial),
        "partial_reason": reason(*path, "partial_residuals") if not parts else None,
    }


def _residual_plot(target: str, residuals: Mapping[str, Any]) -> Markup:
    return heat_map(
        residuals["fitted_edges"],
        residuals["residual_edges"],
        residuals["counts"],
        f"Residuals of {target} against its fitted values",
        ("Fitted value", "Residual"),
    )
