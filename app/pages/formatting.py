"""Filters of the templates, for numbers, times and sizes."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

MISSING = "\u2013"
_DIGITS = 6
_LARGE = 1e15  # Whole numbers below have all their digits in a float.
_KILO = 1000
_UNITS = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


def number(value: float | None, digits: int = _DIGITS) -> str:
    """Return a number with `digits` significant digits, and thousands separated by narrow spaces."""
    if value is None or not math.isfinite(value):
        return MISSING
    if float(value).is_integer() and abs(value) < _LARGE:
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "\u2212")
    mantissa, separator, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "\u2212") if separator else mantissa.replace("-", "\u2212")


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as a percentage."""
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun, such as "3 rows"."""
    return f"{number(value)} {noun if value == 1 else plural or noun + 's'}"


def size(value: float) -> str:
    """Return a number of bytes with a unit."""
    unit, *larger = ("bytes", "kB", "MB", "GB", "TB")
    while value >= _KILO and larger:
        value /= _KILO
        unit, *larger = larger
    return count(round(value), "byte") if unit == "bytes" else f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """Return a time in the largest unit of which there is at least one, such as "3 hours"."""
    for unit, name in _UNITS:
        if seconds >= unit:
            return count(int(seconds // unit), name)
    return "less than a minute"


def age(moment: str | datetime | None, now: datetime | None = None) -> Markup:
    """Return how long ago a time (RFC 3339) was, as a `time` element with the exact time."""
    if moment is None:
        return Markup("{}").format(MISSING)
    try:
        then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:  # in the card of a file that another program wrote
        return Markup("{}").format(str(moment))
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    exact = then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    words = f"{duration(seconds)} ago" if seconds >= 0 else exact
    return Markup('<time datetime="{}" title="{}">{}</time>').format(then.isoformat(), exact, words)


def sentence(reason: str) -> str:
    """Return the reason as a sentence. The reasons of imported versions are only the end of one."""
    return f"The version was {reason}." if reason.startswith("imported ") else reason


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "percent": percent,
    "count": count,
    "size": size,
    "duration": duration,
    "age": age,
    "sentence": sentence,
}
