"""Keep one trainer running per state folder, started by one of the web workers."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from app.storage.file_lock import FileLock

WAIT_SECONDS = 0.5  # Time between two attempts to lock, and between two checks of the trainer.
STOP_SECONDS = 5.0  # Time that a trainer has to end after SIGTERM, before SIGKILL.
HEALTHY_SECONDS = 10.0  # Age of a trainer that is replaced without a pause.
MAX_PAUSE_SECONDS = 10.0  # Longest pause before a trainer that ended early is replaced.

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs the trainer in the web worker that holds the lock of the state folder.

    The trainer inherits the lock. It is free only when both have ended, so there are never two trainers.
    """

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer-supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the trainer if this worker runs it. A job under way continues at the next start."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                lock = FileLock(self._lock)
                if lock.acquire(blocking=False):
                    with contextlib.closing(lock):
                        self._keep_running(lock)
                else:
                    self._stop.wait(WAIT_SECONDS)
            except OSError as error:  # the folder cannot be written, perhaps for a time
                _log.error("trainer not started", extra={"reason": str(error)})
                self._stop.wait(MAX_PAUSE_SECONDS)

    def _keep_running(self, lock: FileLock) -> None:
        """Return when the service stops, or when the lock file is removed and another worker may lock its successor."""
        pause = 0.0
        while not self._stop.wait(pause) and lock.is_current():
            started = time.monotonic()
            try:
                self._supervise(lock)
            except OSError as error:  # no memory or process is available at the moment
                _log.error("trainer not started", extra={"reason": str(error)})
            short = time.monotonic() - started < HEALTHY_SECONDS
            pause = min(max(2 * pause, WAIT_SECONDS), MAX_PAUSE_SECONDS) if short else 0.0

    def _supervise(self, lock: FileLock) -> None:
        """Start the trainer, and return when it has ended. Stop it with the service, or if its lock file is removed."""
        # The kernel kills the child when the thread that started it ends. This thread lives as long as the process.
        trainer = subprocess.Popen(
            [sys.executable, "-m", "app.trainer"],
            stdin=subprocess.DEVNULL,
            pass_fds=[lock.fileno()],
            env=os.environ | {"LINSERVE_PARENT": str(os.getpid())},
        )
        while trainer.poll() is None:
            if self._stop.wait(WAIT_SECONDS) or not lock.is_current():
                trainer.terminate()
                try:
                    trainer.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    trainer.kill()
                    trainer.wait()
                return
        _log.warning("trainer ended", extra={"status": trainer.returncode})
