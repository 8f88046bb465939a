"""The recorded evaluations of a version, for its page."""

from typing import Any

from app.errors import Unavailable
from app.web.state import Services

MAX_TARGETS = 4  # Targets of an evaluation on the page.


def evaluations_panel(services: Services, model: str, version: int) -> dict[str, Any]:
    """Return the recorded evaluations of a version, the newest first, or why they cannot be read."""
    try:
        recorded = services.evaluations.newest(model)
    except Unavailable as error:
        return {"evaluations": [], "no_evaluations": error.message}
    rows = [
        {**evaluation, "rows": result["rows"], "target": target, "metrics": metrics}
        for evaluation in recorded
        for result in evaluation["versions"]
        if result["version"] == version
        for target, metrics in list(result["targets"].items())[:MAX_TARGETS]
    ]
    return {"evaluations": rows, "no_evaluations": None}
