"""Scales, axes and elements of charts that are drawn here, as SVG.

A chart made by the service needs no script. Elements have classes and no colours: the style sheet has the colours, and
the dark mode changes them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from markupsafe import Markup, escape

Content: TypeAlias = str | Markup

# Steps between the ticks of a linear axis, up to a power of 10.
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LARGEST_PLAIN = 1e6  # Numbers from this size on are written with an exponent.
_SMALLEST_PLAIN = 1e-4  # Numbers below this size are written with an exponent.
_LARGEST = 1e300  # Largest size of a value on an axis. Larger ones are drawn at the end of the axis.
_MAX_CAPTION = 60  # Characters of the label of an axis.
_MAX_LABEL = 22  # Characters of a name on an axis. The element's title has the whole name.
_CHARACTER_WIDTH = 6.6  # Width of a character of a label, in units of the drawing.


class Scale(Protocol):
    """A function from values to positions, and the values to label."""

    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...

    def __call__(self, value: float) -> float: ...
    def ticks(self, count: int = 5) -> list[float]: ...
    def labels(self, count: int = 5) -> list[str]: ...


@dataclass(frozen=True)
class LinearScale:
    """Values from `low` to `high` at positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(
        cls, values: Iterable[float], start: float, end: float, *, include: Sequence[float] = (), margin: float = 0.0
    ) -> "LinearScale":
        """Return the scale that shows all finite values, with a share `margin` of the width more at each end."""
        low, high = extent([*values, *include])
        spare = (high - low) * margin
        return cls(low - spare, high + spare, start, end)

    def __call__(self, value: float) -> float:
        """Return the position of a value. One outside the scale is at the end that is closer."""
        share = (clamp(value, self.low, self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about `count` round values within the scale, in ascending order."""
        step = nice_step((self.high - self.low) / max(1, count))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def labels(self, count: int = 5) -> list[str]:
        """Return the texts of the ticks, all with the same number of decimals."""
        ticks = self.ticks(count)
        largest = max(map(abs, ticks), default=0.0)
        step = ticks[1] - ticks[0] if len(ticks) > 1 else largest
        if largest >= _LARGEST_PLAIN or 0 < step < _SMALLEST_PLAIN:
            digits = min(17, max(3, 2 + math.ceil(math.log10(largest / step))))
            return [number(tick, digits) if abs(tick) > step / 2 else "0" for tick in ticks]
        decimals = _decimals(step)
        return [_minus(f"{tick + 0.0:.{decimals}f}") for tick in ticks]


@dataclass(frozen=True)
class LogScale:
    """Positive values from `low` to `high` at positions from `start` to `end`, in equal steps for equal ratios."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Iterable[float], start: float, end: float) -> "LogScale":
        """Return the scale that shows all positive finite values."""
        kept = [min(value, _LARGEST) for value in values if value > 0 and math.isfinite(value)]
        low, high = (min(kept), max(kept)) if kept else (1.0, 10.0)
        # Subnormal numbers have too few digits for ratios.
        low, high = max(low, 1 / _LARGEST), max(high, 1 / _LARGEST)
        if high / low < 1 + 1e-9:
            low, high = low / 2, high * 2
        return cls(low, high, start, end)

    def __call__(self, value: float) -> float:
        """Return the position of a value. One outside the scale is at the end that is closer."""
        bounded = clamp(value, self.low, self.high)
        share = (math.log(bounded) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return powers of 10 within the scale, or also 2 and 5 times these if there are few, in ascending order."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        every = max(1, math.ceil((last - first + 1) / max(1, count + 2)))
        factors = (1.0,) if last - first > 3 else (1.0, 2.0, 5.0)  # noqa: PLR2004 - decades
        powers = [exponent for exponent in range(first, last + 1) if exponent % every == 0]
        values = [factor * 10.0**exponent for exponent in powers for factor in factors]
        kept = [value for value in values if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
        return kept or [math.sqrt(self.low) * math.sqrt(self.high)]

    def labels(self, count: int = 5) -> list[str]:
        """Return the texts of the ticks."""
        return [number(tick, 3) for tick in self.ticks(count)]


def clamp(value: float, low: float, high: float) -> float:
    """Return the value, or the closer bound if it is outside. NaN becomes `low`."""
    return low if math.isnan(value) else min(max(value, low), high)


def extent(values: Iterable[float]) -> tuple[float, float]:
    """Return the smallest and largest finite value, apart by at least what an axis needs; (0, 1) without any."""
    kept = [clamp(value, -_LARGEST, _LARGEST) for value in values if math.isfinite(value)]
    if not kept:
        return 0.0, 1.0
    low, high = min(kept), max(kept)
    least = max(abs(low), abs(high)) * 1e-9 + 1 / _LARGEST
    if high - low <= least:
        spare = max(abs(low), abs(high)) / 2
        spare = spare if spare > 1 / _LARGEST else 0.5
        return low - spare, high + spare
    return low, high


def nice_step(step: float) -> float:
    """Return the smallest round number that is at least `step`, which is positive."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (*_STEPS, 20.0) if factor * power >= step * (1 - 1e-9))


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as a person reads it, with this many significant digits; a dash without one."""
    if value is None or not math.isfinite(value):
        return "–"  # noqa: RUF001 - a dash
    if value == 0:
        return "0"
    if not _SMALLEST_PLAIN <= abs(value) < _LARGEST_PLAIN:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return _minus(f"{mantissa}e{int(exponent)}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return _minus(text.rstrip("0").rstrip(".") if "." in text else text)


def _minus(text: str) -> str:
    """Return the text of a number. Negative ones have a true minus, which is as wide as a plus."""
    return text.replace("-", "\N{MINUS SIGN}")


def _decimals(step: float) -> int:
    """Return the number of decimals that tell multiples of the step apart."""
    for decimals in range(9):
        if abs(step * 10**decimals - round(step * 10**decimals)) < 1e-6 * step * 10**decimals:
            return decimals
    return 9


def element(tag: str, *children: Content, **attributes: Content | float | None) -> Markup:
    """Return an element. Texts and attributes are escaped, unless they are Markup.

    A trailing underscore of an attribute's name is dropped, as in `class_`, and others become hyphens, except in
    `viewBox`. Attributes of None are left out.
    """
    parts = [
        f' {name.rstrip("_").replace("_", "-")}="{escape(value if isinstance(value, str) else coordinate(value))}"'
        for name, value in attributes.items()
        if value is not None
    ]
    content = "".join([escape(child) for child in children])
    # Names are from this package and everything else is escaped. Markup.format would take ten times as long.
    return Markup(f"<{tag}{''.join(parts)}>{content}</{tag}>")  # noqa: S704


def coordinate(value: float) -> str:
    """Return a coordinate as text, rounded to less than a pixel."""
    short = f"{value:.1f}"
    return short.removesuffix(".0") if not short.startswith("-0.0") else "0"


def group(*children: Content, **attributes: Content | float | None) -> Markup:
    """Return a group of elements."""
    return element("g", *children, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def text(content: str, x: float, y: float, class_: str = "label", anchor: str = "start") -> Markup:
    """Return a text whose first, middle or last point is at x, by `anchor`: start, middle or end."""
    return element("text", content, x=x, y=y, class_=class_, text_anchor=anchor)


def name_text(name: str, x: float, y: float, anchor: str = "end", *, longest: int = _MAX_LABEL) -> Markup:
    """Return a name, cut if it is long. The whole name is its tooltip."""
    short = shortened(name, longest)
    title = [element("title", name)] if short != name else []
    return element("text", short, *title, x=x, y=y, class_="label", text_anchor=anchor)


def shortened(name: str, longest: int = _MAX_LABEL) -> str:
    """Return the name, or its beginning and end if it is longer than `longest`."""
    if len(name) <= longest:
        return name
    tail = longest // 3
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"


def label_width(names: Iterable[str], *, longest: int = _MAX_LABEL, least: float = 40.0) -> float:
    """Return the width that the longest of the names takes once it is cut."""
    return max(least, _CHARACTER_WIDTH * max((len(shortened(name, longest)) for name in names), default=0))


def path(commands: Iterable[str], class_: str, **attributes: Content | float | None) -> Markup:
    """Return one path of several commands."""
    return element("path", d="".join(commands), class_=class_, **attributes)


def dots(points: Iterable[tuple[float, float]], class_: str = "dots") -> Markup:
    """Return a dot at each point that is finite, all in one path, as lines without length and with round ends."""
    kept = [point for point in points if all(map(math.isfinite, point))]
    return path((f"M{coordinate(x)} {coordinate(y)}h0" for x, y in kept), class_)


def polyline(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Return a line through points, which is interrupted at points that are not finite."""
    commands, moved = [], False
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            moved = False
            continue
        commands.append(f"{'L' if moved else 'M'}{coordinate(x)} {coordinate(y)}")
        moved = True
    return path(commands, class_)


WIDTH = 440.0  # Width of a chart by default. Its text is still legible on a phone.


@dataclass(frozen=True)
class Frame:
    """The size of a chart, and the margins around its plot, in units of the drawing."""

    width: float = WIDTH
    height: float = 280.0
    left: float = 56.0
    right: float = 16.0
    top: float = 12.0
    bottom: float = 44.0

    @property
    def x_end(self) -> float:
        """The right end of the plot."""
        return self.width - self.right

    @property
    def y_end(self) -> float:
        """The lower end of the plot."""
        return self.height - self.bottom


def x_axis(frame: Frame, scale: Scale, label: str, count: int = 6) -> Markup:
    """Return the axis below the plot, with vertical grid lines."""
    places = [scale(tick) for tick in scale.ticks(count)]
    words = [
        text(label, x, frame.y_end + 16, "tick", "middle") for x, label in zip(places, scale.labels(count), strict=True)
    ]
    grid = path((f"M{coordinate(x)} {coordinate(frame.top)}V{coordinate(frame.y_end)}" for x in places), "grid")
    base = line(frame.left, frame.y_end, frame.x_end, frame.y_end, "axis")
    middle = (scale.start + scale.end) / 2
    caption = text(shortened(label, _MAX_CAPTION), middle, frame.height - 6, "axis-label", "middle")
    return group(grid, base, *words, caption, class_="x-axis")


def y_axis(frame: Frame, scale: Scale, label: str, count: int = 5) -> Markup:
    """Return the axis left of the plot, with horizontal grid lines."""
    places = [scale(tick) for tick in scale.ticks(count)]
    words = [
        text(label, frame.left - 7, y + 4, "tick", "end") for y, label in zip(places, scale.labels(count), strict=True)
    ]
    grid = path((f"M{coordinate(frame.left)} {coordinate(y)}H{coordinate(frame.x_end)}" for y in places), "grid")
    base = line(frame.left, frame.top, frame.left, frame.y_end, "axis")
    middle = (scale.start + scale.end) / 2
    caption = element(
        "text",
        shortened(label, _MAX_CAPTION * 2 // 3),
        transform=f"translate(12 {coordinate(middle)}) rotate(-90)",
        class_="axis-label",
        text_anchor="middle",
    )
    return group(grid, base, *words, caption, class_="y-axis")


def chart(frame: Frame, name: str, description: str, *children: Content, class_: str = "chart") -> Markup:
    """Return the drawing with its accessible name. It becomes as wide as its place, up to the style sheet's limit."""
    box = f"0 0 {coordinate(frame.width)} {coordinate(frame.height)}"
    return element(
        "svg",
        element("desc", description),
        *children,
        viewBox=box,
        role="img",
        aria_label=f"{name}. {description}",
        class_=class_,
        xmlns="http://www.w3.org/2000/svg",
    )
