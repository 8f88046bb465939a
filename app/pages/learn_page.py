"""The notebook: gradient descent step by step, with the learner's learning rate and number of steps."""

import json
import shlex
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.responses import Response

from app.errors import FieldError, InvalidInput
from app.pages.access import AccessScope, page_access
from app.pages.charts import svg
from app.pages.charts.loss import Curve, loss_chart, rate_gauge
from app.pages.code_lines import KEY, base_url
from app.pages.page_route import PageRoute
from app.pages.rendering import render
from app.regression import worked_example as example
from app.regression.worked_example import ALL, FIVE, START, Descent, Table, descend
from app.web.problems import problem_from_error
from app.web.query import check_query
from app.web.state import get_services

RATE, STEPS = 1e-5, 100  # those of the notebook
MAX_RATE, MAX_STEPS = 1.0, 1000
_FIRST = 2  # steps that are taken one by one
_NEAR = (0.5, 0.99, 1.01, 1.1)  # learning rates near the bound, relative to it
_NEAR_STEPS = 60
_NEAR_GROWTH, _MAX_GROWTH = 1e3, 1e6  # Largest losses of the charts, relative to the first.
_MAX_POINTS = 300  # Points of a curve.

router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[page_access(AccessScope.READ)])


@router.get("/learn")
def learn(request: Request) -> Response:
    given = {name: request.query_params.get(name, "").strip() for name in ("rate", "steps")}
    problem, faults = None, {}
    rate, steps = RATE, STEPS
    try:
        check_query(request.query_params, given)
        rate, steps = _parse(given["rate"], given["steps"])
    except InvalidInput as error:
        problem = problem_from_error(type(error).__name__, error.message, error.details)
        faults = {detail.parameter: detail.message for detail in error.details}
    context = {
        "title": "Learn",
        "problem": problem,
        "faults": faults,
        "entered": {"rate": given["rate"] or "1e-5", "steps": given["steps"] or str(STEPS)},
        "calls": Calls(base_url(request), rate, steps, with_key=get_services(request).access.has_keys),
        **_lesson(rate, steps),
    }
    return render(request, "learn.html", context, problem["status"] if problem else 200)


def _parse(rate: str, steps: str) -> tuple[float, int]:
    """Return the learning rate and the number of steps. An empty text is the notebook's. Raises InvalidInput."""
    found, count, faults = RATE, STEPS, []
    try:
        found = float(rate) if rate else RATE
    except ValueError:
        found = 0.0
    if not 0 < found <= MAX_RATE:
        message = f"Expected a learning rate above 0 and at most {MAX_RATE:g}, such as 1e-5 or 0.0001."
        faults.append(FieldError(message, parameter="rate"))
    if steps:
        count = int(steps) if steps.isascii() and steps.isdigit() and len(steps) <= len(str(MAX_STEPS)) else 0
    if not 1 <= count <= MAX_STEPS:
        faults.append(FieldError(f"Expected a whole number of steps from 1 to {MAX_STEPS}.", parameter="steps"))
    if faults:
        raise InvalidInput(" ".join(fault.message for fault in faults), faults)
    return found, count


@lru_cache(maxsize=16)
def _lesson(rate: float, steps: int) -> dict[str, Any]:
    """Return the numbers and the charts of the page. They take longer than the rest of it, so some are kept."""
    run = descend(FIVE, START, rate, _FIRST + 2 * steps)
    one, two = (descend(FIVE, START, rate, count) for count in (1, 2))
    bound = FIVE.largest_learning_rate
    near = [(ratio, ratio * bound, descend(FIVE, START, ratio * bound, _NEAR_STEPS).losses) for ratio in _NEAR]
    new_region = np.array([example.NEW_REGION])
    return {
        "features": example.FEATURES,
        "targets": example.TARGETS,
        "rows": [(*x, *y) for x, y in zip(FIVE.x.tolist(), FIVE.y.tolist(), strict=True)],
        "row_count": len(ALL.x),
        "rate": rate,
        "rate_text": f"{rate:g}",
        "steps": steps,
        "start": START,
        "predictions": list(zip(FIVE.predict(START).tolist(), FIVE.y.tolist(), strict=True)),
        "first_loss": run.losses[0],
        "gradient": FIVE.gradient(START),
        "one": one,
        "two": two,
        "milestones": _milestones(run, steps),
        "run": run,
        "run_chart": loss_chart(
            [Curve("", _thinned(run.losses))], "Loss of your run", x_label="step", highest=_MAX_GROWTH * run.losses[0]
        ),
        "smallest_loss": FIVE.loss(FIVE.optimum),
        "bound": bound,
        "gauge": rate_gauge(rate, bound),
        "directions": [(value, 1 - rate * value) for value in FIVE.eigenvalues],
        "near_chart": _near_chart(rate, near),
        "near_steps": _NEAR_STEPS,
        "near": [(ratio, near_rate, losses[-1]) for ratio, near_rate, losses in near],
        "optimum_loss": ALL.loss(ALL.optimum),
        "optimum": ALL.optimum,
        "new_region": example.NEW_REGION,
        "new_prediction": Table(new_region, ALL.y[:1]).predict(ALL.optimum)[0].tolist(),
        "number": svg.number,
    }


def _milestones(run: Descent, steps: int) -> list[tuple[int, float]]:
    """Return the losses at the start, after the first steps, and after each of two rounds of `steps`."""
    at = dict.fromkeys((0, 1, _FIRST, _FIRST + steps, _FIRST + 2 * steps))
    return [(step, run.losses[step]) for step in at if step < len(run.losses)]


def _thinned(losses: list[float]) -> list[tuple[int, float]]:
    """Return the step and the loss of at most about _MAX_POINTS steps, with the first and the last."""
    stride = -(-len(losses) // _MAX_POINTS)
    points = list(enumerate(losses))
    return [*points[:-1:stride], points[-1]]


def _near_chart(rate: float, near: list[tuple[float, float, list[float]]]) -> Markup:
    """Return the losses at learning rates below and above the bound, and that of the learner."""
    curves = [Curve(f"your {svg.number(rate, 3)}", _thinned(descend(FIVE, START, rate, _NEAR_STEPS).losses))]
    curves += [Curve(f"{ratio:g} \N{MULTIPLICATION SIGN} bound", _thinned(losses)) for ratio, _, losses in near]
    highest = _NEAR_GROWTH * FIVE.loss(START)
    return loss_chart(curves, "Loss below and above the bound", x_label="step", highest=highest)


@dataclass(frozen=True)
class Calls:
    """Commands for a shell that take the steps of the page through the API, in the page's order."""

    url: str
    rate: float
    steps: int
    with_key: bool

    def data(self) -> str:
        """Store the rows, and return what the service would read."""
        header = ",".join((*example.FEATURES, *example.TARGETS))
        rows = (",".join(f"{cell:g}" for cell in (*x, *y)) for x, y in zip(ALL.x, ALL.y, strict=True))
        lines = "\n".join([header, *rows])
        return f"cat > yields.csv <<'END'\n{lines}\nEND\n{self._five_rows('/inspect', {'targets': 'apples,oranges'})}"

    def weights(self) -> str:
        """Publish the random weights: the one step is too short to change them."""
        return f"{self._train(1, 1e-300)}\n{self._predict(FIVE.x.tolist())}"

    def loss(self) -> str:
        return self._curl("/jobs/latest")

    def two_steps(self) -> str:
        return f"{self._train(_FIRST, self.rate)}\n{self._curl('/models/notebook')}"

    def more_steps(self) -> str:
        options = {**self._descent(self.steps, self.rate), "start": "current"}
        return "\n".join([self._five_rows("/train", options)] * 2)

    def above_bound(self) -> str:
        return self._train(200, float(f"{1.01 * FIVE.largest_learning_rate:.4g}"))

    def built_ins(self) -> str:
        return self._all_rows({**self._descent(100, RATE), "batch_size": "5"})

    def exact(self) -> str:
        trained = self._all_rows({"model": "notebook", "targets": "apples,oranges", "solver": "exact"})
        return f"{trained}\n{self._predict([list(example.NEW_REGION)])}"

    @staticmethod
    def _descent(epochs: int, rate: float) -> dict[str, str]:
        named = {"model": "notebook", "targets": "apples,oranges", "solver": "gradient_descent"}
        return {**named, "epochs": str(epochs), "learning_rate": f"{rate:g}"}

    def _train(self, epochs: int, rate: float) -> str:
        start = {"weights": example.WEIGHTS, "intercept": example.INTERCEPT}
        solver = {"kind": "gradient_descent", "epochs": epochs, "learning_rate": rate, "start": start}
        body = {
            "model": "notebook",
            "feature_names": example.FEATURES,
            "target_names": example.TARGETS,
            "instances": _whole(FIVE.x.tolist()),
            "targets": _whole(FIVE.y.tolist()),
            "solver": solver,
        }
        return self._curl("/train", "-H 'Prefer: wait=10'", f"--json '{_lines(body)}'")

    def _predict(self, rows: list[list[float]]) -> str:
        return self._curl("/models/notebook/predict", f"--json '{json.dumps({'instances': _whole(rows)})}'")

    def _five_rows(self, path: str, options: dict[str, str]) -> str:
        wait = ["-H 'Prefer: wait=10'"] if path == "/train" else []
        rows = ["-H 'Content-Type: text/csv'", "--data-binary @-"]
        return f"head -6 yields.csv |\n  {self._curl(path, *wait, *rows, options=options)}"

    def _all_rows(self, options: dict[str, str]) -> str:
        rows = ["-H 'Content-Type: text/csv'", "--data-binary @yields.csv"]
        return self._curl("/train", "-H 'Prefer: wait=10'", *rows, options=options)

    def _curl(self, path: str, *arguments: str, options: dict[str, str] | None = None) -> str:
        query = "?" + "&".join(f"{name}={value}" for name, value in options.items()) if options else ""
        key = [f"-H 'Authorization: Bearer {KEY}'"] if self.with_key else []
        words = ["curl", *key, *arguments]
        separator = " \\\n    " if options else " "  # a long URL has a line of its own
        return " ".join(words) + separator + shlex.quote(f"{self.url}{path}{query}")


def _lines(body: dict[str, Any], indent: str = "  ") -> str:
    """Return an object as JSON with a line for each field, also of objects in it."""
    fields = [
        f"{json.dumps(name)}: {_lines(value, indent + '  ') if isinstance(value, dict) else json.dumps(value)}"
        for name, value in body.items()
    ]
    return "{\n" + ",\n".join(indent + field for field in fields) + f"\n{indent[2:]}}}"


def _whole(rows: list[list[float]]) -> list[list[float]]:
    """Return the rows with whole numbers as such, which are shorter in JSON."""
    return [[int(cell) if cell.is_integer() else cell for cell in row] for row in rows]
