"""Forest plot: estimates with their intervals, one below the other, about zero."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.pages.charts import svg

ROW = 24.0  # Height of an estimate.


@dataclass(frozen=True)
class Estimate:
    """A number with the bounds of its interval, which are None if it has none."""

    name: str
    value: float
    lower: float | None = None
    upper: float | None = None


def forest(estimates: Sequence[Estimate], name: str, label: str) -> Markup:
    """Return the plot. `label` says what the numbers are."""
    frame = svg.Frame(
        width=svg.WIDTH,
        height=ROW * len(estimates) + 58,
        left=svg.label_width([estimate.name for estimate in estimates]) + 14,
    )
    values = [value for each in estimates for value in (each.value, each.lower, each.upper) if value is not None]
    scale = svg.LinearScale.over(values, frame.left, frame.x_end, include=[0.0], margin=0.04)
    rows: list[Markup] = []
    marks: list[tuple[float, float]] = []
    for index, each in enumerate(estimates):
        y = frame.top + ROW * (index + 0.5)
        rows.append(svg.name_text(each.name, frame.left - 10, y + 4))
        if each.lower is not None and each.upper is not None:
            left, right = scale(each.lower), scale(each.upper)
            start, end, above, below = map(svg.coordinate, (left, right, y - 4, y + 4))
            command = f"M{start} {above}V{below}M{start} {svg.coordinate(y)}H{end}M{end} {above}V{below}"
            rows.append(svg.path([command], "interval"))
        if math.isfinite(each.value):
            marks.append((scale(each.value), y))
    zero = svg.line(scale(0.0), frame.top, scale(0.0), frame.y_end, "reference")
    crossing = sum(1 for each in estimates if _crosses_zero(each))
    without = sum(1 for each in estimates if each.lower is None)
    parts = [f"{len(estimates)} coefficients"]
    parts += [f"{crossing} with an interval that contains 0"] if without < len(estimates) else []
    parts += [f"{without} without an interval"] if without else []
    description = f"{', '.join(parts)}. The table has the numbers."
    axis = svg.x_axis(frame, scale, label)
    return svg.chart(frame, name, description, axis, zero, *rows, svg.dots(marks, "dots large"))


def _crosses_zero(estimate: Estimate) -> bool:
    return estimate.lower is not None and estimate.upper is not None and estimate.lower <= 0 <= estimate.upper
