"""The database of recorded predictions: a SQLite file that the workers of one machine share, or Postgres.

This module imports SQLAlchemy, so it is imported when the database is first used.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from app.monitoring.outcomes.tables import POSTGRES_SCHEMA, Tables
from app.storage.file_lock import FileLock

SECONDS = 5  # Time in which a statement has to end, and a lock has to be free.
_SQLITE = "sqlite:///"
_MAX_LOG_BYTES = 1 << 22  # Bytes that SQLite's write-ahead log keeps between transactions.
_VACUUM_PAGES = 2000  # Pages that one transaction returns to the disk.
_SCHEMA_LOCK = 0x6C696E7361637401  # Advisory lock in Postgres of the processes that create the tables.
# Advisory lock in Postgres: shared by transactions that record, exclusive for those that delete a model.
_WRITE_LOCK = 0x6C696E7361637402


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite database, or None for Postgres."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


class Database:
    """Connections to the database, whose tables exist."""

    def __init__(self, url: str) -> None:
        """Connect and create the tables. Any number of processes may do so at once.

        Raises SQLAlchemyError or OSError.
        """
        self.file = sqlite_file(url)
        self.tables = Tables(is_sqlite=self.file is not None)
        self._engine = _sqlite_engine(self.file) if self.file else _postgres_engine(url)
        try:
            if self.file:
                with FileLock(self.file.with_suffix(".lock")):
                    self._create()
            else:
                self._create()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection for statements that only read."""
        with self._engine.connect() as connection:
            yield connection.execution_options(reads=True)

    @contextlib.contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction that is committed at the end; in SQLite, only one process has one.

        With `alone`, no other process records at the same time.
        """
        with self._engine.begin() as connection:
            if not self.file:
                lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
                connection.execute(sa.text(f"SELECT {lock}({_WRITE_LOCK})"))
            yield connection

    def used_bytes(self, connection: sa.Connection) -> int:
        """Return the bytes that count towards the limit: of used pages in SQLite, of rows in Postgres.

        Postgres uses the space of removed rows again after its autovacuum, so the size of its tables does not shrink.
        """
        if self.file:
            return (self._pragma(connection, "page_count") - self._pragma(connection, "freelist_count")) * self._pragma(
                connection, "page_size"
            )
        return int(connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(self.tables.hours.c.size), 0))) or 0)

    def disk_bytes(self, connection: sa.Connection) -> int:
        """Return the bytes that the file has, or the tables in Postgres with their indexes."""
        if self.file:
            return self._pragma(connection, "page_count") * self._pragma(connection, "page_size")
        names = [f"{POSTGRES_SCHEMA}.{table.name}" for table in self.tables.metadata.sorted_tables]
        sizes = (connection.scalar(sa.select(sa.func.pg_total_relation_size(sa.text(f"'{name}'")))) for name in names)
        return sum(int(size or 0) for size in sizes)

    def shrink(self, max_bytes: int) -> bool:
        """Return unused pages of a SQLite file to the disk if it is longer than this. Return False if more remain."""
        if not self.file or self.file.stat().st_size <= max_bytes:
            return True
        with self._engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            unused = driver.execute("PRAGMA freelist_count").fetchone()[0]
            # As a script, because the driver would stop after the first page.
            driver.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES}); PRAGMA wal_checkpoint(PASSIVE)")
        return bool(unused <= _VACUUM_PAGES)

    @staticmethod
    def _pragma(connection: sa.Connection, name: str) -> int:
        return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

    def _create(self) -> None:
        with self._engine.begin() as connection:
            if not self.file:
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})"))
                # Creating a schema that exists needs a privilege too.
                if connection.scalar(sa.text(f"SELECT to_regnamespace('{POSTGRES_SCHEMA}')")) is None:
                    connection.execute(sa.schema.CreateSchema(POSTGRES_SCHEMA))
            self.tables.metadata.create_all(connection)


def _sqlite_engine(file: Path) -> sa.Engine:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives the files that it adds the same mode.
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    engine = sa.create_engine(f"{_SQLITE}{file}", connect_args={"timeout": SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _: object) -> None:
        connection.isolation_level = None  # The driver would begin transactions itself, and too late.
        for pragma in (
            "auto_vacuum = INCREMENTAL",  # It applies if the file has no tables yet.
            "journal_mode = WAL",  # Readers then never wait for the writer.
            "synchronous = FULL",  # What is acknowledged survives a power failure.
            f"journal_size_limit = {_MAX_LOG_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()

    @sa.event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _postgres_engine(url: str) -> sa.Engine:
    address = sa.make_url(url).set(drivername="postgresql+psycopg")
    timeouts = {"application_name": "linserve", "connect_timeout": 3, "tcp_user_timeout": 1000 * SECONDS}
    engine = sa.create_engine(
        address,
        connect_args={name: value for name, value in timeouts.items() if name not in address.query},
        pool_size=2,
        max_overflow=3,
        pool_timeout=SECONDS,
        pool_pre_ping=True,
    )

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _: object) -> None:
        # As statements, because PgBouncer rejects connections with options.
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {1000 * SECONDS}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {6000 * SECONDS}")
        connection.commit()  # The pool rolls connections back.

    return engine
