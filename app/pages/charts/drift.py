"""Drift strips: how far the served values of each column are from those of the training rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.pages.charts import svg

ROW = 24.0


@dataclass(frozen=True)
class Strip:
    """One column: its distance from the training rows, and whether that counts as drift."""

    name: str
    distance: float
    drifted: bool


def strips(columns: Sequence[Strip], name: str, label: str, *, symmetric: bool) -> Markup:
    """Return a bar for each column, as long as its distance. Drifted columns have a mark and a text."""
    frame = svg.Frame(
        width=svg.WIDTH,
        height=ROW * len(columns) + 58,
        left=svg.label_width([each.name for each in columns]) + 14,
        right=84,
    )
    sizes = [abs(each.distance) for each in columns]
    ends = [0.5, *sizes, *(-size for size in [0.5, *sizes] if symmetric)]
    scale = svg.LinearScale.over(ends, frame.left, frame.x_end, include=[0.0], margin=0.04 if symmetric else 0.0)
    parts = [svg.x_axis(frame, scale, label), svg.line(scale(0.0), frame.top, scale(0.0), frame.y_end, "reference")]
    for index, each in enumerate(columns):
        y = frame.top + ROW * (index + 0.5)
        class_ = "bar-negative" if each.drifted else "bar"
        start, end = sorted((scale(0.0), scale(each.distance)))
        parts.append(svg.name_text(each.name, frame.left - 10, y + 4))
        parts.append(svg.element("rect", x=start, y=y - 6, width=max(1.0, end - start), height=12.0, class_=class_))
        if each.drifted:
            parts.append(svg.text("drifted", frame.width - 4, y + 4, "value", "end"))
    count = sum(each.drifted for each in columns)
    description = f"{len(columns)} columns, {count} drifted."
    return svg.chart(frame, name, description, *parts)
