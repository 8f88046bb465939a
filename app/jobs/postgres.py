"""Connections to a job database in Postgres, which fail within seconds if the server does not answer."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import ExceptionContext

CONNECT_SECONDS = 3  # Time in which a server has to accept a connection.
# Time after which a connection to a server that does not acknowledge what was sent is closed.
UNACKNOWLEDGED_SECONDS = 8
# Time after which the server ends a transaction that waits for this process, and frees its locks.
IDLE_TRANSACTION_SECONDS = 30
# Time in which a statement has to end for a request or a job.
STATEMENT_SECONDS = 20.0
# What a server reports that has become a standby. The new primary accepts the same statement.
READ_ONLY = "25006"
TIMED_OUT = "57014"  # What a server reports that ended a statement after `statement_seconds`.
# The table of trainers, in the schema that DBOS creates, so that no other privileges are needed.
_CREATE_TRAINERS = """
    CREATE TABLE IF NOT EXISTS dbos.linserve_trainers (
        name text PRIMARY KEY,
        executor text,
        place text NOT NULL,
        cuda boolean,
        seen timestamptz NOT NULL
    )
"""
SCHEMA_LOCK = 0x6C696E73657276  # Advisory lock of the processes that create the table.

_CONNECTION: dict[str, Any] = {
    "application_name": "linserve",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 1000 * UNACKNOWLEDGED_SECONDS,
}


def new_engine(
    url: str, *, statement_seconds: float = STATEMENT_SECONDS, connections: int = 10, retries_timeouts: bool = False
) -> "Engine":
    """Return an engine for the database. It connects when it is used, and again after a connection was lost.

    DBOS retries a statement whose connection was lost. With `retries_timeouts`, it also retries one that took longer
    than `statement_seconds`. Parameters in the URL take precedence over the timeouts of this module.
    """
    import sqlalchemy as sa

    address = sa.make_url(url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(
        address,
        connect_args={name: value for name, value in _CONNECTION.items() if name not in address.query},
        pool_size=min(connections, 5),
        max_overflow=max(connections - 5, 0),
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
    )

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _: object) -> None:
        # As statements, because PgBouncer rejects connections with options.
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {round(1000 * statement_seconds)}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {1000 * IDLE_TRANSACTION_SECONDS}")
        connection.commit()  # the pool rolls connections back

    @sa.event.listens_for(engine, "handle_error")
    def _(context: "ExceptionContext") -> None:
        state = getattr(context.original_exception, "sqlstate", None)
        # The pool then closes all its connections to this server, and the statement is tried on a new one.
        if state == READ_ONLY or context.connection is None:  # the latter if no connection could be made
            context.is_disconnect = True
        elif state == TIMED_OUT and retries_timeouts:
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False

    return engine


def check_reachable(url: str) -> None:
    """Raise OperationalError within seconds if the server cannot be reached. DBOS would wait for minutes."""
    import sqlalchemy as sa
    from sqlalchemy.exc import OperationalError

    engine = new_engine(url, connections=1)
    try:
        with engine.connect():
            return
    except OperationalError:
        if not _is_server_reachable(sa.make_url(url).set(database="postgres").render_as_string(hide_password=False)):
            raise
        # Only the database does not exist. DBOS creates it.
    finally:
        engine.dispose()


def _is_server_reachable(url: str) -> bool:
    from sqlalchemy.exc import OperationalError

    engine = new_engine(url, connections=1)
    try:
        with engine.connect():
            return True
    except OperationalError:
        return False
    finally:
        engine.dispose()


def create_trainers(url: str) -> None:
    """Create the table of trainers if it does not exist. Any number of processes may call this at once."""
    import sqlalchemy as sa

    engine = new_engine(url, connections=1)
    try:
        with engine.begin() as connection:
            if connection.execute(sa.text("SELECT to_regclass('dbos.linserve_trainers')")).scalar() is None:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
                connection.execute(sa.text(_CREATE_TRAINERS))
    finally:
        engine.dispose()
