"""Where jobs are recorded: a SQLite file in the state folder, or Postgres."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from app.jobs.job import Failure

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
STARTED = "started_at"  # the attribute that keeps the start of a job that was cancelled

UNFINISHED = ["ENQUEUED", "PENDING"]
NOT_DECODED = Failure(
    "TrainingFailed",
    "The record of this job in the job database is not in JSON, in which this service writes. It was not decoded, and "
    "nothing was trained. Send the rows again, and check who else can write to the job database.",
)

_SQLITE = "sqlite:///"


class NotDecoded(Exception):
    """Raised instead of decoding a value that was stored with another serializer than the service's own."""

    def __init__(self) -> None:
        super().__init__(NOT_DECODED.message)
        self.data = msgspec.to_builtins(NOT_DECODED)


def reason(error: Exception) -> str:
    """What the database says. SQLAlchemy's own words add the statement, and all that was to be stored by it."""
    return str(getattr(error, "orig", None) or error)


def redact_url(url: str) -> str:
    """The database's URL for the log, without its password."""
    from sqlalchemy import make_url  # comes with DBOS, as slowly

    return make_url(url).render_as_string()


def file_of(url: str) -> Path | None:
    """The file that the database is, where it is one."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


def prepare(url: str) -> None:
    """Create the database, or bring an older one up to date. Safe to call from any number of processes at once."""
    from dbos import DBOS  # 0.4 s, which the names above shall not cost

    refuse_pickle()
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


def refuse_pickle() -> None:
    """Keep DBOS from unpickling values in the job database, because unpickling can run any code.

    DBOS decodes each value with the serializer that its row names, and also knows pickle. All decoding goes through one
    private class. Raises RuntimeError if the installed release of DBOS has no such class.
    """
    from dbos import DBOSPortableJSONSerializer, _serialization

    ours = DBOSPortableJSONSerializer()

    def refuse(_: object, serialized_data: str) -> Any:  # noqa: ARG001 - as DBOS calls it
        raise NotDecoded

    def as_text(_: object, data: Any) -> str:
        return ours.serialize(str(data))  # of the error that is recorded for a job whose record is refused

    _serialization.DefaultSerializer.deserialize = refuse  # type: ignore[assignment, method-assign]
    _serialization.DefaultSerializer.serialize = as_text  # type: ignore[assignment, method-assign]
    for decode in (
        _serialization.deserialize_value,
        _serialization.deserialize_args,
        _serialization.deserialize_exception,
    ):
        with contextlib.suppress(NotDecoded):
            decode("", "py_pickle", ours)
            raise RuntimeError("This release of DBOS decodes pickled values. Install the one in constraints.txt.")


def place_in_partitions(url: str) -> None:
    """Give the waiting and running jobs of earlier releases their model as the partition of the queue."""
    import sqlalchemy as sa  # comes with DBOS, as slowly

    is_file = file_of(url) is not None
    jobs = sa.table(
        "workflow_status",
        *(sa.column(name) for name in ("queue_name", "queue_partition_key", "status")),
        sa.column("attributes", sa.JSON),
        schema=None if is_file else "dbos",
    )
    model = sa.func.coalesce(jobs.c.attributes["model"].as_string(), "unknown")
    unplaced = sa.and_(jobs.c.queue_name == QUEUE, jobs.c.queue_partition_key.is_(None), jobs.c.status.in_(UNFINISHED))
    engine = sa.create_engine(url if is_file else sa.make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.begin() as connection:
            connection.execute(sa.update(jobs).where(unplaced).values(queue_partition_key=model))
    finally:
        engine.dispose()


def summary(job: "WorkflowStatus", list_workflows: "Callable[..., list[WorkflowStatus]]") -> dict[str, str]:
    """The named parts of the job's request; they are empty if its record cannot be read."""
    known: Any = job.attributes
    if not known:
        (whole,) = list_workflows(workflow_ids=[job.workflow_id], load_output=False)  # recorded before they were kept
        known = whole.input  # as text, if DBOS did not decode it
        known = known["args"][0] if isinstance(known, dict) else {}
    return {name: str(known.get(name, "")) for name in SUMMARY}
