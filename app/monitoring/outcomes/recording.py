"""Insert predictions, and remove the oldest ones."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson
import sqlalchemy as sa

from app.monitoring.outcomes.database import Database
from app.monitoring.outcomes.records import NotRecorded, RecordedRows

HOUR = 3600
SHARE_IN_USE = 0.95  # Share of the byte limit above which the oldest records are removed.
REMOVED_AT_ONCE = 2000  # Records that one transaction removes.
MAX_BATCHES = 20  # Transactions after which other work is done first.
ROW_BYTES = 200  # Bytes of a record and its entries in indexes, in addition to its own values.
_INSERTED_AT_ONCE = 1000

Hour: TypeAlias = tuple[str, int, int]  # A model, a version, and the number of an hour since 1970.


def insert(
    connection: sa.Connection, database: Database, group: Sequence[RecordedRows], expired: float
) -> list[NotRecorded | None]:
    """Record predictions whose ids are not recorded yet for their model, or only by records made before `expired`.

    Return for each request why some are not recorded, or None. A repeated request is recorded.
    """
    if not group:
        return []
    tables = database.tables
    versions = {(rows.model, rows.version): rows.targets for rows in group}
    connection.execute(
        tables.insert_new(tables.versions),
        [
            {"model": model, "version": version, "targets": orjson.dumps(targets).decode()}
            for (model, version), targets in sorted(versions.items())
        ],
    )
    requests = [_records(rows) for rows in group]
    # In the order of their ids, so that no two processes wait for each other.
    records = sorted(
        (record for request in requests for record in request),
        key=lambda record: (record["model"], record["prediction_id"]),
    )
    inserted = _insert(connection, database, records)
    if len(inserted) == len(records):
        return [None] * len(group)
    rest = [record for record in records if _key(record) not in inserted]
    if _remove_expired_ids(connection, database, rest, expired):
        _insert(connection, database, rest)
    stored = _stored(connection, database, records)
    return [_why_other(request, stored) for request in requests]


def _insert(connection: sa.Connection, database: Database, records: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
    """Insert records whose ids are new, and count them. Return their models and ids."""
    columns = database.tables.predictions.c
    statement = database.tables.insert_new(database.tables.predictions).returning(
        columns.model, columns.prediction_id, columns.version, columns.time, columns.size
    )
    inserted: set[tuple[str, str]] = set()
    recorded: Counter[Hour] = Counter()
    sizes: Counter[Hour] = Counter()
    for start in range(0, len(records), _INSERTED_AT_ONCE):
        for model, identity, version, made, size in connection.execute(
            statement, records[start : start + _INSERTED_AT_ONCE]
        ):
            inserted.add((model, identity))
            recorded[model, version, hour_of(made)] += 1
            sizes[model, version, hour_of(made)] += size
    add_hours(connection, database, {key: {"recorded": recorded[key], "size": sizes[key]} for key in recorded})
    return inserted


def _remove_expired_ids(
    connection: sa.Connection, database: Database, records: Sequence[dict[str, Any]], expired: float
) -> int:
    """Remove earlier records with the ids of these that were made before `expired`. Return their number."""
    columns = database.tables.predictions.c
    return sum(
        _remove(connection, database, _have_ids(columns, model, ids) & (columns.time < expired))
        for model, ids in _ids_by_model(records)
    )


def _stored(
    connection: sa.Connection, database: Database, records: Sequence[dict[str, Any]]
) -> dict[tuple[str, str], tuple[int, bytes]]:
    """Return the versions and predictions that are recorded under the ids of these records."""
    columns = database.tables.predictions.c
    stored = {}
    for model, ids in _ids_by_model(records):
        statement = sa.select(columns.prediction_id, columns.version, columns.predicted)
        for identity, version, predicted in connection.execute(statement.where(_have_ids(columns, model, ids))):
            stored[model, identity] = version, bytes(predicted)
    return stored


def _why_other(
    request: Sequence[dict[str, Any]], stored: dict[tuple[str, str], tuple[int, bytes]]
) -> NotRecorded | None:
    others = sum(stored.get(_key(record)) != (record["version"], record["predicted"]) for record in request)
    if not others:
        return None
    if len(request) == 1:
        return NotRecorded("The id is recorded already with another prediction, which stays.")
    are = "is" if others == 1 else "are"
    return NotRecorded(f"{others} of {len(request)} ids {are} recorded already with other predictions, which stay.")


def _ids_by_model(records: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yield models, each with some of the ids of its records."""
    ids: dict[str, list[str]] = {}
    for record in records:
        ids.setdefault(record["model"], []).append(record["prediction_id"])
    for model, names in ids.items():
        for start in range(0, len(names), _INSERTED_AT_ONCE):
            yield model, names[start : start + _INSERTED_AT_ONCE]


def _have_ids(columns: Any, model: str, ids: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.and_(columns.model == model, columns.prediction_id.in_(ids))


def _key(record: dict[str, Any]) -> tuple[str, str]:
    return record["model"], record["prediction_id"]


def why_refused(
    connection: sa.Connection, database: Database, rows: RecordedRows, max_bytes: int
) -> NotRecorded | None:
    """Return why rows cannot be recorded, or None if they can."""
    deleted = database.tables.deleted.c
    last = connection.scalar(sa.select(deleted.version).where(deleted.model == rows.model))
    if last is not None and rows.version <= last:
        return NotRecorded("The model was deleted.")
    if bytes_of([rows]) > SHARE_IN_USE * max_bytes:
        return NotRecorded(f"The records would exceed LINSERVE_MAX_ACTUALS_BYTES, {max_bytes} bytes.")
    return None


def bytes_of(group: Sequence[RecordedRows]) -> int:
    """Return the bytes that the records take at most."""
    return sum(len(rows.ids) * _row_bytes(rows) + 4 * sum(map(len, rows.ids)) for rows in group)


def fits(connection: sa.Connection, database: Database, needed: int, max_bytes: int) -> bool:
    """Return True if `needed` more bytes fit into the limit."""
    return database.used_bytes(connection) + needed <= max_bytes


def make_room(database: Database, needed: int, max_bytes: int) -> bool:
    """Remove the oldest records until `needed` more bytes fit into SHARE_IN_USE of the limit, in small transactions.

    Return False if they still do not fit after MAX_BATCHES.
    """
    for _ in range(MAX_BATCHES):
        with database.writing() as connection:
            excess = database.used_bytes(connection) + needed - int(SHARE_IN_USE * max_bytes)
            if excess <= 0:
                return True
            if not (_remove_bytes(connection, database, excess) or _remove_oldest_hour(connection, database)):
                return True
    return False


def remove_expired(database: Database, seconds: float) -> bool:
    """Remove the records and sums that are older than this, in small transactions.

    Return False if there are more after MAX_BATCHES.
    """
    before = time.time() - seconds
    columns = database.tables.predictions.c
    for _ in range(MAX_BATCHES):
        oldest = sa.select(columns.seq).order_by(columns.seq).limit(REMOVED_AT_ONCE)
        with database.writing() as connection:
            if _remove(connection, database, columns.seq.in_(oldest) & (columns.time < before)) < REMOVED_AT_ONCE:
                break
    else:
        return False
    with database.writing() as connection:
        for table in (database.tables.errors, database.tables.hours):
            connection.execute(sa.delete(table).where(table.c.hour < hour_of(before)))
    return True


def _remove_bytes(connection: sa.Connection, database: Database, needed: int) -> bool:
    """Remove the oldest records that take `needed` bytes, at most REMOVED_AT_ONCE. Return False if there are none."""
    columns = database.tables.predictions.c
    last = None
    for seq, size in connection.execute(
        sa.select(columns.seq, columns.size).order_by(columns.seq).limit(REMOVED_AT_ONCE)
    ):
        last = seq
        needed -= size
        if needed <= 0:
            break
    return last is not None and _remove(connection, database, columns.seq <= last) > 0


def _remove(connection: sa.Connection, database: Database, condition: Any) -> int:
    """Remove the records for which the condition holds. Return their number."""
    table = database.tables.predictions
    columns = table.c
    statement = (
        sa.delete(table)
        .where(condition)
        # The length, because SQLite 3.40 gives a wrong result for `actual IS NULL` here.
        .returning(columns.model, columns.version, columns.time, columns.size, sa.func.length(columns.actual))
    )
    changes: dict[Hour, dict[str, int]] = {}
    count = 0
    for model, version, made, size, actual_length in connection.execute(statement):
        change = changes.setdefault((model, version, hour_of(made)), {"removed": 0, "size": 0})
        change["removed"] += actual_length is None
        change["size"] -= size
        count += 1
    add_hours(connection, database, changes)
    return count


def add_hours(connection: sa.Connection, database: Database, changes: dict[Hour, dict[str, int]]) -> None:
    """Add numbers to those of hours, in the order of the keys, so that no two processes deadlock."""
    if changes:
        names = ("recorded", "matched", "removed", "size")
        connection.execute(
            database.tables.add_to(database.tables.hours),
            [
                {"model": model, "version": version, "hour": hour} | {name: change.get(name, 0) for name in names}
                for (model, version, hour), change in sorted(changes.items())
            ],
        )


def hour_of(seconds: float) -> int:
    """Return the number of the hour, since 1970, of a time in seconds."""
    return int(seconds // HOUR)


def _remove_oldest_hour(connection: sa.Connection, database: Database) -> bool:
    """Remove the sums of the oldest hour. Return False if there are none but those of this hour."""
    tables = database.tables
    oldest = connection.scalar(sa.select(sa.func.min(tables.hours.c.hour)))
    if oldest is None or oldest >= hour_of(time.time()):
        return False
    for table in (tables.errors, tables.hours):
        connection.execute(sa.delete(table).where(table.c.hour <= oldest))
    return True


def _records(rows: RecordedRows) -> list[dict[str, Any]]:
    values = rows.predictions
    if rows.intervals is not None:
        lower_and_upper = rows.intervals.transpose(0, 2, 1).reshape(len(values), -1)
        values = np.hstack([values, lower_and_upper])
    packed = np.ascontiguousarray(values, "<f8")
    constant = {"model": rows.model, "version": rows.version, "time": rows.time}
    size = _row_bytes(rows)
    return [
        {**constant, "prediction_id": identity, "size": size + len(identity.encode()), "predicted": row.tobytes()}
        for identity, row in zip(rows.ids, packed, strict=True)
    ]


def _row_bytes(rows: RecordedRows) -> int:
    numbers = len(rows.targets) * (2 if rows.intervals is None else 4)  # With the outcomes.
    return ROW_BYTES + 2 * len(rows.model) + 8 * numbers
