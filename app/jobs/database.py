"""Where jobs are recorded: a SQLite file in the state folder, or Postgres."""

import sqlite3
from contextlib import closing
from pathlib import Path

QUEUE = "training"
WORKFLOW = "train"
PROGRESS = "progress"  # the event that carries it
APPLICATION_VERSION = "1"  # of the recorded requests; jobs recorded under another are left alone
# A job that takes the trainer down with it every time is given up after so many. Restarts of the service count too,
# which a descent of days may see many of.
MAX_RECOVERIES = 100


def reason(error: Exception) -> str:
    """What the database says. SQLAlchemy's own words add the statement, and all that was to be stored by it."""
    return str(getattr(error, "orig", None) or error)


def prepare(url: str) -> None:
    """Create the database, or bring an older one up to date. Safe to call from any number of processes at once."""
    from dbos import DBOS  # 0.4 s, which the names above shall not cost

    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            # Readers then never wait for the writer. It stays with the file.
            connection.execute("PRAGMA journal_mode=WAL")
    DBOS.migrate(url)
