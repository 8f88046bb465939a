"""Windows of time in queries, such as `window=24h`."""

import re
from typing import Annotated, TypeAlias

from fastapi import Query

from app.errors import InvalidInput

MINUTE, HOUR, DAY = 60, 3600, 86_400
SHORTEST = 5 * MINUTE

_UNITS = {"m": MINUTE, "h": HOUR, "d": DAY}

WindowText: TypeAlias = Annotated[
    str, Query(description="Length of the window that ends now: a number of minutes, hours or days.", examples=["24h"])
]


def parse_window(text: str, longest: int) -> float:
    """Return the seconds of a window such as 30m, 24h or 7d. Raises InvalidInput if it is longer than `longest`."""
    found = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not SHORTEST <= seconds <= longest:
        message = f"Expected a number and a unit, from 5m to {longest // DAY}d, such as 30m, 24h or 7d."
        raise InvalidInput.of_parameter("window", message)
    return float(seconds)
