"""The database in which DBOS records jobs: a SQLite file in the state folder, or Postgres."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from app.jobs.job import Failure, JobKey
from app.training.progress import PUBLISHING

if TYPE_CHECKING:
    from dbos import WorkflowStatus
    from sqlalchemy import Engine

APPLICATION = "linserve"  # Other applications of DBOS may use the same database.
QUEUE = "training"
WORKFLOW = "train"
PROGRESS = "progress"  # Key of the event that carries the progress of a job.
# Version of the recorded requests. A trainer leaves jobs of another version alone.
APPLICATION_VERSION = "1"
# Number of times that a job may be started again after its trainer ended. Restarts of the service count too, and a
# descent that takes days may see many.
MAX_RECOVERIES = 100
# Parts of a request that are also stored apart from it, because the whole request may hold megabytes of names.
SUMMARY = ("model", "upload", "fingerprint")
STARTED = "started_at"  # Attribute with the start time of a cancelled job.

UNFINISHED = ["ENQUEUED", "PENDING"]
NOT_DECODED = Failure(
    "TrainingFailed",
    "The record of this job in the job database is not in JSON, in which this service writes. It was not decoded, and "
    "nothing was trained. Send the rows again, and check who else can write to the job database.",
)

_SQLITE = "sqlite:///"
_EPOCH = datetime.fromtimestamp(0, UTC)


class NotDecoded(Exception):
    """Raised instead of decoding a value that was stored with another serializer than the service's own."""

    def __init__(self) -> None:
        super().__init__(NOT_DECODED.message)
        self.data = msgspec.to_builtins(NOT_DECODED)


def driver_message(error: Exception) -> str:
    """Return the database driver's message. SQLAlchemy's own also has the statement and the values to store."""
    return str(getattr(error, "orig", None) or error)


def redact_url(url: str) -> str:
    """Return the database URL without its password and its parameters, which may be passwords too, for the log."""
    from sqlalchemy import make_url

    return make_url(url).set(query={}).render_as_string()


def database_file(url: str) -> Path | None:
    """Return the file of a SQLite database, or None for another database."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


def prepare(url: str) -> None:
    """Create the database, or migrate an older one. Any number of processes may call this at once."""
    from dbos import DBOS

    from app.jobs import postgres

    refuse_pickle()
    if path := database_file(url):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives the files that it adds the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            # Readers then never wait for the writer. The file keeps this mode.
            connection.execute("PRAGMA journal_mode=WAL")
        DBOS.migrate(url)
    else:
        postgres.check_reachable(url)
        DBOS.migrate(url)
        postgres.create_trainers(url)


def new_engine(url: str, *, connections: int = 1) -> "Engine":
    """Return an engine, for SQLite without connections that stay open, for Postgres with a pool of `connections`."""
    import sqlalchemy as sa

    from app.jobs import postgres

    if database_file(url) is None:
        return postgres.new_engine(url, connections=connections)
    return sa.create_engine(url, poolclass=sa.NullPool, connect_args={"timeout": 30})


def job_keys(
    engine: "Engine",
    statuses: Sequence[str],
    *,
    model: str | None = None,
    since: datetime | None = None,
    after: JobKey | None = None,
    offset: int = 0,
    limit: int,
) -> list[JobKey]:
    """Return the keys of jobs, newest first. With `after`, the list begins after the job with this key.

    The list of DBOS has no order within one millisecond in Postgres and within one second in SQLite, and does not
    filter by attributes in SQLite. In SQLite the rowid alone is the order in which jobs were recorded. DBOS documents
    this table and its columns.
    """
    import sqlalchemy as sa

    is_file = engine.dialect.name == "sqlite"
    number = "rowid" if is_file else "priority"
    jobs = sa.table(
        "workflow_status",
        *(sa.column(name, sa.Text) for name in ("workflow_uuid", "name", "application_name", "status")),
        *(sa.column(name, sa.BigInteger) for name in ("created_at", number)),
        sa.column("attributes", sa.JSON),
        schema=None if is_file else "dbos",
    )
    key = (jobs.c.created_at, jobs.c[number], jobs.c.workflow_uuid)
    order = key[1:2] if is_file else key
    query = sa.select(*key).where(
        jobs.c.name == WORKFLOW,
        sa.func.coalesce(jobs.c.application_name, APPLICATION) == APPLICATION,
        jobs.c.status.in_(statuses),
    )
    if model is not None:
        query = query.where(jobs.c.attributes["model"].as_string() == model)
    if since is not None:  # from Python 3.12 on, times in SQLite may be a fraction below the millisecond
        query = query.where(sa.func.round(jobs.c.created_at) >= (since - _EPOCH) // timedelta(milliseconds=1))
    if after is not None:
        last = msgspec.structs.astuple(after)
        query = query.where(sa.tuple_(*order) < (last[1:2] if is_file else last))
    query = query.order_by(*(column.desc() for column in order)).limit(limit).offset(offset)
    with engine.connect() as connection:
        return [JobKey(round(time), count, job_id) for time, count, job_id in connection.execute(query)]


def reports_in_file(path: Path, job_ids: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return the trainers' last reports in a SQLite database: job, value and its serialization.

    The client of DBOS would read them one by one. DBOS documents this table and its columns.
    """
    marks = ", ".join("?" * len(job_ids))
    query = "SELECT workflow_uuid, value, serialization FROM workflow_events"
    query += f" WHERE key = ? AND workflow_uuid IN ({marks})"
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        return connection.execute(query, (PROGRESS, *job_ids)).fetchall()


def decode_report(value: str, serialization: str) -> dict[str, Any]:
    """Return a trainer's report, or an empty one if it was not stored in JSON."""
    from dbos import DBOSPortableJSONSerializer, _serialization

    with contextlib.suppress(NotDecoded):
        report: Any = _serialization.deserialize_value(value, serialization, DBOSPortableJSONSerializer())
        if isinstance(report, dict):
            return report
    return {}


def refuse_pickle() -> None:
    """Keep DBOS from unpickling values in the job database, because unpickling can run any code.

    DBOS decodes each value with the serializer that its row names, and also knows pickle. All decoding goes through one
    private class. Raises RuntimeError if the installed release of DBOS has no such class.
    """
    from dbos import DBOSPortableJSONSerializer, _serialization

    serializer = DBOSPortableJSONSerializer()

    def refuse(_: object, serialized_data: str) -> Any:  # noqa: ARG001 - DBOS passes it by name
        raise NotDecoded

    def as_text(_: object, data: Any) -> str:
        return serializer.serialize(str(data))  # for the error that is recorded for a job whose record is refused

    _serialization.DefaultSerializer.deserialize = refuse  # type: ignore[assignment, method-assign]
    _serialization.DefaultSerializer.serialize = as_text  # type: ignore[assignment, method-assign]
    for decode in (
        _serialization.deserialize_value,
        _serialization.deserialize_args,
        _serialization.deserialize_exception,
    ):
        with contextlib.suppress(NotDecoded):
            decode("", "py_pickle", serializer)
            raise RuntimeError("This release of DBOS decodes pickled values. Install the one in constraints.txt.")


def place_in_partitions(url: str) -> None:
    """Give the waiting and running jobs of earlier releases their model as the partition of the queue."""
    import sqlalchemy as sa

    is_file = database_file(url) is not None
    jobs = sa.table(
        "workflow_status",
        *(sa.column(name) for name in ("queue_name", "queue_partition_key", "status")),
        sa.column("attributes", sa.JSON),
        schema=None if is_file else "dbos",
    )
    model = sa.func.coalesce(jobs.c.attributes["model"].as_string(), "unknown")
    unplaced = sa.and_(jobs.c.queue_name == QUEUE, jobs.c.queue_partition_key.is_(None), jobs.c.status.in_(UNFINISHED))
    engine = new_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(sa.update(jobs).where(unplaced).values(queue_partition_key=model))
    finally:
        engine.dispose()


def cancel(url: str, job_id: str) -> bool:
    """Cancel a job that has not ended. Return False if its trainer has recorded that it publishes.

    A trainer records that only while it has the job, in a transaction that locks the same row, so one of the two is
    first. The client of DBOS cancels in a transaction of its own, after which a job that publishes would have to be
    resumed. It would stay cancelled if this process died in between.
    """
    import sqlalchemy as sa

    is_file = database_file(url) is not None
    schema = None if is_file else "dbos"
    released = ("owner_xid", "queue_name", "deduplication_id", "started_at_epoch_ms")
    changed = ("workflow_uuid", "status", "updated_at", "completed_at", *released)
    jobs = sa.table("workflow_status", *(sa.column(name) for name in changed), schema=schema)
    columns = ("workflow_uuid", "key", "value", "serialization")
    events = sa.table("workflow_events", *(sa.column(name) for name in columns), schema=schema)
    progress = sa.select(events.c.value, events.c.serialization).where(
        events.c.workflow_uuid == job_id, events.c.key == PROGRESS
    )
    unfinished = sa.update(jobs).where(jobs.c.workflow_uuid == job_id, jobs.c.status.in_(UNFINISHED))
    seconds = sa.func.strftime("%s", "now") if is_file else sa.func.extract("epoch", sa.func.clock_timestamp())
    now = sa.cast(seconds * 1000, sa.BigInteger)
    engine = new_engine(url)
    try:
        with engine.begin() as connection:
            # A write locks the row in Postgres, and the database in SQLite.
            if not connection.execute(unfinished.values(status=jobs.c.status)).rowcount:
                return True
            if any(_is_publishing(value, serialization) for value, serialization in connection.execute(progress)):
                return False
            values = {"status": "CANCELLED", "updated_at": now, "completed_at": now, **dict.fromkeys(released)}
            connection.execute(unfinished.values(values))
            return True
    finally:
        engine.dispose()


def _is_publishing(value: str, serialization: str) -> bool:
    try:
        return bool(decode_report(value, serialization)["progress"]["phase"] == PUBLISHING)
    except (LookupError, TypeError):
        return False


def request_summary(job: "WorkflowStatus", list_workflows: "Callable[..., list[WorkflowStatus]]") -> dict[str, str]:
    """Return the parts of the job's request in SUMMARY. They are empty if its record cannot be read or was pruned."""
    attributes: Any = job.attributes
    if not attributes:  # an earlier release recorded the job
        attributes = {}
        for complete in list_workflows(workflow_ids=[job.workflow_id], load_output=False):
            request = complete.input  # a text if DBOS did not decode it
            attributes = request["args"][0] if isinstance(request, dict) else {}
    return {name: str(attributes.get(name, "")) for name in SUMMARY}
