"""The tables of recorded predictions. This module imports SQLAlchemy, so it is imported when they are first used."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

POSTGRES_SCHEMA = "dbos"  # The schema that DBOS creates, so that no other privileges are needed.
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class Tables:
    """The tables in one database."""

    def __init__(self, *, is_sqlite: bool) -> None:
        self.metadata = sa.MetaData(schema=None if is_sqlite else POSTGRES_SCHEMA)
        self._insert: Any = sqlite.insert if is_sqlite else postgresql.insert
        # `predicted` has float64 values: the predictions, and then lower and upper bounds if there are any.
        # `actual` has the outcomes, NaN if one is not known.
        self.predictions = sa.Table(
            "linserve_predictions",
            self.metadata,
            sa.Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
            sa.Column("model", sa.Text, nullable=False),
            sa.Column("prediction_id", sa.Text, nullable=False),
            sa.Column("version", sa.BigInteger, nullable=False),
            sa.Column("time", sa.Double, nullable=False),
            sa.Column("size", sa.Integer, nullable=False),
            sa.Column("predicted", sa.LargeBinary, nullable=False),
            sa.Column("actual", sa.LargeBinary),
            sa.UniqueConstraint("model", "prediction_id"),
            sqlite_autoincrement=True,
        )
        # The order of the targets in `predicted`, as JSON.
        self.versions = sa.Table(
            "linserve_recorded_versions", self.metadata, *_keys("model", "version"), sa.Column("targets", sa.Text)
        )
        # Numbers of predictions by the hour in which they were made.
        self.hours = sa.Table(
            "linserve_recorded_hours",
            self.metadata,
            *_keys("model", "version", "hour"),
            *_counts("recorded", "matched", "removed", "size"),
        )
        # Sums of the errors by target, magnitude and the hour in which the predictions were made. A replaced outcome is
        # subtracted, and rounding then leaves an error relative to the largest number that a sum had. Without
        # magnitudes, one outcome of 1e12 that is replaced would erase the small errors. Sums of 0 rows are rounding.
        self.errors = sa.Table(
            "linserve_outcome_hours",
            self.metadata,
            *_keys("model", "version", "hour", "target", "magnitude"),
            *_counts("rows", "interval_rows", "covered"),
            *(sa.Column(name, sa.Double, nullable=False) for name in ("error", "absolute", "squared")),
        )
        # The last version of each deleted model. Later models of the same name begin after it.
        self.deleted = sa.Table("linserve_deleted_models", self.metadata, *_keys("model"), *_counts("version"))

    def insert_new(self, table: sa.Table) -> Any:
        """Return a statement that inserts rows unless there are some with the same keys."""
        return self._insert(table).on_conflict_do_nothing()

    def add_to(self, table: sa.Table, *, count: str | None = None) -> Any:
        """Return a statement that inserts rows, or adds their numbers to those with the same keys.

        Numbers whose `count` is 0 are replaced.
        """
        statement = self._insert(table)
        keys = [column.name for column in table.primary_key]
        sums = {
            column.name: column + statement.excluded[column.name] for column in table.columns if not column.primary_key
        }
        if count is not None:
            is_empty = table.c[count] == 0
            sums = {name: sa.case((is_empty, statement.excluded[name]), else_=total) for name, total in sums.items()}
        return statement.on_conflict_do_update(index_elements=keys, set_=sums)

    def set_in(self, table: sa.Table) -> Any:
        """Return a statement that inserts rows, or replaces the numbers of those with the same keys."""
        statement = self._insert(table)
        keys = [column.name for column in table.primary_key]
        values = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
        return statement.on_conflict_do_update(index_elements=keys, set_=values)


def _keys(*names: str) -> list[sa.Column[Any]]:
    texts = {"model", "target"}
    return [sa.Column(name, sa.Text if name in texts else sa.BigInteger, primary_key=True) for name in names]


def _counts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]
