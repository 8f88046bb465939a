"""Charts of residual diagnostics: residuals against fitted values, quantiles, leverage and partial residuals."""

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from operator import itemgetter

from markupsafe import Markup

from app.pages.charts import svg

SHADES = 6  # Shades of a heat map.


def heat_map(
    x_edges: Sequence[float],
    y_edges: Sequence[float],
    counts: Sequence[Sequence[int]],
    name: str,
    labels: tuple[str, str],
) -> Markup:
    """Return the heat map of counts[x][y]. The shade of a cell grows with the logarithm of its count."""
    frame = svg.Frame(height=280, left=64)
    x_scale = svg.LinearScale.over(x_edges, frame.left, frame.x_end)
    y_scale = svg.LinearScale.over(y_edges, frame.y_end, frame.top)
    places = [round(y_scale(edge)) for edge in y_edges]
    most = max((count for column in counts for count in column), default=0)
    commands: list[list[str]] = [[] for _ in range(SHADES)]
    for column, (left, right) in zip(counts, pairwise(round(x_scale(edge)) for edge in x_edges), strict=True):
        cells_of_column = zip((_shade(count, most) for count in column), pairwise(places), strict=True)
        for shade, run in groupby(cells_of_column, key=itemgetter(0)):
            if shade is not None:
                ends = [ends for _, ends in run]
                commands[shade].append(_box(left, ends[-1][1], right, ends[0][0]))
    cells = [
        svg.path(boxes, "cell", fill_opacity=f"{(shade + 1) / SHADES:.2f}")
        for shade, boxes in enumerate(commands)
        if boxes
    ]
    zero = svg.line(frame.left, y_scale(0.0), frame.x_end, y_scale(0.0), "reference")
    description = f"At most {most} rows in a cell. The dashed line is a residual of 0."
    axes = [svg.x_axis(frame, x_scale, labels[0]), svg.y_axis(frame, y_scale, labels[1])]
    return svg.chart(frame, name, description, *axes, *cells, zero)


def _shade(count: int, most: int) -> int | None:
    """Return the shade of a cell from 0 on, or None if it is empty."""
    if count <= 0:
        return None
    return min(max(math.ceil(SHADES * math.log1p(count) / math.log1p(most)) - 1, 0), SHADES - 1)


def quantiles(theoretical: Sequence[float], observed: Sequence[float], name: str) -> Markup:
    """Return the plot of observed quantiles against those of the normal distribution."""
    frame = svg.Frame(height=280)
    ends = svg.extent([*theoretical, *observed])
    x_scale = svg.LinearScale.over(theoretical, frame.left, frame.x_end, margin=0.04)
    y_scale = svg.LinearScale.over(observed, frame.y_end, frame.top, include=list(svg.extent(theoretical)), margin=0.04)
    low, high = max(ends[0], x_scale.low), min(ends[1], x_scale.high)
    line = svg.line(x_scale(low), y_scale(low), x_scale(high), y_scale(high), "reference")
    points = svg.dots((x_scale(x), y_scale(y)) for x, y in zip(theoretical, observed, strict=True) if math.isfinite(y))
    axes = [
        svg.x_axis(frame, x_scale, "Quantile of the normal distribution"),
        svg.y_axis(frame, y_scale, "Standardised residual"),
    ]
    return svg.chart(frame, name, "Normal residuals are on the dashed line.", *axes, line, points)


def bars(
    edges: Sequence[float], counts: Sequence[int], name: str, label: str, *, threshold: float | None = None
) -> Markup:
    """Return a histogram, with a line at a threshold."""
    frame = svg.Frame(height=240)
    include = [] if threshold is None else [threshold]
    x_scale = svg.LinearScale.over(edges, frame.left, frame.x_end, include=include)
    y_scale = svg.LinearScale.over([0, *counts], frame.y_end, frame.top)
    boxes = [
        _box(x_scale(left), y_scale(count), x_scale(right), y_scale(0))
        for count, (left, right) in zip(counts, pairwise(edges), strict=True)
        if count > 0
    ]
    axes = [svg.x_axis(frame, x_scale, label), svg.y_axis(frame, y_scale, "Rows")]
    mark = (
        []
        if threshold is None
        else [svg.line(x_scale(threshold), frame.top, x_scale(threshold), frame.y_end, "reference")]
    )
    description = f"{sum(counts)} rows in {len(counts)} bins."
    description += "" if threshold is None else f" The dashed line is the threshold, {svg.number(threshold)}."
    return svg.chart(frame, name, description, *axes, svg.path(boxes, "bar"), *mark)


def partial_residuals(edges: Sequence[float], means: Sequence[float | None], column: str) -> Markup:
    """Return the means of the partial residuals of one column by bins of its values."""
    frame = svg.Frame(width=340, height=210)
    x_scale = svg.LinearScale.over(edges, frame.left, frame.x_end)
    known = [mean for mean in means if mean is not None]
    y_scale = svg.LinearScale.over(known, frame.y_end, frame.top, margin=0.06)
    points = [
        (x_scale((left + right) / 2), math.nan if mean is None else y_scale(mean))
        for mean, (left, right) in zip(means, pairwise(edges), strict=True)
    ]
    axes = [svg.x_axis(frame, x_scale, column, 4), svg.y_axis(frame, y_scale, "Partial residual", 4)]
    name = f"Partial residuals of {column}"
    kept = [point for point in points if math.isfinite(point[1])]
    return svg.chart(
        frame,
        name,
        f"Means in {len(known)} bins.",
        *axes,
        svg.polyline(kept, "line"),
        svg.dots(kept),
        class_="chart small",
    )


def _box(left: float, top: float, right: float, bottom: float) -> str:
    x, y, width, height = map(svg.coordinate, (left, top, max(right - left, 0.5), max(bottom - top, 0.5)))
    return f"M{x} {y}h{width}v{height}h-{width}z"
