"""A version in use: its share of the traffic, its drift, and the errors of predictions whose outcomes came later."""

from typing import Any

import msgspec
from markupsafe import Markup

from app.errors import Unavailable
from app.pages.charts.drift import Strip, strips
from app.registry.version_file import Version
from app.web.state import Services
from app.web.traffic_view import traffic_to_view

DRIFT_SECONDS = 24 * 3600.0
OUTCOME_SECONDS = 7 * 24 * 3600.0
MAX_STRIPS = 20  # Columns in a chart, those with the largest distance.
MAX_ROWS = 60  # Columns in the table.
MAX_DIFFERENCES = 20  # Targets of a shadow in the table.
MAX_ERRORS = 60  # Pairs of a version and a target in the table.


def drift_panel(services: Services, version: Version) -> dict[str, Any]:
    """Return the drift of the last day as charts and rows of a table. This may wait."""
    try:
        drift = msgspec.to_builtins(services.monitor.drift(version, DRIFT_SECONDS))
    except Unavailable as error:
        return {"drift": None, "reason": error.message}
    drifted = set(drift["drifted"])
    columns = [
        {"name": name, "drifted": name in drifted, **each}
        for name, each in drift["columns"].items()
        if each["rows"] or each["standardised_mean_difference"] is not None
    ]
    columns.sort(key=lambda each: -abs(each["standardised_mean_difference"] or 0.0))
    categories = [{"name": name, "drifted": name in drifted, **each} for name, each in drift["categories"].items()]
    categories.sort(key=lambda each: -(each["psi"] or 0.0))
    return {
        "drift": drift,
        "reason": None,
        "drift_columns": columns[:MAX_ROWS],
        "drift_categories": categories[:MAX_ROWS],
        "drift_more": max(0, len(columns) - MAX_ROWS) + max(0, len(categories) - MAX_ROWS),
        "column_plot": _plot(
            [(each["name"], each["standardised_mean_difference"], each["drifted"]) for each in columns],
            "Distance of the served means from training",
            "Difference of means in standard deviations of training",
            symmetric=True,
        ),
        "category_plot": _plot(
            [(each["name"], each["psi"], each["drifted"]) for each in categories],
            "Change of the levels' frequencies since training",
            "Population stability index",
            symmetric=False,
        ),
    }


def outcome_panel(services: Services, model: str) -> dict[str, Any]:
    """Return the errors of the last week by version and target. This may wait."""
    try:
        found = services.outcomes.rolling(model, OUTCOME_SECONDS)
    except Unavailable as error:
        return {"outcomes": [], "outcome_reason": error.message}
    rows = [
        {"version": number, "target": target, **errors}
        for number, each in sorted(msgspec.to_builtins(found).items(), key=lambda item: -int(item[0]))
        for target, errors in each["targets"].items()
    ]
    return {"outcomes": rows[:MAX_ERRORS], "outcome_reason": None, "outcome_more": max(0, len(rows) - MAX_ERRORS)}


def traffic_panel(services: Services, model: str) -> dict[str, Any]:
    """Return the split of the traffic, and the differences of its shadow. This may wait."""
    try:
        traffic = traffic_to_view(services, model)
    except Unavailable as error:
        return {"traffic": None, "traffic_reason": error.message}
    none = {"requests": 0, "rows": 0}
    rows = [
        {"version": number, "share": share, **traffic["answered"].get(number, none)}
        for number, share in traffic["shares"].items()
    ]
    targets = traffic["shadow"]["targets"] if traffic["shadow"] else {}
    differences = [{"target": target, **each} for target, each in targets.items()]
    return {
        "traffic": traffic,
        "traffic_reason": None,
        "traffic_rows": rows,
        "traffic_differences": differences[:MAX_DIFFERENCES],
    }


def _plot(distances: list[tuple[str, float | None, bool]], name: str, label: str, *, symmetric: bool) -> Markup | None:
    known = [Strip(column, distance, drifted) for column, distance, drifted in distances if distance is not None]
    return strips(known[:MAX_STRIPS], name, label, symmetric=symmetric) if known else None
