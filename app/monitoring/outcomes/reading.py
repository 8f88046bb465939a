"""Read rolling errors and counts from the sums by hour."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from app.monitoring.outcomes.database import Database
from app.monitoring.outcomes.matching import LARGEST
from app.monitoring.outcomes.recording import hour_of
from app.monitoring.outcomes.records import RollingError, TargetError, Usage


def rolling(connection: sa.Connection, database: Database, model: str, since: float) -> dict[int, RollingError]:
    """Return the errors by version of predictions made in the hour of `since` and later."""
    tables = database.tables
    hours, errors = tables.hours, tables.errors
    targets: dict[int, dict[str, TargetError]] = {}
    sums = ("rows", "interval_rows", "covered", "error", "absolute", "squared")
    for version, target, rows, interval_rows, covered, *numbers in connection.execute(
        sa.select(errors.c.version, errors.c.target, *(sa.func.sum(errors.c[name]) for name in sums))
        .where(errors.c.model == model, errors.c.hour >= hour_of(since), errors.c.rows > 0)
        .group_by(errors.c.version, errors.c.target)
        .order_by(errors.c.version, errors.c.target)
    ):
        targets.setdefault(version, {})[target] = _error(rows, interval_rows, covered, numbers)
    counts = connection.execute(
        sa.select(hours.c.version, *(sa.func.sum(hours.c[name]) for name in ("recorded", "matched", "removed")))
        .where(hours.c.model == model, hours.c.hour >= hour_of(since))
        .group_by(hours.c.version)
        .order_by(hours.c.version)
    )
    return {
        version: RollingError(
            int(recorded), int(matched), max(0, int(recorded - matched - removed)), targets.get(version, {})
        )
        for version, recorded, matched, removed in counts
    }


def targets(connection: sa.Connection, database: Database, model: str) -> Mapping[int, Sequence[str]]:
    """Return the targets of each version with recorded predictions."""
    table = database.tables.versions
    found = connection.execute(sa.select(table.c.version, table.c.targets).where(table.c.model == model))
    return {version: orjson.loads(names) for version, names in found}


def models(connection: sa.Connection, database: Database) -> list[str]:
    """Return the models with recorded predictions."""
    model = database.tables.versions.c.model
    return list(connection.scalars(sa.select(model).distinct().order_by(model)))


def usage(connection: sa.Connection, database: Database, max_bytes: int) -> Usage:
    """Return the numbers of records of all models, and their size."""
    hours = database.tables.hours.c
    sums = (sa.func.coalesce(sa.func.sum(hours[name]), 0) for name in ("recorded", "matched", "removed"))
    recorded, matched, removed = map(int, connection.execute(sa.select(*sums)).one())
    size = database.disk_bytes(connection)
    return Usage(size, max_bytes, recorded, matched, max(0, recorded - matched - removed), removed)


def _error(rows: Any, interval_rows: Any, covered: Any, sums: Sequence[float]) -> TargetError:
    count, with_interval = int(rows), int(interval_rows)
    error, absolute, squared = sums
    return {
        "rows": count,
        "rmse": _published(math.sqrt(max(0.0, squared) / count)) if count else None,
        "mae": _published(max(0.0, absolute) / count) if count else None,
        "bias": _published(error / count) if count else None,
        "interval_rows": with_interval,
        "interval_coverage": int(covered) / with_interval if with_interval else None,
    }


def _published(value: float) -> float | None:
    """Return the value, or None if errors so large went into it that it is not right."""
    return value if abs(value) < LARGEST / 1e6 else None
