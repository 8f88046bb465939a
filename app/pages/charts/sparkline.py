"""Sparkline: a small line chart without axes, for a cell of a table. Its accessible name has the ends and extremes."""

import math
from collections.abc import Mapping

from markupsafe import Markup

from app.pages.charts.svg import LinearScale, element, number, polyline

WIDTH, HEIGHT = 120.0, 28.0
_MARGIN = 4.0
_RADIUS = 2.5


def sparkline(values: Mapping[int, float | None], what: str) -> Markup:
    """Return the line of the values by version, which are in ascending order; the last one has a dot.

    Versions without a value interrupt the line.
    """
    known = {version: value for version, value in values.items() if value is not None and math.isfinite(value)}
    if not known:
        return Markup()
    y = LinearScale.over(known.values(), HEIGHT - _MARGIN, _MARGIN)
    x = LinearScale(0, max(1, len(values) - 1), _MARGIN, WIDTH - _MARGIN)
    points = [(x(i), y(known[version]) if version in known else math.nan) for i, version in enumerate(values)]
    single = [_dot(*point, "point") for point in _alone(points)]
    last = next(point for point in reversed(points) if math.isfinite(point[1]))
    return element(
        "svg",
        polyline(points, "line"),
        *single,
        _dot(*last, "point"),
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        role="img",
        aria_label=f"{what}: {_summary(known)}",
        class_="sparkline",
        xmlns="http://www.w3.org/2000/svg",
    )


def _alone(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points without a neighbour, which are drawn as dots because no line goes through them."""
    heights = [math.nan, *(height for _, height in points), math.nan]
    return [
        point
        for point, before, after in zip(points, heights, heights[2:], strict=False)
        if math.isfinite(point[1]) and not math.isfinite(before) and not math.isfinite(after)
    ]


def _dot(x: float, y: float, class_: str) -> Markup:
    return element("circle", cx=x, cy=y, r=_RADIUS, class_=class_)


def _summary(known: Mapping[int, float]) -> str:
    (first, begin), *_, (last, end) = [*known.items()] * 2 if len(known) == 1 else known.items()
    if first == last:
        return f"{number(end)} in version {last}"
    low, high = min(known.values()), max(known.values())
    return (
        f"from {number(begin)} in version {first} to {number(end)} in version {last}, "
        f"between {number(low)} and {number(high)}"
    )
