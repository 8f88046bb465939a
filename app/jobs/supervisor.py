"""Keeps one trainer alive on this machine, whichever web worker it hangs on."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from app.storage.file_lock import FileLock

WAIT_SECONDS = 0.5  # between two tries for the lock, and between two looks at the trainer
STOP_SECONDS = 5.0
HEALTHY_SECONDS = 10.0  # a trainer that lived so long is started again at once
MAX_PAUSE_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Supervisor:
    """Of all web workers that share a state folder, the one that holds its lock runs the trainer.

    The trainer inherits the lock, so that it is free only once both are gone: there are never two trainers.
    """

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer-supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the trainer, if it is ours. A job under way goes on at the next start."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                lock = FileLock(self._lock)
                if lock.acquire(timeout=0):
                    with contextlib.closing(lock):
                        self._keep_running(lock)
                else:
                    self._stop.wait(WAIT_SECONDS)
            except OSError as error:  # the folder cannot be written; that may pass
                _log.error("trainer not started", extra={"reason": str(error)})
                self._stop.wait(MAX_PAUSE_SECONDS)

    def _keep_running(self, lock: FileLock) -> None:
        """Until the service stops, or the lock's file is removed: another worker may then hold one of the same name."""
        pause = 0.0
        while not self._stop.wait(pause) and lock.is_current():
            started = time.monotonic()
            try:
                self._supervise(lock)
            except OSError as error:  # no memory or no process to be had; that passes
                _log.error("trainer not started", extra={"reason": str(error)})
            short = time.monotonic() - started < HEALTHY_SECONDS
            pause = min(max(2 * pause, WAIT_SECONDS), MAX_PAUSE_SECONDS) if short else 0.0

    def _supervise(self, lock: FileLock) -> None:
        """Start the trainer and stay with it until it ends or is to be stopped, or its lock is none any more."""
        # The kernel's death signal goes by the thread that started the child: this one, which lives as long as we do.
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
