"""The page of a version: its facts, metrics, coefficients and diagnostics, and a form for a prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.pages.access import AccessScope, page_access
from app.pages.charts.svg import number
from app.pages.code_lines import base_url, curl_line
from app.pages.coefficients import Limits, Scale, coefficient_tables
from app.pages.diagnostics import diagnostics_context
from app.pages.export_links import export_links
from app.pages.form_fields import example_form, iso_date
from app.pages.lineage import error_of, lineage
from app.pages.live_panels import drift_panel, outcome_panel, traffic_panel
from app.pages.page_route import PageRoute
from app.pages.promotion import NONE
from app.pages.recorded_evaluations import evaluations_panel
from app.pages.rendering import render
from app.pages.shown_version import ShownVersion, page_bytes, selection_bytes, show
from app.pages.try_it import MAX_FIRST_LINES, form_context
from app.pages.withheld import Notes
from app.registry.version_file import Version
from app.regression.solvers import solver_to_record
from app.web.model_view import model_to_view
from app.web.model_watcher import MAX_VERSIONS
from app.web.paths import prefix
from app.web.query import ModelName, VersionNumber
from app.web.state import get_memory, get_services

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[page_access(AccessScope.READ)])

Part: TypeAlias = Literal["versions", "drift", "outcomes"]

MAX_BYTES = 115_000  # Bytes of HTML, so that a page with its style sheets and scripts is below 150 kB.
NO_DIAGNOSTICS = "They were not recorded when the version was trained."
# What a model was imported from, by the format of its file, if the file does not name a program.
ORIGINS = {
    "json": "JSON",
    "linserve": "a version file",
    "safetensors": "a PyTorch layer",
    "pmml": "PMML",
    "onnx": "ONNX",
}
MODES = {"replace": "trained anew, after", "update": "rows added to", "forget": "rows taken out of"}  # its parent


@dataclass(frozen=True)
class Detail:
    """How many items of each kind a page shows."""

    coefficients: Limits
    columns: int  # in the table of the schema
    levels: int  # of a column in that table
    partial: int  # charts of partial residuals for each target


# From the most detailed one on, until the page is small enough.
DETAILS = (
    Detail(Limits(40, 40, 40), 60, 20, 8),
    Detail(Limits(40, 20, 10), 40, 10, 2),
    Detail(Limits(20, 10, 5), 20, 5, 0),
    Detail(Limits(10, 5, 2), 10, 2, 0),
)


@dataclass(frozen=True)
class PageOptions:
    """The query of a page of a version."""

    target: Annotated[str | None, Query()] = None  # the first one shown
    scale: Annotated[Scale, Query()] = "raw"
    start: Annotated[int | None, Query(ge=0)] = None  # the first coefficient listed
    older: Annotated[int | None, Query(ge=1)] = None  # versions below this number are listed
    part: Annotated[Part | None, Query()] = None  # only this part of the page, for scripts
    promoted: Annotated[int | None, Query(ge=1)] = None  # the version that was promoted just now
    before: Annotated[int | None, Query(ge=1)] = None  # and the one that was current before


Options: TypeAlias = Annotated[PageOptions, Depends()]


@router.get("/models/{model}/versions/{version}")
def version_page(request: Request, model: ModelName, version: VersionNumber, options: Options) -> Response:
    registry = get_services(request).registry
    loaded = registry.version(model, version)
    return respond(request, loaded, registry.served_number(model), options, in_path=version)


def respond(
    request: Request, version: Version, current: int | None, options: PageOptions, *, in_path: int | None
) -> Response:
    """Return the page of a version, or one part of it. `in_path` is the number in its URL, None for the current one."""
    services, model = get_services(request), version.card.model
    path = f"/models/{model}" + ("" if in_path is None else f"/versions/{in_path}")
    common = {
        "model": model,
        "page_path": path,
        "current": current,
        "is_current": current == version.card.version,
        "number": number,
        "same_page": Links(prefix(request.scope) + path, options),
    }
    if options.part == "versions":
        rows = lineage(services.registry, model, current, options.older)
        return render(request, "_lineage.html", {**common, "lineage": rows, "version": version.card.version})
    if options.part == "drift":
        return render(request, "_drift.html", {**common, **drift_panel(services, version)})
    if options.part == "outcomes":
        return render(request, "_outcomes.html", {**common, **outcome_panel(services, model)})
    memory = get_memory(request)
    with memory.reserved(selection_bytes(version)):
        shown = show(version, options.target)
        with memory.reserved(page_bytes(shown.version.model)):
            context = {**common, **_version_context(request, shown, current, options, in_path)}
            for detail in DETAILS:
                response = render(
                    request, "version.html", {**context, **_detailed(shown, context["view"], options, detail)}
                )
                if len(response.body) <= MAX_BYTES:
                    break
            return response


class Links:
    """Links to the same page with other options."""

    def __init__(self, path: str, options: PageOptions) -> None:
        self._path = path
        self._options = {"target": options.target, "scale": options.scale, "start": options.start}
        self._options["scale"] = None if options.scale == "raw" else options.scale

    def __call__(self, anchor: str, **changes: Any) -> str:
        """Return the URL with some options changed, or removed if they are None, and with an anchor."""
        options = {name: value for name, value in {**self._options, **changes}.items() if value is not None}
        return self._path + (f"?{urlencode(options)}" if options else "") + (f"#{quote(anchor)}" if anchor else "")


def _version_context(
    request: Request, shown: ShownVersion, current: int | None, options: PageOptions, in_path: int | None
) -> dict[str, Any]:
    services, version = get_services(request), shown.version
    card, imported = version.card, version.card.imported
    view = model_to_view(version, current=current == card.version)
    url = f"{base_url(request)}/models/{card.model}" + ("" if in_path is None else f"/versions/{in_path}")
    versions = services.registry.versions(card.model)
    return {
        "title": f"{card.model}, version {card.version}",
        "card": card,
        "version": card.version,
        "view": view,
        "shown": shown,
        "mode": MODES[card.mode] if card.parent else "trained anew",
        "solver": _solver(card.solver),
        "origin": None if imported is None else imported.source or ORIGINS.get(imported.format, imported.format),
        "error": error_of(card),
        "scale": options.scale if version.model.has_statistics else "raw",
        "has_scales": version.model.has_statistics,
        "no_diagnostics": view["unavailable"].get("diagnostics", NO_DIAGNOSTICS),
        "lineage": lineage(services.registry, card.model, current, options.older),
        "lineage_older": options.older,
        "followed_versions": versions[-MAX_VERSIONS:],
        "has_parent": card.parent in versions,
        "roll_back_to": _previous(card.parent, versions, card.version) if current == card.version else None,
        "expected": NONE if current is None else current,
        "promoted": options.promoted if options.promoted == current else None,
        "before": options.before,
        "answer": None,
        "notice": None,
        "card_line": curl_line(url, key=services.access.has_keys),
        "exports": export_links(),
        "export_line": curl_line(
            f"{url}/export?format=python", key=services.access.has_keys, output=f"{card.model}.py"
        ),
        **drift_panel(services, shown.original),
        **outcome_panel(services, card.model),
        **traffic_panel(services, card.model),
        **evaluations_panel(services, card.model, card.version),
        **form_context(request, shown, example_form(shown.original), in_path, longest=MAX_FIRST_LINES),
    }


def _detailed(shown: ShownVersion, view: dict[str, Any], options: PageOptions, detail: Detail) -> dict[str, Any]:
    """Return the parts of the page whose sizes depend on the detail."""
    version, notes = shown.version, Notes(view["unavailable"])
    scale = options.scale if version.model.has_statistics else "raw"
    tables, listed = coefficient_tables(version, view, notes, scale, start=options.start, limits=detail.coefficients)
    context = {
        "metrics": _metrics(view, notes),
        "tables": tables,
        "listed": listed,
        "diagnostics": diagnostics_context(version.card, view, detail.partial),
        "schema": _schema(view, detail),
    }
    notes.add_fields()
    return {**context, "notes": notes.reasons}


def _range(column: Mapping[str, Any], ends: list[float] | None) -> list[str] | None:
    """Return the range of a column in training as text, or None if it has none."""
    if ends is None or column["kind"] not in ("number", "date"):
        return None
    return [iso_date(end) if column["kind"] == "date" else number(end) for end in ends]


def _previous(parent: int | None, versions: list[int], own: int) -> int | None:
    """Return the version to roll back to: the parent if there still is one, otherwise the next older one."""
    if parent in versions:
        return parent
    return max((number for number in versions if number < own), default=None)


def _metrics(view: Mapping[str, Any], notes: Notes) -> list[dict[str, Any]]:
    """Return a row of the metrics' table for each target."""
    metrics, validated = view["metrics"], view["metrics"].get("cross_validation")
    rows = []
    for target in view["targets"]:
        own = metrics[target]
        cross = None if validated is None else validated[target]

        def of(field: str, target: str = target) -> float | None:
            return (view[field] or {}).get(target)

        rows.append(
            {
                "target": target,
                "r2": notes.cell(own.get("r2"), "metrics", target, "r2"),
                "adjusted_r2": notes.cell(own.get("adjusted_r2"), "metrics", target, "adjusted_r2"),
                "rmse": notes.cell(own.get("rmse"), "metrics", target, "rmse"),
                "cv_rmse": None
                if cross is None
                else notes.cell(cross.get("rmse"), "metrics", "cross_validation", target, "rmse"),
                "cv_r2": None
                if cross is None
                else notes.cell(cross.get("r2"), "metrics", "cross_validation", target, "r2"),
                "deviation": notes.cell(of("residual_deviation"), "residual_deviation", target),
                "f_p": notes.cell(
                    ((view["f_tests"] or {}).get(target) or {}).get("p_value"), "f_tests", target, "p_value", digits=3
                ),
                "aic": notes.cell(of("aic"), "aic", target),
            }
        )
    return rows


def _solver(solver: Any) -> str:
    """Return the solver and the options that differ from the defaults, in words."""
    record, default = solver_to_record(solver), solver_to_record(type(solver)())
    options = [f"{name} {value}" for name, value in record.items() if name != "kind" and default.get(name) != value]
    kind = str(record["kind"]).replace("_", " ")
    return kind + (f" ({', '.join(options)})" if options else "")


def _schema(view: Mapping[str, Any], detail: Detail) -> dict[str, Any]:
    """Return the columns of the rows, as many as the page shows."""
    table = view["table"]
    columns = [
        *(("feature", column) for column in table["features"]),
        *(("target", column) for column in table["targets"]),
        *([("weight", table["weight"])] if table["weight"] else []),
    ]
    return {
        "columns": [
            {
                "role": role,
                "more_levels": max(0, len(column["levels"]) - detail.levels),
                "range": _range(column, view["ranges"].get(column["name"])),
                **column,
                "levels": column["levels"][: detail.levels],
            }
            for role, column in columns[: detail.columns]
        ],
        "more": max(0, len(columns) - detail.columns),
        "left_out": table["left_out"][: detail.columns],
    }
