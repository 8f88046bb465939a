"""Run the service in a thread of the test process, for tests of anything except processes, signals, memory and metrics.

A process needs about a second of processor time to start, and a thread almost none.
"""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TextIO

import httpx
import pytest
from service import MAX_SECONDS, NO_TLS, ROOT, Service, wait_for
from uvicorn import Config, Server

from app.main import app as application
from app.server.protocol import BoundedHttpProtocol
from app.startup import load_config


@contextlib.contextmanager
def kept_logging() -> Iterator[list[logging.Handler]]:
    """Keep the logging of the process while a service starts in it, which configures logging.

    Yield a list, which has the handlers of the service at the end.
    """
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    before = list(root.handlers)
    own: list[logging.Handler] = []
    try:
        yield own
    finally:
        own += [handler for handler in root.handlers if handler not in before]
        root.handlers = before
        logging.getLogger("dbos").handlers = []
        logging.getLogger("dbos").propagate = True
        sys.excepthook, threading.excepthook = hooks
        logging.captureWarnings(capture=False)


class ThreadedService(Service):
    """The application behind uvicorn, on a socket, as in a process of its own.

    Two of them with the same folder have separate caches, like two workers, and each has an address of its own.
    """

    def __init__(
        self, folder: Path, *, trainer: bool = False, environment: dict[str, str] | None = None, **settings: str
    ) -> None:
        """Configure a service with these settings. With `trainer`, a trainer runs in a process of its own."""
        super().__init__(folder, environment=environment, **{**settings, "trainer_mode": "external"})  # type: ignore[arg-type]
        self._has_trainer = trainer
        self._trainer: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket
        self._server: Server
        self._thread: threading.Thread
        self._log_file: TextIO
        self._handlers: list[logging.Handler]

    def start(self, probe: str = "/health/live") -> Self:
        """Start the service and wait until it answers the probe."""
        self._socket = socket.create_server(("127.0.0.1", self._port))
        environment = self.environment
        self._server = Server(
            Config(
                application,
                http=BoundedHttpProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=120,
                timeout_graceful_shutdown=30,
                root_path=environment.get("UVICORN_ROOT_PATH", ""),
                forwarded_allow_ips=environment.get("UVICORN_FORWARDED_ALLOW_IPS"),
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._log_file = self.log.open("a")
        with (
            kept_logging() as self._handlers,
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stderr(self._log_file),
        ):
            for name, value in environment.items():
                patch.setenv(name, value)
            load_config()  # The service would end the process if a setting is wrong.
            self._thread.start()
            wait_for(lambda: self._server.started or not self._thread.is_alive())
        logging.getLogger().handlers += self._handlers
        assert self._server.started
        self.client = httpx.Client(base_url=self.url, timeout=MAX_SECONDS, verify=NO_TLS)
        assert self.client.get(probe).status_code == httpx.codes.OK
        if self._has_trainer:
            with self.log.open("ab") as log:
                self._trainer = subprocess.Popen(
                    [sys.executable, "-m", "app.trainer"], cwd=ROOT, env=environment, stderr=log
                )
        return self

    @property
    def pid(self) -> int:
        """The process id of the tests themselves, whose memory has that of the service in it."""
        return os.getpid()

    def reset_peak(self) -> int:
        for thread in threading.enumerate():
            if thread.name == "connect-jobs":  # It loads libraries. The test's key may not be allowed to wait for it.
                thread.join()
        return super().reset_peak()

    def stop(self) -> int:
        self.client.close()
        if self._trainer is not None:
            self._trainer.terminate()
            self._trainer.wait(MAX_SECONDS)
        self._server.should_exit = True
        self._thread.join(MAX_SECONDS)
        assert not self._thread.is_alive()
        root = logging.getLogger()
        root.handlers = [handler for handler in root.handlers if handler not in self._handlers]
        self._log_file.close()
        return 0
