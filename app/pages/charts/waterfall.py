"""Waterfall: how contributions lead from a baseline to a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.pages.charts import svg

ROW = 26.0
BAR = 16.0
NUMBER_WIDTH = 64.0
ROUNDING = 1e-13  # Largest rounding error of a contribution, relative to the numbers of its sum.


@dataclass(frozen=True)
class Contribution:
    name: str
    value: float


def without_noise(contributions: Sequence[Contribution], size: float) -> list[Contribution]:
    """Return the contributions with 0 for those that are rounding errors of numbers of this size."""
    least = ROUNDING * max([size, *(abs(each.value) for each in contributions)])
    return [Contribution(each.name, each.value if abs(each.value) > least else 0.0) for each in contributions]


def largest(contributions: Sequence[Contribution], most: int) -> list[Contribution]:
    """Return at most `most` contributions: the largest, in the given order, and the sum of the others."""
    if len(contributions) <= most:
        return list(contributions)
    ranked = sorted(range(len(contributions)), key=lambda index: -abs(contributions[index].value))
    kept = sorted(ranked[: most - 1])
    rest = sum(contributions[index].value for index in ranked[most - 1 :])
    others = Contribution(f"{len(contributions) - len(kept)} others", rest)
    return [*(contributions[index] for index in kept), others]


def waterfall(baseline: float, contributions: Sequence[Contribution], prediction: float, name: str) -> Markup:
    """Return the chart: the baseline, a step for each contribution, and the prediction."""
    names = ["Training mean", *(each.name for each in contributions), "Prediction"]
    frame = svg.Frame(
        width=svg.WIDTH, height=ROW * len(names) + 58, left=svg.label_width(names) + 14, right=NUMBER_WIDTH + 12
    )
    totals = [baseline]
    for each in contributions:
        totals.append(totals[-1] + each.value)
    scale = svg.LinearScale.over([*totals, prediction], frame.left, frame.x_end, margin=0.06)
    parts = [svg.x_axis(frame, scale, "Prediction")]
    for index, words in enumerate(names):
        y = frame.top + ROW * (index + 0.5)
        parts.append(svg.name_text(words, frame.left - 10, y + 4))
        if index in (0, len(names) - 1):
            x = scale(baseline if index == 0 else prediction)
            parts.append(svg.line(x, y - ROW / 2, x, y + ROW / 2, "total"))
            parts.append(
                svg.text(svg.number(baseline if index == 0 else prediction), frame.width - 4, y + 4, "value", "end")
            )
            continue
        before, after, value = totals[index - 1], totals[index], contributions[index - 1].value
        start, end = sorted((scale(before), scale(after)))
        class_ = "bar-negative" if value < 0 else "bar"
        parts.append(
            svg.element("rect", x=start, y=y - BAR / 2, width=max(1.0, end - start), height=BAR, class_=class_)
        )
        parts.append(svg.line(scale(after), y, scale(after), y + ROW, "step"))
        parts.append(svg.text(signed(value), frame.width - 4, y + 4, "value", "end"))
    description = f"From {svg.number(baseline)} by {len(contributions)} steps to {svg.number(prediction)}."
    return svg.chart(frame, name, description, *parts)


def signed(value: float) -> str:
    """Return a number with its sign."""
    return f"+{svg.number(value)}" if value > 0 else svg.number(value)
