"""Where jobs are recorded: a SQLite file in the state folder, or Postgres."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbos import WorkflowStatus

QUEUE = "training"
WORKFLOW = "train"
PROGRESS = "progress"  # the event that carries it
APPLICATION_VERSION = "1"  # of the recorded requests; jobs recorded under another are left alone
# A job that takes the trainer down with it every time is given up after so many. Restarts of the service count too,
# which a descent of days may see many of.
MAX_RECOVERIES = 100
# What is asked of a request that is not trained now: kept beside it, since all of it may be megabytes of names.
SUMMARY = ("model", "upload", "fingerprint")

_SQLITE = "sqlite:///"


def reason(error: Exception) -> str:
    """What the database says. SQLAlchemy's own words add the statement, and all that was to be stored by it."""
    return str(getattr(error, "orig", None) or error)


def shown(url: str) -> str:
    """The database's URL for the log, without its password."""
    from sqlalchemy import make_url  # comes with DBOS, as slowly

    return make_url(url).render_as_string()


def file_of(url: str) -> Path | None:
    """The file that the database is, where it is one."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


def prepare(url: str) -> None:
    """Create the database, or bring an older one up to date. Safe to call from any number of processes at once."""
    from dbos import DBOS  # 0.4 s, which the names above shall not cost

    if path := file_of(url):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The files that SQLite puts beside it are as private.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            # Readers then never wait for the writer. It stays with the file.
            connection.execute("PRAGMA journal_mode=WAL")
    DBOS.migrate(url)


def ids_in_file(
    path: Path,
    *,
    model: str | None,
    statuses: Sequence[str],
    since: datetime | None,
    until: datetime,
    limit: int,
    offset: int,
) -> list[str]:
    """Return ids of jobs, newest first, from a database that is a file.

    In SQLite, DBOS keeps the time of a job in whole seconds, within which its own list has no order, and does not
    filter by attributes. The table and its columns are documented.
    """
    conditions = ["name = ?", "created_at BETWEEN ? AND ?", f"status IN ({', '.join('?' * len(statuses))})"]
    since = since or datetime.fromtimestamp(0, UTC)
    values: list[Any] = [WORKFLOW, int(since.timestamp() * 1000), int(until.timestamp() * 1000), *statuses]
    if model is not None:
        conditions.append("json_extract(attributes, '$.model') = ?")
        values.append(model)
    query = f"SELECT workflow_uuid FROM workflow_status WHERE {' AND '.join(conditions)}"  # noqa: S608 - made of constants
    query += " ORDER BY created_at DESC, rowid DESC LIMIT ? OFFSET ?"
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        return [job for (job,) in connection.execute(query, (*values, limit, offset))]


def summary(job: "WorkflowStatus", list_workflows: "Callable[..., list[WorkflowStatus]]") -> dict[str, str]:
    """The named parts of the job's request."""
    if job.attributes:
        return job.attributes
    (whole,) = list_workflows(workflow_ids=[job.workflow_id], load_output=False)  # recorded before they were kept
    assert whole.input is not None
    return {name: whole.input["args"][0][name] for name in SUMMARY}
