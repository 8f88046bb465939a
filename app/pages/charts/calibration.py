"""Calibration chart: the mean observation against the mean prediction in each tenth of the predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.pages.charts import svg

SIZE = 4.5  # Half the width of a marker.
LEGEND_ROW = 18.0  # Height of a row of the legend.


@dataclass(frozen=True)
class Series:
    """The points of one version: mean prediction and mean observation."""

    name: str
    points: tuple[tuple[float, float], ...]


def calibration(series: Sequence[Series], name: str, target: str) -> Markup:
    """Return the chart of up to four series, each with a colour and a shape of its own."""
    frame = svg.Frame(width=400, height=320 + LEGEND_ROW * len(series), top=12 + LEGEND_ROW * len(series))
    values = [value for each in series for point in each.points for value in point]
    x = svg.LinearScale.over(values, frame.left, frame.x_end, margin=0.04)
    y = svg.LinearScale(x.low, x.high, frame.y_end, frame.top)
    drawn: list[Markup] = []
    for index, each in enumerate(series):
        places = [(x(predicted), y(observed)) for predicted, observed in each.points]
        drawn.append(svg.polyline(places, f"series-line series-{index + 1}"))
        marks = [_marker(index, *place) for place in places]
        drawn.append(svg.path(marks, f"series-mark series-{index + 1}"))
        row = LEGEND_ROW * (index + 0.5)
        drawn.append(svg.path([_marker(index, frame.left + 6, row)], f"series-mark series-{index + 1}"))
        drawn.append(svg.text(svg.shortened(each.name), frame.left + 18, row + 4))
    diagonal = svg.line(frame.left, frame.y_end, frame.x_end, frame.top, "reference")
    description = (
        f"{len(series)} version{'s' if len(series) > 1 else ''}, each with a point for each tenth of its predictions. "
        "At points above the diagonal, the observations are higher than the predictions. The table has the numbers."
    )
    return svg.chart(
        frame,
        name,
        description,
        svg.x_axis(frame, x, f"Mean prediction of {target}"),
        svg.y_axis(frame, y, f"Mean observation of {target}"),
        diagonal,
        *drawn,
        class_="chart small",
    )


def _marker(index: int, x: float, y: float) -> str:
    """Return the path of a marker: a square, a diamond, a triangle or a cross."""
    left, right, above, below = map(svg.coordinate, (x - SIZE, x + SIZE, y - SIZE, y + SIZE))
    middle, level = svg.coordinate(x), svg.coordinate(y)
    shapes = (
        f"M{left} {above}H{right}V{below}H{left}Z",
        f"M{middle} {above}L{right} {level}L{middle} {below}L{left} {level}Z",
        f"M{middle} {above}L{right} {below}H{left}Z",
        f"M{left} {above}L{right} {below}M{right} {above}L{left} {below}",
    )
    return shapes[index % len(shapes)]
