"""Predictions with an id, recorded until their outcomes come.

The rest of the service uses this class. Nothing is connected to, created or imported before the first use, unless there
is a file of records.
"""

import contextlib
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from app.errors import Unavailable
from app.monitoring.outcomes.records import Matches, NotRecorded, OutcomeRows, RecordedRows, RollingError, Usage
from app.monitoring.outcomes.writer import MAX_WAITING_ROWS, Writer
from app.storage.file_lock import identity

if TYPE_CHECKING:
    from app.monitoring.outcomes.database import Database

DAY_SECONDS = 86_400
MATCHED_AT_ONCE = 500  # Rows of outcomes in one transaction.
ATTEMPTS = 3  # Attempts to record predictions within the limit while other workers record too.
# After a failure that took SLOW_SECONDS, nothing is recorded for PAUSE_SECONDS, because each prediction would wait as
# long for the same failure, in one of the few threads that others need.
SLOW_SECONDS = 1.0
PAUSE_SECONDS = 10.0
PAUSED = "The database of recorded predictions does not answer. The service tries again in a few seconds."
LOG_SECONDS = 10  # Least time between two records about the database in the log.
UNREACHABLE = "The database of recorded predictions does not answer. Try again later."
SILENT = "it does not answer"
_SQLITE = "sqlite:///"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Outcomes:
    """The recorded predictions and their outcomes. All methods block, and may be called from any thread."""

    def __init__(self, url: str, *, days: float, max_bytes: int) -> None:
        """Use the database at `url`, keep records for `days`, and keep them below `max_bytes`."""
        self.max_bytes, self.seconds = max_bytes, days * DAY_SECONDS
        self._url = url
        self._file = Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._identity: tuple[int, int] | None = None
        self._logged = 0.0
        self._paused_until = 0.0
        self._writer = Writer(self._write, self._clean)
        if self._file is not None and self._file.exists():
            self._writer.start()  # It imports SQLAlchemy and connects, so that the first prediction need not wait.

    def record(self, rows: RecordedRows) -> None:
        """Record predictions, except those whose ids are recorded already. They are on disk when this returns.

        Raises NotRecorded, also if an id is recorded with another prediction. The others are recorded then.
        """
        # Imported here once, because the wait for a commit is bounded, and the import takes long on a busy machine.
        importlib.import_module("app.monitoring.outcomes.recording")
        for start in range(0, len(rows.ids), MAX_WAITING_ROWS // 4):
            self._writer.record(_part(rows, start, start + MAX_WAITING_ROWS // 4))

    def match(self, model: str, rows: OutcomeRows, matches: Matches, *, replace: bool = False) -> None:
        """Store outcomes, and add what became of them to `matches`. A repeat of the same outcomes changes nothing.

        Raises Unavailable. Some of the rows may be stored then.
        """
        from app.monitoring.outcomes import matching, recording

        since = time.time() - self.seconds
        for start in range(0, len(rows.ids), MATCHED_AT_ONCE):
            part = OutcomeRows(
                rows.ids[start : start + MATCHED_AT_ONCE], rows.targets, rows.values[start : start + MATCHED_AT_ONCE]
            )
            if not self._exists():
                for name in part.ids:
                    matches.add_unknown(name)
                continue
            with self._available() as database:
                recording.make_room(database, 16 * len(part.ids) * (len(part.targets) + 4), self.max_bytes)
                with database.writing() as connection:
                    counted = matching.match(connection, database, model, part, since=since, replace=replace)
                matches.add(counted)

    def rolling(self, model: str, window_seconds: float) -> dict[int, RollingError]:
        """Return the errors by version of predictions made in the last `window_seconds`, in whole hours.

        Raises Unavailable.
        """
        from app.monitoring.outcomes import reading

        since = time.time() - min(window_seconds, self.seconds)
        return self._read(lambda connection, database: reading.rolling(connection, database, model, since), {})

    def targets(self, model: str) -> Mapping[int, Sequence[str]]:
        """Return the targets of each version with recorded predictions. Raises Unavailable."""
        from app.monitoring.outcomes import reading

        nothing: Mapping[int, Sequence[str]] = {}
        return self._read(lambda connection, database: reading.targets(connection, database, model), nothing)

    def models(self) -> list[str]:
        """Return the models with recorded predictions. Raises Unavailable."""
        from app.monitoring.outcomes import reading

        nothing: list[str] = []
        return self._read(reading.models, nothing)

    def usage(self) -> Usage:
        """Return the numbers of records of all models, and their size. Raises Unavailable."""
        from app.monitoring.outcomes import reading

        nothing = Usage(0, self.max_bytes, 0, 0, 0, 0)
        return self._read(lambda connection, database: reading.usage(connection, database, self.max_bytes), nothing)

    def forget(self, model: str, version: int, *, others: bool = False, deleted: bool = False) -> None:
        """Remove the records of a version, and those of versions before it if the `others` go too.

        If the model was `deleted`, predictions of it that are still being computed are not recorded either, so that
        none matches a later model of the same name. Raises Unavailable.
        """
        from app.monitoring.outcomes import removal

        if self._exists():
            with self._available() as database:
                removal.forget(database, model, version, others=others, deleted=deleted)

    def close(self) -> None:
        """Write what waits, and disconnect."""
        self._writer.close()
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _exists(self) -> bool:
        """Return False if nothing was ever recorded in the file, which is not created then."""
        return self._file is None or self._file.exists()

    def _read(self, read: Callable[[Any, "Database"], _T], nothing: _T) -> _T:
        """Return what `read` returns for a connection, or `nothing` if nothing was ever recorded."""
        if not self._exists():
            return nothing
        self._writer.start()
        with self._available() as database, database.reading() as connection:
            return read(connection, database)

    @contextlib.contextmanager
    def _available(self) -> Iterator["Database"]:
        """Yield the database. Raises Unavailable if it fails in the block."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield self._connect()
        except (SQLAlchemyError, OSError) as error:
            self._log_failure(error)
            kind = _kind(error)
            message = UNREACHABLE if kind == SILENT else f"The database of recorded predictions cannot be used: {kind}."
            raise Unavailable(message) from error

    def _connect(self) -> "Database":
        from app.monitoring.outcomes.database import Database

        with self._lock:
            if self._database is not None and self._file is not None and identity(self._file) != self._identity:
                self._database.close()  # The file was removed or replaced.
                self._database = None
            if self._database is None:
                self._database = Database(self._url)
                self._identity = None if self._file is None else identity(self._file)
            return self._database

    def _write(self, group: Sequence[RecordedRows]) -> list[NotRecorded | None]:
        """Record the predictions of several requests in one transaction. Called by the thread of the writer."""
        from sqlalchemy.exc import SQLAlchemyError

        from app.monitoring.outcomes import recording

        started = time.monotonic()
        if started < self._paused_until:
            raise NotRecorded(PAUSED)
        try:
            database = self._connect()
            for _ in range(ATTEMPTS):
                with database.writing() as connection:
                    refusals = [recording.why_refused(connection, database, rows, self.max_bytes) for rows in group]
                    kept = [rows for rows, refusal in zip(group, refusals, strict=True) if refusal is None]
                    needed = recording.bytes_of(kept)
                    if recording.fits(connection, database, needed, self.max_bytes):
                        others = iter(recording.insert(connection, database, kept, time.time() - self.seconds))
                        return [next(others) if refusal is None else refusal for refusal in refusals]
                recording.make_room(database, needed, self.max_bytes)
        except (SQLAlchemyError, OSError) as error:
            self._note_failure(error, started)
            raise NotRecorded(f"The database of recorded predictions does not accept it: {_kind(error)}.") from error
        raise NotRecorded("LINSERVE_MAX_ACTUALS_BYTES is reached, and older records are still being removed.")

    def _clean(self) -> bool:
        """Remove expired records, and those above the limit. Return True if there are more."""
        from sqlalchemy.exc import SQLAlchemyError

        from app.monitoring.outcomes import recording

        started = time.monotonic()
        if started < self._paused_until or not self._exists():
            return False
        try:
            database = self._connect()
            is_done = recording.remove_expired(database, self.seconds)
            is_done = recording.make_room(database, 0, self.max_bytes) and is_done
            return not (database.shrink(self.max_bytes) and is_done)
        except (SQLAlchemyError, OSError) as error:
            self._note_failure(error, started)
            return False

    def _note_failure(self, error: Exception, started: float) -> None:
        """Log a failure of the writer, and pause it if the failure took long."""
        self._log_failure(error)
        if time.monotonic() - started > SLOW_SECONDS:
            self._paused_until = time.monotonic() + PAUSE_SECONDS

    def _log_failure(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._logged > LOG_SECONDS or not self._logged:
            self._logged = now
            reason = str(getattr(error, "orig", None) or error)
            _log.warning("database of recorded predictions out of reach", extra={"reason": reason})


def _kind(error: Exception) -> str:
    """Return in words why a database refuses to write. The driver's message may have paths and hosts."""
    message = str(getattr(error, "orig", None) or error).lower()
    if "full" in message or "no space" in message:
        return "the disk is full"
    if "readonly" in message or "read-only" in message or "unable to open" in message or "permission" in message:
        return "it cannot be written"
    if "i/o error" in message:
        return "the disk fails"
    if "not a database" in message or "malformed" in message:
        return "its file is damaged"
    return "it is locked" if "locked" in message else SILENT


def _part(rows: RecordedRows, start: int, end: int) -> RecordedRows:
    if start == 0 and end >= len(rows.ids):
        return rows
    intervals = None if rows.intervals is None else rows.intervals[start:end]
    return RecordedRows(
        rows.model, rows.version, rows.targets, rows.ids[start:end], rows.predictions[start:end], intervals, rows.time
    )
