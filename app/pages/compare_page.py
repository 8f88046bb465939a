"""The page that compares versions of a model, also on a file that the user uploads. Nothing is stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.data.names import did_you_mean, shown
from app.errors import InvalidInput, LinserveError
from app.pages.access import AccessScope, check_csrf, form_access, page_access
from app.pages.charts.calibration import Series, calibration
from app.pages.comparison import MAX_TARGETS, coefficient_table, facts, metric_rows, schema_changes
from app.pages.csrf import FIELD
from app.pages.page_route import PageRoute
from app.pages.rendering import render
from app.registry.version_file import Version
from app.web import bodies
from app.web.evaluations import MEDIA_TYPES, evaluate_body
from app.web.multipart import Form
from app.web.problems import problem_from_error
from app.web.query import ModelName, read_query
from app.web.schemas.evaluation import MAX_VERSIONS, EvaluateParameters
from app.web.state import get_memory, get_services

router = APIRouter(route_class=PageRoute, include_in_schema=False)

MIN_VERSIONS = 2
MAX_OPTIONS = 200  # Versions in a list to choose from, the newest.
MAX_TARGET_OPTIONS = 500  # Targets in a list to choose from.
MAX_CHARTS = 4  # Targets with a calibration chart.
ROW_BYTES = 2_000  # Bytes that comparing one coefficient takes.
VERSIONS, TARGET = "versions", "target"
MEASURES = (
    ("RMSE", "rmse"),
    ("Mean absolute error", "mae"),
    ("Bias", "bias"),
    ("R²", "r2"),
    ("Largest error", "max_absolute_error"),
)


@dataclass(frozen=True)
class Chosen:
    """The versions and the target to compare."""

    versions: tuple[int, ...]
    target: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of an evaluation on a file: its results, or the problem."""

    given: dict[str, str]  # fields of the form
    evaluation: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None


NO_OUTCOME = Outcome({})


@router.get("/models/{model}/compare", dependencies=[page_access(AccessScope.READ)])
def compare(request: Request, model: ModelName) -> Response:
    query = request.query_params
    chosen = Chosen(_numbers(query.getlist(VERSIONS)), query.get(TARGET) or None)
    return _page(request, model, chosen)


@router.post("/models/{model}/compare", dependencies=[form_access(AccessScope.PREDICT, multipart=True)])
async def compare_on_file(request: Request, model: ModelName) -> Response:
    """Evaluate the versions on the file of the form, and show the results below the comparison."""
    media_type = await bodies.content_type(request, *MEDIA_TYPES)
    form = bodies.received_of(request).form
    name, token = form.fields.pop(0) if form.fields else ("", "")
    check_csrf(request, token if name == FIELD else None)
    chosen = _chosen_in(form)
    given = {name: text for name, text in form.fields if name != VERSIONS}
    try:
        if not bodies.received_of(request).file_name:
            raise InvalidInput("No file was chosen. Choose a file with the features and targets of the versions.")

        def parameters() -> EvaluateParameters:
            return read_query(request, EvaluateParameters, form)

        outcome = Outcome(given, await evaluate_body(request, model, media_type, parameters))
    except LinserveError as error:
        outcome = Outcome(given, problem=problem_from_error(type(error).__name__, error.message, error.details))
    return await run_in_threadpool(_page, request, model, chosen, outcome)


def _chosen_in(form: Form) -> Chosen:
    """Return the choice in a form, and keep only the options of an evaluation in it. Empty ones are left out."""
    target = next((text for name, text in form.fields if name == TARGET), None)
    form.fields[:] = [(name, text) for name, text in form.fields if name != TARGET and text.strip()]
    return Chosen(_numbers([text for name, text in form.fields if name == VERSIONS]), target or None)


def _numbers(texts: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of versions in a query or a form, each once. Raises InvalidInput."""
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):  # noqa: PLR2004 - digits
        raise InvalidInput.of_parameter(VERSIONS, "Expected numbers of versions, as in `versions=3,5`.")
    numbers = tuple(dict.fromkeys(map(int, parts)))
    if len(numbers) > MAX_VERSIONS:
        message = f"{len(numbers)} versions were chosen, and at most {MAX_VERSIONS} can be compared at once."
        raise InvalidInput.of_parameter(VERSIONS, message)
    return numbers


def _page(request: Request, model: str, chosen: Chosen, outcome: Outcome = NO_OUTCOME) -> Response:
    registry = get_services(request).registry
    all_numbers, current = registry.versions(model), registry.served_number(model)
    numbers = chosen.versions or _default(all_numbers, current)
    versions = [registry.version(model, number) for number in numbers]
    options = sorted({*all_numbers[-MAX_OPTIONS:], *numbers}, reverse=True)
    context: dict[str, Any] = {
        "title": f"Compare versions of {model}",
        "model": model,
        "current": current,
        "numbers": numbers,
        "options": options,
        "places": range(min(MAX_VERSIONS, len(options))),
        "hidden_options": len(all_numbers) > MAX_OPTIONS,
        "given": outcome.given,
        "evaluation": outcome.evaluation,
        "problem": outcome.problem,
        "comparison": None,
    }
    if len(versions) >= MIN_VERSIONS:
        size = sum(len(version.model.columns) for version in versions)
        with get_memory(request).reserved(ROW_BYTES * size):
            context["comparison"] = _comparison(versions, current, chosen.target)
    if outcome.evaluation is not None:
        context["results"] = _results(outcome.evaluation)
    return render(request, "compare.html", context, 200 if outcome.problem is None else outcome.problem["status"])


def _default(numbers: Sequence[int], current: int | None) -> tuple[int, ...]:
    """Return the version before the current one and the current one, or the two newest."""
    last = current if current is not None and current in numbers else numbers[-1]
    before = [number for number in numbers if number < last]
    others = before[-1:] or [number for number in numbers if number > last][:1]
    return (*others, last)


def _comparison(versions: Sequence[Version], current: int | None, target: str | None) -> dict[str, Any]:
    targets = list(dict.fromkeys(name for version in versions for name in version.card.targets))
    if target is not None and target not in targets:
        message = f"No version has the target {shown(target)}.{did_you_mean(target, targets)}"
        raise InvalidInput.of_parameter(TARGET, message)
    target = target or targets[0]
    return {
        "facts": facts(versions, current),
        "changes": [(version.card.version, schema_changes(versions[0], version)) for version in versions[1:]],
        "others": [each.card.version for each in versions if {*each.card.columns} != {*versions[0].card.columns}],
        "metrics": metric_rows(versions),
        "targets": targets[:MAX_TARGET_OPTIONS],
        "more_targets": max(0, len(targets) - MAX_TARGETS),
        "target": target,
        "coefficients": coefficient_table(versions, target),
    }


def _results(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return an evaluation by target, as the template shows it."""
    versions = evaluation["versions"]
    targets = list(dict.fromkeys(target for version in versions for target in version["targets"]))
    return {
        "versions": [version["version"] for version in versions],
        "left_out": [(version["version"], version["rows"], version["left_out"]) for version in versions],
        "targets": [_result(target, versions, index) for index, target in enumerate(targets[:MAX_TARGETS])],
        "more": max(0, len(targets) - MAX_TARGETS),
        "is_exact": all(version["calibration_is_exact"] for version in versions),
        "unavailable": [
            (version["version"], path, reason)
            for version in versions
            for path, reason in list(version["unavailable"].items())[:MAX_TARGETS]
        ],
    }


def _result(target: str, versions: Sequence[dict[str, Any]], index: int) -> dict[str, Any]:
    metrics = [version["targets"].get(target, {}) for version in versions]
    return {
        "target": target,
        "rows": [each.get("rows") for each in metrics],
        "measures": [(label, [each.get(name) for each in metrics]) for label, name in MEASURES],
        "coverage": [each.get("interval_coverage") for each in metrics],
        "width": [each.get("mean_interval_width") for each in metrics],
        "chart": _chart(target, versions) if index < MAX_CHARTS else None,
        "deciles": _deciles(target, versions),
        "segments": _segments(target, versions),
    }


def _chart(target: str, versions: Sequence[dict[str, Any]]) -> Markup | None:
    series = [
        Series(
            f"Version {version['version']}",
            tuple(
                (decile["mean_predicted"], decile["mean_observed"])
                for decile in version["calibration"].get(target, [])
                if decile["mean_predicted"] is not None and decile["mean_observed"] is not None
            ),
        )
        for version in versions
    ]
    return calibration(series, f"Calibration of {target}", target) if any(each.points for each in series) else None


def _deciles(target: str, versions: Sequence[dict[str, Any]]) -> list[tuple[int, list[dict[str, Any] | None]]]:
    found = [{decile["decile"]: decile for decile in version["calibration"].get(target, [])} for version in versions]
    return [
        (number, [deciles.get(number) for deciles in found])
        for number in range(1, 11)
        if any(number in deciles for deciles in found)
    ]


def _segments(target: str, versions: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """Return the metrics of each segment in each version: first the segments, then the other values."""
    if versions[0]["segments"] is None:
        return []
    found = [
        {segment["value"]: segment["targets"].get(target) for segment in version["segments"]} for version in versions
    ]
    values = dict.fromkeys(value for segments in found for value in segments)
    rows = [("(no value)" if value is None else value, [segments.get(value) for segments in found]) for value in values]
    others = [version["other"] and version["other"]["targets"].get(target) for version in versions]
    return [*rows, ("(all other values)", others)] if any(others) else rows
