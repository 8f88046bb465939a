"""The lease of a trainer: one running trainer per name, and jobs only of trainers that have died are taken over.

With SQLite, all trainers share a state folder and lock a file in it. With Postgres, they may run on any machines, and
renew a row in the job database.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from app.errors import Unavailable
from app.jobs import postgres
from app.jobs.dbos_database import database_file, driver_message, prepare, redact_url
from app.jobs.host.devices import has_cuda, write_capabilities
from app.storage.file_lock import FileLock, identity

if TYPE_CHECKING:
    from sqlalchemy import Connection

RENEW_SECONDS = 3.0  # Time between two renewals of a row.
DEAD_SECONDS = 15  # Age of a row, by the database's clock, at which its trainer counts as dead.
STATEMENT_SECONDS = 3.0  # Time in which a statement about trainers has to end.
WAIT_SECONDS = 1.0  # Time between two attempts to take a name that another trainer holds.
RETAINED_DAYS = 1  # Time for which the row of a trainer that ended is kept. It states when a trainer was last seen.
CLAIM_LOCK = 0x6C696E74616B65  # Advisory lock of the trainer that takes jobs over.

# Statements about the table that `postgres.create_trainers` creates. `executor` is NULL once a trainer has ended.
_TAKE = """
    INSERT INTO dbos.linserve_trainers AS held (name, executor, place, seen)
    VALUES (:name, :executor, :place, clock_timestamp())
    ON CONFLICT (name) DO UPDATE
    SET executor = excluded.executor, place = excluded.place, seen = clock_timestamp(), cuda = NULL
    WHERE held.executor IS NULL OR held.place = excluded.place
    OR held.seen < clock_timestamp() - make_interval(secs => :dead)
"""
_RENEW = "UPDATE dbos.linserve_trainers SET seen = clock_timestamp() WHERE executor = :executor"
_ANNOUNCE = "UPDATE dbos.linserve_trainers SET cuda = :cuda WHERE executor = :executor"
_END = "UPDATE dbos.linserve_trainers SET executor = NULL WHERE executor = :executor"
_END_DEAD = """
    UPDATE dbos.linserve_trainers SET executor = NULL
    WHERE executor IS NOT NULL AND seen < clock_timestamp() - make_interval(secs => :dead)
"""
_FORGET = """
    DELETE FROM dbos.linserve_trainers
    WHERE executor IS NULL AND seen < clock_timestamp() - make_interval(days => :days)
"""
_LIVING = "SELECT executor FROM dbos.linserve_trainers WHERE executor IS NOT NULL"
_TRY_CLAIM = "SELECT pg_try_advisory_xact_lock(:key)"

_log = logging.getLogger(__name__)


class TrainerLease(Protocol):
    """The right of one process to run as the trainer of a name."""

    executor: str  # identifies the jobs that this process runs
    claim_seconds: float  # time between two looks for jobs of dead trainers

    def acquire(self) -> None:
        """Wait until no other trainer of this name runs. Raises Unavailable if the database cannot be reached."""

    def announce(self) -> None:
        """State which devices this trainer has."""

    def check(self) -> None:
        """Note that this trainer runs. Raises Unavailable if other processes do not see its lease any more."""

    def claim(self, executors: Collection[str]) -> contextlib.AbstractContextManager[list[str]]:
        """Return those that have died. During the block, none of them starts again and no other trainer has them."""

    def release(self) -> None:
        """Let another trainer take the name and the jobs at once, because this process exits."""


def open_lease(url: str, name: str, file: "FileLease") -> TrainerLease:
    """Return the lease for the trainers of a job database. `file` excludes two trainers in one state folder."""
    return file if database_file(url) else PostgresLease(url, name, file)


def default_name(state_dir: Path) -> str:
    """Return a name that no trainer with another state folder or on another machine has."""
    folder = sha256(os.fsencode(state_dir.resolve())).hexdigest()[:6]
    host = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in socket.gethostname())
    return f"{host[:50]}-{folder}"


def name_of(executor: str) -> str:
    """Return the name of the trainer that ran jobs as `executor`."""
    return executor.partition("/")[0]


class FileLease:
    """A lock on a file in the state folder. The kernel frees it when the process ends."""

    claim_seconds = 60.0

    def __init__(
        self, name: str, lock_of: Callable[[str], Path], *, inherited: bool, capabilities: Path, seen: Path
    ) -> None:
        """Use the file that `lock_of` returns for the name. It is locked already if it was `inherited`.

        Web processes read the devices in the file `capabilities`, and the time of the last `check` from `seen`.
        """
        self.executor = name
        self.path = lock_of(name)
        self._lock_of = lock_of
        self._lock = FileLock(self.path)
        self._inherited = inherited
        self._identity: tuple[int, int] | None = None
        self._capabilities = capabilities
        self._seen = seen

    def acquire(self) -> None:
        if not self._inherited and not self._lock.acquire(blocking=False):
            _log.warning("another trainer works here", extra={"lock": str(self.path)})
            self._lock.acquire()
        self._identity = identity(self.path)

    def announce(self) -> None:
        write_capabilities(self._capabilities)

    def check(self) -> None:
        self.check_file()
        with contextlib.suppress(OSError):  # a full disk
            self._seen.touch(mode=0o600)

    def check_file(self) -> None:
        """Raise Unavailable if the lock file was removed, because then other trainers may start."""
        if identity(self.path) != self._identity:
            _log.error("state folder replaced", extra={"file": str(self.path)})
            raise Unavailable("The state folder was removed.")

    @contextlib.contextmanager
    def claim(self, executors: Collection[str]) -> Iterator[list[str]]:
        with contextlib.ExitStack() as locks:
            dead = []
            for other in set(executors) - {self.executor}:
                # While this process holds the lock of a dead trainer, that trainer cannot start again.
                lock = FileLock(self._lock_of(other), os.O_RDWR)
                with contextlib.suppress(FileNotFoundError):
                    if lock.acquire(blocking=False):
                        locks.enter_context(contextlib.closing(lock))
                        dead.append(other)
            yield dead

    def release(self) -> None:
        """Do nothing: the kernel frees the lock."""


class PostgresLease:
    """A row in the job database, renewed by a thread of its own every RENEW_SECONDS.

    Each process has an executor id of its own, so a job belongs to a process and not to a name. A trainer whose row is
    not its own any more exits at once. While the database is away, nobody can take its jobs, so it waits.
    """

    claim_seconds = RENEW_SECONDS

    def __init__(self, url: str, name: str, file: FileLease) -> None:
        self.executor = f"{name}/{uuid.uuid4().hex[:12]}"
        self._url = url
        self._name = name
        self._file = file
        self._engine = postgres.new_engine(url, statement_seconds=STATEMENT_SECONDS, connections=2)
        self._released = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._renewed = 0.0  # when the row was last renewed, by the monotonic clock
        self._renewing_since = 0.0  # since when there was no gap of DEAD_SECONDS

    def acquire(self) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        self._file.acquire()
        try:
            prepare(self._url)
            self._take()
        except (SQLAlchemyError, OSError) as error:
            fields = {"database": redact_url(self._url), "reason": driver_message(error)}
            _log.critical("job database out of reach", extra=fields)
            raise Unavailable("The job database cannot be reached.") from error
        self._renewed = self._renewing_since = time.monotonic()
        self._keeper.start()

    def announce(self) -> None:
        with contextlib.suppress(Unavailable), self._transaction() as connection:
            self._execute(connection, _ANNOUNCE, executor=self.executor, cuda=has_cuda())

    def check(self) -> None:
        self._file.check_file()
        if not self._keeper.is_alive() and not self._released.is_set():  # such as for lack of memory
            _log.critical("lease not renewed", extra={"trainer": self._name, "reason": "The thread for it has ended."})
            raise Unavailable("The thread that renews the lease has ended.")

    @contextlib.contextmanager
    def claim(self, executors: Collection[str]) -> Iterator[list[str]]:
        from sqlalchemy import text

        with self._transaction() as connection:
            if not connection.execute(text(_TRY_CLAIM), {"key": CLAIM_LOCK}).scalar():
                yield []  # another trainer looks at this moment
                return
            # After the database was away, all rows are old, and each living trainer has to have time to renew its own.
            now = time.monotonic()
            if now - self._renewed < DEAD_SECONDS <= now - self._renewing_since:
                self._execute(connection, _END_DEAD, dead=DEAD_SECONDS)
                self._execute(connection, _FORGET, days=RETAINED_DAYS)
            living = set(connection.execute(text(_LIVING)).scalars())
            yield [executor for executor in set(executors) - living if executor != self.executor]

    def release(self) -> None:
        self.stop_renewing()
        with contextlib.suppress(Unavailable), self._transaction() as connection:
            self._execute(connection, _END, executor=self.executor)
        self._engine.dispose()

    def stop_renewing(self) -> None:
        """End the thread that renews the row."""
        self._released.set()
        if self._keeper.is_alive():
            self._keeper.join(STATEMENT_SECONDS)

    def _take(self) -> None:
        values: dict[str, Any] = {
            "name": self._name,
            "executor": self.executor,
            "place": _place(self._file.path),
            "dead": DEAD_SECONDS,
        }
        waiting = False
        while True:
            with self._engine.begin() as connection:
                if self._execute(connection, _TAKE, **values):
                    return
            if not waiting:
                _log.warning("another trainer has this name", extra={"trainer": self._name})
            waiting = True
            time.sleep(WAIT_SECONDS)

    def _keep(self) -> None:
        """Renew the row until this process exits."""
        while not self._released.wait(RENEW_SECONDS):
            try:
                with self._transaction() as connection:
                    renewed = self._execute(connection, _RENEW, executor=self.executor)
            except Exception as error:  # of any kind, because without this thread the trainer would never exit
                _log.warning("lease not renewed", extra={"trainer": self._name, "reason": str(error)})
                continue
            if not renewed and not self._released.is_set():
                _log.critical("lease lost", extra={"trainer": self._name})
                os._exit(1)  # another trainer has the jobs
            now = time.monotonic()
            if now - self._renewed > DEAD_SECONDS:
                self._renewing_since = now
            self._renewed = now

    @contextlib.contextmanager
    def _transaction(self) -> Iterator["Connection"]:
        """Yield a connection in a transaction. Raises Unavailable if the database cannot be reached."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise Unavailable(driver_message(error)) from error

    @staticmethod
    def _execute(connection: "Connection", statement: str, **values: Any) -> int:
        """Return the number of changed rows."""
        from sqlalchemy import text

        return connection.execute(text(statement), values).rowcount


def _place(lock: Path) -> str:
    """Identify the lock file among all machines. A trainer that holds it knows that its predecessor there has died."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    machine = boot.read_text().strip() if boot.exists() else socket.gethostname()
    return json.dumps([machine, identity(lock)])
