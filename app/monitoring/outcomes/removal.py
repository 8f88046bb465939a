"""Remove the records of deleted models and versions."""

import sqlalchemy as sa

from app.monitoring.outcomes.database import Database
from app.monitoring.outcomes.recording import REMOVED_AT_ONCE


def forget(database: Database, model: str, version: int, *, others: bool, deleted: bool) -> None:
    """Remove the records of a version and, with `others`, of those before it, in small transactions."""
    tables = database.tables

    def are_meant(table: sa.Table) -> sa.ColumnElement[bool]:
        number = table.c.version
        return sa.and_(table.c.model == model, number <= version if others else number == version)

    if deleted:
        with database.writing(alone=True) as connection:
            connection.execute(tables.set_in(tables.deleted), {"model": model, "version": version})
    predictions = tables.predictions
    some = sa.select(predictions.c.seq).where(are_meant(predictions)).limit(REMOVED_AT_ONCE)
    count = REMOVED_AT_ONCE
    while count == REMOVED_AT_ONCE:
        with database.writing() as connection:
            count = connection.execute(sa.delete(predictions).where(predictions.c.seq.in_(some))).rowcount
    with database.writing() as connection:
        for table in (tables.errors, tables.hours, tables.versions):
            connection.execute(sa.delete(table).where(are_meant(table)))
