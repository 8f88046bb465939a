"""Loss curves of descents, and a gauge that shows a learning rate next to its bound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup

from app.pages.charts import svg

Point: TypeAlias = tuple[float, float]  # epoch and loss

_STYLES = 5  # Styles of curves, which differ in colour and in dashes.
_LABEL_HEIGHT = 15.0
_GAUGE_LOW, _GAUGE_HIGH = 1e-3, 10.0  # Learning rates at the ends of a gauge, relative to the bound.


@dataclass(frozen=True)
class Curve:
    """The loss after each epoch or step."""

    name: str
    points: Sequence[Point]


def loss_chart(
    curves: Sequence[Curve], name: str, *, log: bool = True, x_label: str = "epoch", highest: float = math.inf
) -> Markup:
    """Return the curves. With several, each has its name at its end. A curve ends when it is above `highest`.

    The logarithmic axis is used only if there is a positive loss.
    """
    shown = [Curve(curve.name, _up_to(highest, curve.points)) for curve in curves]
    several = len(shown) > 1
    labels = 6.6 * max(len(curve.name) for curve in shown) + 24 if several else 24
    frame = svg.Frame(width=720, height=300, left=64, right=labels)
    losses = [loss for curve in shown for _, loss in curve.points]
    log = log and any(0 < loss < math.inf for loss in losses)
    x = svg.LinearScale.over([epoch for curve in shown for epoch, _ in curve.points], frame.left, frame.x_end)
    y: svg.Scale = svg.LinearScale.over(losses, frame.y_end, frame.top, include=[0.0], margin=0.02)
    if log:
        y = svg.LogScale.over(losses, frame.y_end, frame.top)
    lines = [
        svg.polyline(((x(epoch), y(loss)) for epoch, loss in curve.points), f"curve curve-{index % _STYLES + 1}")
        for index, curve in enumerate(shown)
    ]
    names = _names_at_ends(frame, [(curve.name, y(curve.points[-1][1])) for curve in shown]) if several else []
    description = " ".join(_described(curve, x_label) for curve in curves)
    axes = (svg.x_axis(frame, x, x_label), svg.y_axis(frame, y, "loss, logarithmic" if log else "loss"))
    return svg.chart(frame, name, description, *axes, *lines, *names)


def rate_gauge(rate: float, bound: float) -> Markup:
    """Return a line of learning rates with the bound and the rate of a run, which may be outside the line."""
    frame = svg.Frame(width=360, height=92, left=10, right=10, top=34, bottom=34)
    scale = svg.LogScale(bound * _GAUGE_LOW, bound * _GAUGE_HIGH, frame.left, frame.x_end)
    middle, end, place = (frame.top + frame.y_end) / 2, scale(bound), scale(rate)
    stable = svg.element("rect", x=frame.left, y=frame.top, width=end - frame.left, height=24, class_="stable")
    unstable = svg.element("rect", x=end, y=frame.top, width=frame.x_end - end, height=24, class_="unstable")
    marker = svg.element("circle", cx=place, cy=middle, r=6, class_="marker")
    parts = (
        stable,
        unstable,
        svg.text("stable", frame.left + 8, middle + 4, "label"),
        svg.text("diverges", (end + frame.x_end) / 2, middle + 4, "label", "middle"),
        svg.line(end, frame.top - 8, end, frame.y_end + 8, "limit"),
        svg.text(f"bound {svg.number(bound)}", end, frame.y_end + 22, "label", "middle"),
        svg.line(place, frame.top - 8, place, middle - 6, "reference"),
        marker,
        svg.text(f"this run {svg.number(rate)}", place, frame.top - 13, "label", _anchor(place, frame)),
    )
    side = "below" if rate < bound else "not below"
    description = f"The learning rate {svg.number(rate)} is {side} the bound {svg.number(bound)}."
    return svg.chart(frame, "Learning rate and its bound", description, *parts, class_="chart gauge")


def _up_to(highest: float, points: Sequence[Point]) -> Sequence[Point]:
    """Return the points up to the limit. The last one is interpolated."""
    for index, (epoch, loss) in enumerate(points):
        if not loss <= highest:
            share = 1.0
            if index > 0 and 0 < points[index - 1][1] < loss < math.inf:
                share = math.log(highest / points[index - 1][1]) / math.log(loss / points[index - 1][1])
            return [*points[:index], (epoch - (1 - share) * (epoch - points[max(index - 1, 0)][0]), highest)]
    return points


def _names_at_ends(frame: svg.Frame, names: Sequence[tuple[str, float]]) -> list[Markup]:
    """Return the names right of the plot, at the heights of their curves' ends, and apart from each other."""
    texts: list[Markup] = []
    last = frame.top - _LABEL_HEIGHT
    lowest = frame.y_end - _LABEL_HEIGHT * (len(names) - 1)
    for index, (name, y) in sorted(enumerate(names), key=lambda item: item[1][1]):
        last = max(min(y, lowest + _LABEL_HEIGHT * len(texts)), last + _LABEL_HEIGHT)
        texts.append(svg.text(name, frame.x_end + 8, last + 4, f"label name-{index % _STYLES + 1}"))
    return texts


def _described(curve: Curve, x_label: str) -> str:
    (first, begin), (last, end) = curve.points[0], curve.points[-1]
    to = svg.number(end) if math.isfinite(end) else "more than 64-bit numbers can hold"
    subject = f"{curve.name}: the" if curve.name else "The"
    return f"{subject} loss goes from {svg.number(begin)} at {x_label} {first} to {to} at {x_label} {last}."


def _anchor(place: float, frame: svg.Frame) -> str:
    if place < frame.left + frame.width / 8:
        return "start"
    return "end" if place > frame.x_end - frame.width / 8 else "middle"
