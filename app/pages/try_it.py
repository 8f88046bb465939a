"""The form for a prediction, and its answer: for each target the number, its interval and what it is made of."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.errors import InvalidInput
from app.pages.access import AccessScope, form_access, form_of
from app.pages.charts.svg import number
from app.pages.charts.waterfall import Contribution, largest, signed, waterfall, without_noise
from app.pages.code_lines import base_url, curl_line, python_lines
from app.pages.form_fields import ROWS, FilledForm, example_form, iso_date, sent_form
from app.pages.formatting import sentence
from app.pages.page_route import PageRoute, wants_fragment
from app.pages.rendering import render
from app.pages.shown_version import MAX_TARGETS, ShownVersion, selection_bytes, show
from app.prediction.estimates import rows_bytes, workload
from app.prediction.predictor import PredictionResult, Predictor, choose_executor
from app.prediction.query import PredictionOptions, PredictionQuery
from app.prediction.selection import VersionSelector
from app.registry.version_file import Version
from app.regression.linear_model import RANGES_UNKNOWN
from app.web.card_reasons import MAX_DECOMPOSED_COLUMNS
from app.web.paths import prefix
from app.web.predict_json import run_in
from app.web.query import ModelName, VersionNumber
from app.web.state import get_memory, get_services

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[form_access(AccessScope.PREDICT)])
# A reload without scripts asks for the form's URL.
links = APIRouter(route_class=PageRoute, include_in_schema=False)

LEVEL = 0.95  # Level of the intervals.
MAX_STEPS = 12  # Steps of a waterfall.
MAX_NAMED = 20  # Columns that are named in a warning.
MAX_FIRST_LINES = 4_000  # Characters of the curl line on a page without an answer.
MAX_LINES = 25_000  # Characters of the curl line with an answer.

DISTANCE_UNKNOWN = "Whether this row is unlike the training rows is not known."
NO_SPAN = "The row differs from the training rows in a direction in which they do not vary, so it has no interval."
TOO_WIDE = (
    f"The page gives no interval for models of more than {MAX_DECOMPOSED_COLUMNS} columns, because the first one takes "
    "seconds. Add `interval` to a request to the API."
)

LONG = "The lines are long. They are shown with a prediction."
TOO_LONG = "The lines are too long for a page, because the model has so many features."


@dataclass(frozen=True)
class TargetAnswer:
    """The prediction of one target."""

    target: str
    prediction: float
    lower: float | None
    upper: float | None
    no_interval: str | None
    plot: Markup
    baseline: float
    contributions: list[Contribution]


@dataclass(frozen=True)
class Answer:
    """The answer to one row."""

    version: int
    targets: list[TargetAnswer]
    outside: list[str]  # sentences about values outside their range in training
    more_outside: int
    leverage: float | None  # if it is above the threshold; infinite outside the space of the training rows
    threshold: float
    ranges_unknown: str | None
    from_zero: bool = False  # True if contributions are relative to 0, because the training means are not known


@router.post("/models/{model}/predict")
async def predict(request: Request, model: ModelName) -> Response:
    return await _predict(request, model, None)


@router.post("/models/{model}/versions/{version}/predict")
async def predict_with_version(request: Request, model: ModelName, version: VersionNumber) -> Response:
    return await _predict(request, model, version)


@links.get("/models/{model}/predict")
def form_of_model(request: Request, model: ModelName) -> Response:
    return RedirectResponse(f"{prefix(request.scope)}/models/{model}#try-it", 303)


@links.get("/models/{model}/versions/{version}/predict")
def form_of_version(request: Request, model: ModelName, version: Annotated[int, Path(ge=1)]) -> Response:
    return RedirectResponse(f"{prefix(request.scope)}/models/{model}/versions/{version}#try-it", 303)


async def _predict(request: Request, model: str, number_in_path: int | None) -> Response:
    services, form = get_services(request), form_of(request)
    version = await VersionSelector(services.registry, model, number_in_path).resolve_async()
    with get_memory(request).reserved(selection_bytes(version)):
        shown = await run_in_threadpool(show, version, form.get("target") or None, MAX_TARGETS)
        filled, notice = await run_in_threadpool(_filled, request, shown)
        answer = None
        if notice is None and filled.is_valid and form.get("only") != "lines":
            query = PredictionQuery([filled.row], options_for(shown.version), pointer=ROWS)
            work = workload(query, shown.version.model)
            compute = partial(_answer, request, shown.version, query)
            try:
                with get_memory(request).reserved(rows_bytes(query, work, shown.version)):
                    answer = await run_in(choose_executor(work), services, compute)
            except InvalidInput as error:
                filled = filled.with_faults(error.details, error.message)
    context = {
        "title": f"Try {model}",
        "shown": shown,
        "notice": notice,
        "answer": answer,
        **form_context(request, shown, filled, number_in_path, longest=MAX_LINES),
    }
    if form.get("only") == "lines":
        return render(request, "_code_lines.html", context)
    is_part = wants_fragment(request)
    status = 200 if filled.is_valid or is_part else 422
    return render(request, "_try_it.html" if is_part else "try_it.html", context, status)


def form_context(
    request: Request, shown: ShownVersion, filled: FilledForm, number_in_path: int | None, *, longest: int
) -> dict[str, Any]:
    """Return what the template of the form needs: the fields, where they are sent, and the lines for programs.

    Lines of more than `longest` characters are left out. `too_long` says why.
    """
    card = shown.version.card
    path = f"/models/{card.model}" + ("" if number_in_path is None else f"/versions/{number_in_path}")
    url, key = f"{base_url(request)}{path}/predict", get_services(request).access.has_keys
    payload = {"instances": [filled.row], **_named_options(options_for(shown.version))}
    curl, too_long = curl_line(url, payload, key=key), None
    if len(curl) > longest:
        too_long = TOO_LONG if len(curl) > MAX_LINES else LONG
    return {
        "form": filled,
        "form_path": f"{path}/predict",
        "page_path": path,
        "form_version": card.version,
        "level": LEVEL,
        "too_long": too_long,
        "curl": curl,
        "python": python_lines(url, payload, key=key),
        "number": number,
        "signed": signed,
    }


def options_for(version: Version) -> PredictionOptions:
    """Return what the form asks for. Decomposing a wide design takes too long for a page."""
    model = version.model
    is_quick = len(model.columns) <= MAX_DECOMPOSED_COLUMNS or model.has_decomposed_design
    return PredictionOptions(interval=LEVEL if is_quick else None, explain=True, extrapolation=is_quick)


def _named_options(options: PredictionOptions) -> dict[str, Any]:
    named: dict[str, Any] = {} if options.interval is None else {"interval": options.interval}
    named["explain"] = options.explain
    return named | ({"extrapolation": True} if options.extrapolation else {})


def _filled(request: Request, shown: ShownVersion) -> tuple[FilledForm, str | None]:
    """Return the form with what was sent, or an unused form and why it is unused."""
    services, form = get_services(request), form_of(request)
    card = shown.version.card
    made_for = form.get("version", str(card.version))
    if made_for != str(card.version):
        made = services.registry.card(card.model, int(made_for)) if made_for.isdecimal() else None
        if made is None or made.schema_of_rows.features != shown.version.table.features:
            notice = f"Version {card.version} is current now, and its columns are different. Fill in its form instead."
            return example_form(shown.original), notice
    return sent_form(shown.original, form), None


def _answer(_request: Request, version: Version, query: PredictionQuery) -> Answer:
    result = Predictor(version).predict(query)
    model, baselines = version.model, version.model.mean_prediction.tolist()
    targets = []
    for index, target in enumerate(model.targets):
        lower = upper = reason = None
        if result.intervals is None:
            reason = result.unavailable.get("intervals", TOO_WIDE)
        elif np.isnan(result.intervals[0, index]).any():
            reason = NO_SPAN
        else:
            lower, upper = result.intervals[0, index].tolist()
        assert result.contributions is not None
        parts = _contributions(version, query, result.contributions[0, index].tolist())
        prediction = float(result.predictions[0, index])
        steps = largest(without_noise(parts, max(abs(baselines[index]), abs(prediction))), MAX_STEPS)
        plot = waterfall(baselines[index], steps, prediction, f"Contributions to the prediction of {target}")
        targets.append(TargetAnswer(target, prediction, lower, upper, reason, plot, baselines[index], steps))
    imported = version.card.imported
    from_zero = imported is not None and imported.means_unknown
    distance = _extrapolation(version, query, result)
    return Answer(version.card.version, targets, from_zero=from_zero, **distance)


def _contributions(version: Version, query: PredictionQuery, values: list[float]) -> list[Contribution]:
    """Return the contributions by feature with its value, or by term."""
    if version.model.terms:
        return [Contribution(term, value) for term, value in zip(version.model.columns, values, strict=True)]
    places = version.encoder.places
    return [
        Contribution(f"{column.name} = {_shown(query.rows[0][column.name])}", sum(values[place]))
        for column, place in zip(version.table.features, places, strict=True)
    ]


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return number(value, 6) if isinstance(value, int | float) else str(value)


def _extrapolation(version: Version, query: PredictionQuery, result: PredictionResult) -> dict[str, Any]:
    """Return the fields of an answer about the distance of the row from the training rows."""
    model = version.model
    if result.extrapolation is None:
        unknown = result.unavailable.get("extrapolation")
        reason = None if unknown is None else f"{DISTANCE_UNKNOWN} {sentence(unknown)}"
        return {"outside": [], "more_outside": 0, "leverage": None, "threshold": 0.0, "ranges_unknown": reason}
    threshold = 3 * model.rank / model.statistics.effective_rows
    columns = np.flatnonzero(result.extrapolation.outside[0]).tolist()
    leverage = float(result.extrapolation.leverage[0])
    kinds = {column.name: column.kind for column in version.table.features}
    low, high = (ends.tolist() for ends in model.ranges)

    def outside(index: int) -> str:
        name = model.columns[index]
        is_date = kinds.get(name) == "date"
        start, end = (iso_date(end) if is_date else number(end, 6) for end in (low[index], high[index]))
        value = query.rows[0].get(name)
        return f"{name}{'' if value is None else f' = {_shown(value)}'}, in training {start} to {end}"

    return {
        "outside": [outside(index) for index in columns[:MAX_NAMED]],
        "more_outside": max(0, len(columns) - MAX_NAMED),
        "leverage": leverage if leverage > threshold else None,
        "threshold": threshold,
        "ranges_unknown": RANGES_UNKNOWN if model.unknown_ranges.any() else None,
    }
