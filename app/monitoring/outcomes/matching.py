"""Match outcomes to recorded predictions, and add up the errors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import frexp, isnan, nan
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa

from app.monitoring.outcomes.database import Database
from app.monitoring.outcomes.recording import add_hours, hour_of
from app.monitoring.outcomes.records import Matches, OutcomeRows, Result

LARGEST = 1e150  # Largest error that is added up; the square of a larger one would not be a 64-bit number.
# Magnitude of an error: its binary exponent divided by MAGNITUDE, and at least SMALLEST.
MAGNITUDE, SMALLEST = 10, -20
_COUNTS = ("rows", "interval_rows", "covered")
_SUMS = (*_COUNTS, "error", "absolute", "squared")


def match(
    connection: sa.Connection, database: Database, model: str, rows: OutcomeRows, *, since: float, replace: bool
) -> Matches:
    """Store outcomes of predictions made `since` a time, and return the results."""
    found = _recorded(connection, database, model, rows.ids, since)
    targets = _targets(connection, database, model, {record.version for record in found.values()})
    matches, merges = Matches(), _Merges(targets, replace=replace)
    for identity, given in zip(rows.ids, rows.values, strict=True):
        record = found.get(identity)
        if record is None or record.version not in targets:
            matches.add_unknown(identity)
        else:
            merges.add(record, dict(zip(rows.targets, given.tolist(), strict=True)), matches)
    _store(connection, database, model, merges)
    return matches


class _Merges:
    """Outcomes of recorded predictions, with the changes that they make."""

    def __init__(self, targets: Mapping[int, Mapping[str, int]], *, replace: bool) -> None:
        """Start with the place of each target in the values of each version."""
        self._targets, self._replace = targets, replace
        self.changed: dict[int, list[float]] = {}  # Outcomes by the number of the record.
        # Changes of _SUMS by version, hour, target and magnitude.
        self.sums: dict[tuple[int, int, str, int], list[float]] = {}
        self.newly_matched: Counter[tuple[int, int]] = Counter()  # Records by version and hour.

    def add(self, record: Any, given: Mapping[str, float], matches: Matches) -> None:
        """Add the outcomes of one record."""
        places = self._targets[record.version]
        known = self.changed.get(record.seq) or _unpacked(record.actual, len(places))
        merged = known.copy()
        named = [(name, places[name]) for name in given if name in places]
        results = {_merge(merged, place, given[name], replace=self._replace) for name, place in named}
        matches.count(record.prediction_id, record.version, results)
        if not results & {"new", "replaced"}:
            return
        hour = hour_of(record.time)
        if record.actual is None and record.seq not in self.changed:
            self.newly_matched[record.version, hour] += 1
        self.changed[record.seq] = merged
        predicted = np.frombuffer(record.predicted, "<f8").tolist()
        for name, place in named:
            before, after = known[place], merged[place]
            if not isnan(after) and before != after:
                hour_of_target = (record.version, hour, name)
                self._add(hour_of_target, _errors(predicted[place :: len(places)], after), 1)
                if not isnan(before):
                    self._add(hour_of_target, _errors(predicted[place :: len(places)], before), -1)

    def _add(self, hour_of_target: tuple[int, int, str], errors: Sequence[float], sign: int) -> None:
        """Add errors, or subtract them if the sign is -1."""
        rows, _, _, _, absolute, _ = errors
        if rows:
            sums = self.sums.setdefault((*hour_of_target, _magnitude(absolute)), [0.0] * len(_SUMS))
            for index, number in enumerate(errors):
                sums[index] += sign * number


def _merge(known: list[float], place: int, value: float, *, replace: bool) -> Result:
    """Write a value into `known` if none was known, or to `replace` another one. Return what became of it."""
    if isnan(value):
        return "none"
    before = known[place]
    if before == value:
        return "repeated"
    if not isnan(before) and not replace:
        return "different"
    known[place] = value
    return "new" if isnan(before) else "replaced"


def _errors(predicted: Sequence[float], actual: float) -> Sequence[float]:
    """Return the numbers in _SUMS of a prediction, which may have a lower and an upper bound; 0 if it is NaN."""
    prediction, *bounds = predicted
    error = min(max(prediction - actual, -LARGEST), LARGEST)
    if isnan(error):
        return [0.0] * len(_SUMS)
    has_interval = bool(bounds) and not any(map(isnan, bounds))
    is_covered = has_interval and bounds[0] <= actual <= bounds[1]
    return 1, has_interval, is_covered, error, abs(error), error * error


def _magnitude(absolute: float) -> int:
    return max(SMALLEST, frexp(absolute)[1] // MAGNITUDE) if absolute else SMALLEST


def _unpacked(stored: bytes | None, count: int) -> list[float]:
    return [nan] * count if stored is None else np.frombuffer(stored, "<f8").tolist()


def _recorded(
    connection: sa.Connection, database: Database, model: str, ids: Sequence[str], since: float
) -> dict[str, Any]:
    """Return the records with these ids, locked."""
    table = database.tables.predictions
    statement = sa.select(table).where(
        table.c.model == model, table.c.prediction_id.in_(sorted(set(ids))), table.c.time >= since
    )
    if not database.file:
        statement = statement.order_by(table.c.seq).with_for_update()
    return {record.prediction_id: record for record in connection.execute(statement)}


def _targets(
    connection: sa.Connection, database: Database, model: str, versions: set[int]
) -> dict[int, Mapping[str, int]]:
    """Return the place of each target in the values of these versions."""
    table = database.tables.versions
    statement = sa.select(table.c.version, table.c.targets).where(
        table.c.model == model, table.c.version.in_(sorted(versions))
    )
    return {
        version: {name: place for place, name in enumerate(orjson.loads(targets))}
        for version, targets in connection.execute(statement)
    }


def _store(connection: sa.Connection, database: Database, model: str, merges: _Merges) -> None:
    tables = database.tables
    table = tables.predictions
    if merges.changed:
        connection.execute(
            sa.update(table).where(table.c.seq == sa.bindparam("key")).values(actual=sa.bindparam("values")),
            [
                {"key": seq, "values": np.array(values, "<f8").tobytes()}
                for seq, values in sorted(merges.changed.items())
            ],
        )
    if merges.sums:
        connection.execute(
            tables.add_to(tables.errors, count="rows"),
            [
                {
                    "model": model,
                    "version": version,
                    "hour": hour,
                    "target": target,
                    "magnitude": magnitude,
                    **_row_of(change),
                }
                for (version, hour, target, magnitude), change in sorted(merges.sums.items())
            ],
        )
    hours = merges.newly_matched.items()
    add_hours(connection, database, {(model, version, hour): {"matched": count} for (version, hour), count in hours})


def _row_of(change: Sequence[float]) -> dict[str, float]:
    return {name: int(value) if name in _COUNTS else value for name, value in zip(_SUMS, change, strict=True)}
