"""A job as the pages of jobs show it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.jobs.job import Job, Status
from app.pages.formatting import MISSING, number
from app.training.progress import PUBLISHING, Progress
from app.web.schemas.jobs import job_to_view

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_MAX_TABLE_ROWS = 60  # Rows of the table of a loss curve.
_MAX_TARGETS = 20  # Targets whose metrics are listed.

PHASES = {
    "reading": "Reading the rows",
    "fitting": "Fitting",
    "diagnosing": "Looking at the rows again for diagnostics",
    PUBLISHING: "Publishing the version",
}

METRICS = {
    "r2": "R²",
    "adjusted_r2": "Adjusted R²",
    "rmse": "RMSE",
    "mse": "Mean squared error",
    "mae": "Mean absolute error",
    "folds": "Folds",
    "r2_about": "R² compares with",
    "optimum_mse": "Smallest possible mean squared error",
}


def elapsed(seconds: float) -> str:
    """Return a duration with about two significant parts, such as "3 min 20 s"."""
    if seconds < 1:
        return "under 1 s"
    if seconds < _MINUTE:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - two digits
    units = ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min"), (_MINUTE, "min", 1, "s"))
    unit, name, smaller, smaller_name = next(parts for parts in units if seconds >= parts[0])
    return f"{int(seconds // unit)} {name} {int(seconds % unit // smaller)} {smaller_name}"


def run_seconds(job: Job) -> float | None:
    """Return how long a job has run, or None if it has not started."""
    if job.started_at is None:
        return None
    return max(((job.finished_at or datetime.now(UTC)) - job.started_at).total_seconds(), 0.0)


def run_time(job: Job) -> str:
    """Return how long a job has run, in words, or a dash if it has not started."""
    seconds = run_seconds(job)
    return MISSING if seconds is None else elapsed(seconds)


def phase_of(job: Job) -> str:
    """Return what a job does now, in words."""
    if job.status == Status.QUEUED:
        return "Waiting for the trainer"
    if job.status == Status.SUCCEEDED:
        return "Finished"
    phase = PHASES.get(job.progress.phase, job.progress.phase) if job.progress else "Starting"
    return phase if job.status == Status.RUNNING else f"{job.status.capitalize()} during: {phase[0].lower()}{phase[1:]}"


@dataclass(frozen=True)
class Share:
    """How much of a job's work is done."""

    done: int
    total: int
    words: str


def share_done(progress: Progress | None) -> Share | None:
    """Return the epochs or the fragments that are done, or None if it is not known how many there are."""
    if progress is None:
        return None
    if progress.epochs:
        done = progress.epoch or 0
        return Share(done, progress.epochs, f"epoch {number(done)} of {number(progress.epochs)}")
    if progress.fragments_total:
        done = progress.fragments or 0
        return Share(done, progress.fragments_total, f"fragment {number(done)} of {number(progress.fragments_total)}")
    return None


def thinned(points: tuple[tuple[int, float], ...]) -> list[tuple[int, float]]:
    """Return at most _MAX_TABLE_ROWS of the points at even distances, and the last one."""
    stride = -(-len(points) // _MAX_TABLE_ROWS)
    return [*points[:-1:stride], points[-1]]


@dataclass(frozen=True)
class Metrics:
    """Metrics on some rows: of the first targets, and of all targets together."""

    rows: str  # the rows, in words
    of_targets: dict[str, dict[str, Any]]
    columns: list[str]  # names of the metrics of targets
    of_all: dict[str, Any]
    more: int  # number of targets that are not listed


def metrics_of(job: Job) -> list[Metrics]:
    """Return the metrics of a job: on the rows trained on, and on rows that a fit had not seen."""
    metrics = dict(job.metrics or {})
    validation = metrics.pop("cross_validation", None)
    found = [_metrics("On the rows trained on", metrics)] if metrics else []
    if isinstance(validation, dict):
        found.append(_metrics("Cross-validation: each row predicted by a fit without it", validation))
    return found


def _metrics(rows: str, metrics: dict[str, Any]) -> Metrics:
    of_targets = {name: value for name, value in metrics.items() if isinstance(value, dict)}
    of_all = {name: value for name, value in metrics.items() if name not in of_targets}
    listed = dict(list(of_targets.items())[:_MAX_TARGETS])
    columns = list(dict.fromkeys(name for metrics in listed.values() for name in metrics))
    return Metrics(rows, listed, columns, of_all, len(of_targets) - len(listed))


def error_of(job: Job) -> dict[str, Any] | None:
    """Return the problem that a failed job has."""
    error: dict[str, Any] | None = job_to_view(job)["error"]
    return error
