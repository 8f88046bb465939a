"""Keeps one trainer alive on this machine, whichever web worker it hangs on."""

import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from app.storage.file_lock import is_at

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
                self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self._lock.open("a") as file:
                    self._keep_running(file.fileno())
            except OSError as error:  # the folder cannot be written; that may pass
                _log.error("trainer not started", extra={"reason": str(error)})
                self._stop.wait(MAX_PAUSE_SECONDS)

    def _keep_running(self, lock: int) -> None:
        """Until the service stops, or the lock's file is removed: another worker may then hold one of the same name."""
        while not self._acquire(lock):
            if self._stop.wait(WAIT_SECONDS) or not is_at(lock, self._lock):
                return
        pause = 0.0
        while not self._stop.wait(pause) and is_at(lock, self._lock):
            started = time.monotonic()
            try:
                self._supervise(lock)
            except OSError as error:  # no memory or no process to be had; that passes
                _log.error("trainer not started", extra={"reason": str(error)})
            short = time.monotonic() - started < HEALTHY_SECONDS
            pause = min(max(2 * pause, WAIT_SECONDS), MAX_PAUSE_SECONDS) if short else 0.0

    @staticmethod
    def _acquire(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _supervise(self, lock: int) -> None:
        """Start the trainer and stay with it until it ends or is to be stopped, or its lock is none any more."""
        # The kernel's death signal goes by the thread that started the child: this one, which lives as long as we do.
        trainer = subprocess.Popen(
            [sys.executable, "-m", "app.trainer"],
            stdin=subprocess.DEVNULL,
            pass_fds=[lock],
            env=os.environ | {"LINSERVE_PARENT": str(os.getpid())},
        )
        while trainer.poll() is None:
            if self._stop.wait(WAIT_SECONDS) or not is_at(lock, self._lock):
                trainer.terminate()
                try:
                    trainer.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    trainer.kill()
                    trainer.wait()
                return
        _log.warning("trainer ended", extra={"status": trainer.returncode})
